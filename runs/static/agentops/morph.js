// Live updates morph the page: what the reader did to it stays as it is.

let lastChange = -Infinity;

/** Milliseconds since the content under the reader changed: keys that came before it meant the old content. */
export function sinceChange() {
  return performance.now() - lastChange;
}

const typed = (node) => node.matches("textarea, input:not([type=hidden]), select");

const question = (seen) => seen.split(".", 2).join("."); // approval and revision

/** Make the text of a node another one where they differ only: what the reader selected beside that stays selected. */
function change(node, text) {
  const old = node.data;
  const shorter = Math.min(old.length, text.length);
  let begin = 0;
  while (begin < shorter && old[begin] === text[begin]) begin += 1;
  let end = 0;
  while (end < shorter - begin && old[old.length - 1 - end] === text[text.length - 1 - end]) end += 1;
  node.replaceData(begin, old.length - begin - end, text.slice(begin, text.length - end));
}

function keepNode(oldNode, newNode) {
  if (oldNode.nodeType === Node.TEXT_NODE && newNode.nodeType === Node.TEXT_NODE && oldNode.data !== newNode.data) {
    change(oldNode, newNode.data);
  }
  if (oldNode.nodeType !== Node.ELEMENT_NODE || newNode.nodeType !== Node.ELEMENT_NODE) return true;
  // A settled part of a long trace that was read stays, where only its place was sent.
  if (newNode.classList.contains("place") && oldNode.querySelector(".rows")) {
    return "open" in oldNode.dataset;
  }
  // The same question drawn again: it has been before the reader since it was drawn first.
  if (oldNode.name === "seen" && newNode.name === "seen") {
    return question(oldNode.value) !== question(newNode.value);
  }
  if (typed(oldNode) && newNode.tagName === oldNode.tagName) {
    // The reader's own words and choices; "follow" says what the server sees.
    return oldNode.id === "follow" || !oldNode.closest("form");
  }
  return true;
}

function keepAttribute(name, node) {
  if (name === "open" && node.tagName === "DETAILS") {
    const panel = node.closest("#panel");
    return Boolean(panel && panel.dataset.morphing === "another"); // another step: its own folds
  }
  if (name === "aria-current" && node.classList.contains("row")) return false; // trace.js marks it
  if (name === "data-folded" || (name === "aria-expanded" && node.matches(".fold-turn"))) return false;
  if (name === "hidden" && node.closest("[data-expired]")) return false;
  if (name === "disabled" && node.closest("[data-expired], [data-sent]")) return false;
  if (name.startsWith("data-") && (name === "data-expired" || name === "data-sent")) return false;
  return true;
}

Idiomorph.defaults.callbacks.beforeNodeMorphed = (oldNode, newNode) => {
  if (oldNode.id === "panel" && newNode.id === "panel") {
    const another = oldNode.dataset.step !== newNode.dataset.step;
    oldNode.dataset.morphing = another ? "another" : "same";
    if (another) oldNode.scrollTop = 0;
  }
  if (oldNode.dataset?.question !== newNode.dataset?.question) lastChange = performance.now();
  return keepNode(oldNode, newNode);
};
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
  name === "data-morphing" ? false : keepAttribute(name, node);

// Another question under the reader, or the same one in another state, is new content for the keys.
Idiomorph.defaults.callbacks.afterNodeAdded = (node) => {
  if (node.nodeType === Node.ELEMENT_NODE && node.matches("[data-question]")) lastChange = performance.now();
};

// Somebody else decided while the reader was writing: what was written stays on the page.
let unsent = "";
Idiomorph.defaults.callbacks.beforeNodeRemoved = (node) => {
  if (node.nodeType !== Node.ELEMENT_NODE) return true;
  if (node.dataset.kept) return false;
  const reason = node.matches("[data-reason]") ? node : node.querySelector("[data-reason]");
  if (reason?.value.trim()) unsent = reason.value.trim();
  return true;
};
document.addEventListener("agentops:changed", () => {
  const place = unsent && document.querySelector("#decide .outcome");
  if (!place) return;
  const kept = document.createElement("p");
  kept.className = "draft";
  kept.dataset.kept = "yes";
  const label = document.createElement("b");
  label.textContent = "Your unsent text: ";
  kept.append(label, unsent);
  place.after(kept);
  unsent = "";
});
