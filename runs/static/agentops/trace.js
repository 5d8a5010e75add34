// The run page: which step is shown, and following the live one until the reader chooses another.
import { send } from "./live.js";
import { read, sectionOf } from "./sections.js";

const page = () => document.querySelector("[data-page=run]");
const panel = () => document.getElementById("panel");
const row = (step) => document.getElementById(`row-${step}`);
const isLive = () => Boolean(document.querySelector(".section[data-open]") ?? document.getElementById("steps-empty"));

let below = false;
let chosen = Number(new URLSearchParams(location.search).get("step")) || null;

/** The address of this page with another step; the view stays, what was found or which part was read does not. */
function address(step) {
  const view = new URLSearchParams(location.search).get("view");
  const query = new URLSearchParams({ ...(step && { step }), ...(view && { view }) }).toString();
  return query ? `?${query}` : location.pathname;
}

function mark() {
  const step = panel()?.dataset.step;
  for (const marked of document.querySelectorAll("#steps .row[aria-current]")) {
    if (marked.dataset.step !== step) marked.removeAttribute("aria-current");
  }
  row(step)?.setAttribute("aria-current", "true");
  const follow = document.getElementById("follow");
  if (follow) follow.checked = chosen === null;
}

function choose(step) {
  chosen = step;
  send({ step });
}

/** Follow the live step again, and the end of the trace. */
export function follow() {
  choose(null);
  history.replaceState(null, "", address(null));
  mark();
  held = true;
  toEnd();
}

/** Show a step in the panel, and remember it in the address. */
export function show(step) {
  if (Number(panel()?.dataset.step) === step && chosen === step) return;
  choose(step);
  history.pushState(null, "", address(step));
  htmx.ajax("GET", address(step), { target: "#panel", swap: "morph" });
}

/** Go to a step wherever it is: read its section, bring it into view, show it. */
export async function goTo(step) {
  await sectionOf(step);
  const found = row(step);
  if (!found) {
    location.assign(`${address(step)}#row-${step}`);
    return;
  }
  unfoldTo(found);
  found.focus({ preventScroll: true });
  found.scrollIntoView({ block: "center" });
  show(step);
}

/** One row on or back, into sections that are not read yet, too. */
export async function moveBy(by) {
  const all = () => [...document.querySelectorAll("#steps .row")].filter((one) => one.offsetParent !== null);
  const focused = document.activeElement?.closest("#steps .row");
  const from = focused ?? row(panel()?.dataset.step) ?? all()[0];
  if (!from) return;
  const section = from.closest(".section");
  let next = all()[all().indexOf(from) + by];
  if (next?.closest(".section") !== section) {
    const beside = by > 0 ? section.nextElementSibling : section.previousElementSibling;
    if (beside?.matches(".section")) {
      await read(beside);
      next = all()[all().indexOf(from) + by];
    }
  }
  if (!focused && !document.activeElement?.matches(".row") && from.getAttribute("aria-current") === null) next = from;
  if (!next) return;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  show(Number(next.dataset.step));
}

function unfoldTo(found) {
  for (let turn = found.closest("li"); turn; turn = turn.parentElement.closest("li")) {
    if (turn.contains(found) && turn.dataset.folded && turn.querySelector(":scope > .row") !== found) fold(turn, false);
  }
}

/** Fold the steps inside a turn away, or show them again. */
export function fold(turn, folded) {
  const button = turn.querySelector(":scope > .fold-turn");
  if (!button) return;
  if (folded) turn.dataset.folded = "yes";
  else delete turn.dataset.folded;
  button.setAttribute("aria-expanded", String(!folded));
}

// ---- following the end of a live trace: until the reader scrolls away from it, and again when he comes back
let held = chosen === null;
let unseen = 0;
let steps = 0;

const end = () => document.querySelector("#steps > .section:last-child .rows > li:last-child");

function endIsInSight() {
  const last = end()?.getBoundingClientRect();
  return !last || last.bottom < innerHeight + 40;
}

function toEnd() {
  unseen = 0;
  pill();
  const last = end();
  if (last && !endIsInSight()) last.scrollIntoView({ block: "end" });
}

function pill() {
  const place = document.getElementById("to-end");
  if (!place) return;
  place.hidden = !unseen || !isLive();
  const words = `${unseen} new step${unseen === 1 ? "" : "s"}`;
  if (!place.hidden && place.dataset.words !== words) {
    place.dataset.words = words;
    place.querySelector("b").textContent = words;
  }
}

// The panel shows the end of what the model writes, until the reader scrolls back in it.
let panelHeld = true;
function keepUp() {
  const place = panel();
  if (panelHeld && place?.querySelector(".streams")) place.scrollTop = place.scrollHeight;
}

function grown() {
  const last = document.querySelector("#run-head")?.dataset.steps;
  const count = Number(last ?? 0);
  const more = count - steps;
  if (steps && more > 0 && isLive()) {
    if (held && chosen === null) toEnd();
    else if (!endIsInSight()) unseen += more;
  }
  steps = count;
  pill();
}

function letGo(event) {
  if (event.type === "wheel" && event.deltaY >= 0) return;
  if (event.type === "keydown" && !["ArrowUp", "PageUp", "Home"].includes(event.key)) return;
  held = false;
}

if (page()) {
  document.addEventListener("click", (event) => {
    const turn = event.target.closest(".fold-turn");
    if (turn) fold(turn.closest("li"), turn.getAttribute("aria-expanded") === "true");
    if (event.target.closest("#to-end")) follow();
    const clicked = event.target.closest("#steps .row");
    if (!clicked || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    below = event.detail > 0 && matchMedia("(width < 1024px)").matches; // a tap, not a key
    show(Number(clicked.dataset.step));
  });
  document.addEventListener("change", (event) => {
    if (event.target.id !== "follow") return;
    if (event.target.checked) follow();
    else {
      const step = Number(panel().dataset.step);
      choose(step);
      history.replaceState(null, "", address(step));
    }
  });
  for (const type of ["wheel", "touchmove", "keydown"]) document.addEventListener(type, letGo, { passive: true });
  document.addEventListener("scroll", () => {
    if (!held && chosen === null && endIsInSight()) held = true;
    if (unseen && endIsInSight()) toEnd();
  }, { passive: true });
  document.addEventListener("agentops:live", () => send({ step: chosen }));
  document.addEventListener("agentops:changed", () => {
    mark();
    grown();
    keepUp();
  });
  panel().addEventListener("scroll", () => {
    const place = panel();
    panelHeld = place.scrollTop + place.clientHeight > place.scrollHeight - 24;
  }, { passive: true });
  document.addEventListener("htmx:afterSwap", () => {
    mark();
    if (below) panel().scrollIntoView(); // on a narrow screen it stands under the trace
    below = false;
  });
  document.addEventListener("htmx:afterSettle", mark);
  window.addEventListener("popstate", () => location.reload());
  mark();
  grown();
  if (chosen && !location.hash) row(chosen)?.scrollIntoView({ block: "nearest" });
  else if (!location.hash && isLive() && document.querySelector("#steps > .place")) toEnd();
}
