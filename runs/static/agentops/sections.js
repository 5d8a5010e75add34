// A long trace: its sections are read when the reader comes near them, and put away when they are far.

const NEAR = "1500px"; // around the window: what is so near is read
const MOST = 8; // sections kept in the document
const list = () => document.getElementById("steps");
const loading = new Map();

function isPlace(section) {
  return section.classList.contains("place");
}

function address(number) {
  return `${location.pathname}sections/${number}/${list().classList.contains("talk") ? "?view=conversation" : ""}`;
}

/** Read a section into its place. Resolves to the section once its rows are there, or to null. */
export function read(section) {
  if (!isPlace(section)) return Promise.resolve(section);
  const { id } = section;
  if (!loading.has(id)) loading.set(id, fetchInto(section).finally(() => loading.delete(id)));
  return loading.get(id);
}

async function fetchInto(section) {
  section.dataset.state = "loading";
  try {
    const response = await fetch(address(section.dataset.section), { headers: { "HX-Request": "true" } });
    if (!response.ok) throw new Error(response.status);
    const shell = document.createElement("template");
    shell.innerHTML = await response.text();
    const now = document.getElementById(section.id);
    if (!now || !isPlace(now)) return now;
    const filled = shell.content.firstElementChild;
    watch.unobserve(now);
    now.replaceWith(filled);
    watch.observe(filled);
    htmx.process(filled);
    document.dispatchEvent(new CustomEvent("agentops:changed"));
    return filled;
  } catch {
    section.dataset.state = "failed"; // its link still works, and coming near again tries again
    return null;
  }
}

/** Give back what is far away; its place is as high as it was. */
function putAway() {
  const read = [...list().querySelectorAll(":scope > .section:not(.place)")];
  if (read.length <= MOST) return;
  const middle = innerHeight / 2;
  const far = (section) => {
    const box = section.getBoundingClientRect();
    return box.top > middle ? box.top - middle : middle - box.bottom;
  };
  const spare = read
    .filter((section) => !("open" in section.dataset) && !section.contains(document.activeElement))
    .sort((one, other) => far(other) - far(one));
  for (const section of spare.slice(0, read.length - MOST)) {
    if (far(section) > 2 * innerHeight) empty(section);
  }
}

function empty(section) {
  const { height } = section.getBoundingClientRect();
  const [first, last] = section.dataset.steps.split("-");
  const place = document.createElement("li");
  place.id = section.id;
  place.className = "section place";
  Object.assign(place.dataset, { section: section.dataset.section, steps: section.dataset.steps });
  const link = document.createElement("a");
  link.className = "place-link";
  const view = list().classList.contains("talk") ? "&view=conversation" : "";
  link.href = `?section=${place.dataset.section}${view}#${place.id}`;
  link.textContent = `Steps ${Number(first).toLocaleString("en")} to ${Number(last).toLocaleString("en")}`;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "room");
  svg.setAttribute("width", "1");
  svg.setAttribute("height", height);
  svg.setAttribute("aria-hidden", "true");
  place.append(link, svg);
  watch.unobserve(section);
  section.replaceWith(place);
  watch.observe(place);
}

// Whoever scrolls fast passes many places: only where the reader stays a moment is read.
let passing = null;
const near = new Set();
function look() {
  clearTimeout(passing);
  passing = setTimeout(async () => {
    const places = [...near].filter((section) => section.isConnected && isPlace(section));
    const middle = innerHeight / 2;
    places.sort((a, b) => Math.abs(a.getBoundingClientRect().top - middle) - Math.abs(b.getBoundingClientRect().top - middle));
    await Promise.all(places.slice(0, 3).map(read));
    putAway();
  }, 60);
}

const watch = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) near.add(entry.target);
      else near.delete(entry.target);
    }
    look();
  },
  { rootMargin: `${NEAR} 0px` },
);

function observe() {
  for (const section of list()?.children ?? []) if (section.dataset.section) watch.observe(section);
}

/** The section of a step, read. Resolves to null when there is none. */
export async function sectionOf(step) {
  for (const section of list()?.querySelectorAll(":scope > .section") ?? []) {
    const [first, last] = section.dataset.steps.split("-").map(Number);
    if (step >= first && step <= last) return read(section);
  }
  return null;
}

// A turn or a section that is new to this page gets its place first, so that it can be morphed into it.
const NEW = /^\s*<li id="(turn|section)-(\d+)"(?: class="[^"]*")?(?: data-in="(\d+)")?/;
document.addEventListener("htmx:wsBeforeMessage", (event) => {
  const found = NEW.exec(event.detail.message);
  if (!found || !list()) return;
  const [, kind, number, inside] = found;
  if (document.getElementById(`${kind}-${number}`)) return;
  const parent = kind === "turn" ? document.getElementById(`rows-${inside}`) : list();
  if (!parent) {
    event.preventDefault(); // it stands in a section that is put away, and is read with it
    return;
  }
  const shell = document.createElement("li");
  shell.id = `${kind}-${number}`;
  parent.append(shell);
});

if (list()) {
  observe();
  document.addEventListener("agentops:changed", observe);
}
