// The keyboard. Single letters do nothing while somebody types or just after the content changed.
import { current, press, reveal, shown } from "./card.js";
import { sinceChange } from "./morph.js";
import { foldHere, jump } from "./jumps.js";
import { follow, moveBy } from "./trace.js";

const QUIET_MS = 400;
const DECIDING = "aeru"; // keys that mean the question that the reader has before them
const MOVES = {
  runs: { items: ".runs .q" },
  approvals: { items: "#queue h3 a" },
};
const PLACES = { r: "/", a: "/approvals/", p: "/policy/", c: "/costs/", t: "/tickets/", w: "/workers/", e: "/errors/", l: "/tools/", i: "/agents/" };

const page = () => document.querySelector("[data-page]")?.dataset.page;
const visible = (node) => node && node.offsetParent !== null;
const first = (selector, within = document) => [...within.querySelectorAll(selector)].find(visible);

function move(by) {
  if (page() === "run") {
    moveBy(by);
    return;
  }
  const items = [...document.querySelectorAll(MOVES[page()]?.items ?? "nothing")].filter(visible);
  if (!items.length) return;
  const focused = items.indexOf(document.activeElement);
  const at = focused >= 0 ? focused : items.findIndex((item) => item.hasAttribute("aria-current"));
  const next = items[Math.max(0, Math.min(items.length - 1, at < 0 ? 0 : at + by))];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

/** Another question of the queue has the focus: that one is meant, and it has to be opened first. */
function another() {
  const link = document.activeElement;
  return link?.matches("#queue h3 a:not([aria-current])") ? link : null;
}

function open() {
  if (page() === "run") return first("a[href*='/approvals/']", current() ?? document)?.click();
  if (page() === "approvals") return (another() ?? document.querySelector("[data-trace]"))?.click();
  if (document.activeElement?.matches(".q")) document.activeElement.click();
  return undefined;
}

/** The first press only goes there; the second presses the button, while the question is in sight. */
function approve(card) {
  const button = first("[data-approve]", card);
  if (!button) reveal(card);
  else if (button.disabled) reveal(card, first("[data-confirm]", card));
  else press(card, button);
}

function reject(card) {
  reveal(card, first("[data-reason]", card));
}

/** What another part put on the card: done at once when it is in sight, else brought there. */
function act(card, action) {
  const control = first(`[data-action="${action}"]`, card);
  if (!control) return;
  if (shown(card, control)) control.click();
  else reveal(card, control);
}

function help() {
  const dialog = document.getElementById("help");
  if (dialog && !dialog.open) dialog.showModal();
}

const keys = {
  "/": () => (document.getElementById("q") ?? document.getElementById("find"))?.focus(),
  j: () => move(1),
  k: () => move(-1),
  o: open,
  n: () => first("[data-new]")?.click(),
  f: () => page() === "run" && document.getElementById("follow") && follow(),
  h: () => page() === "run" && foldHere(true),
  l: () => page() === "run" && foldHere(false),
  x: () => page() === "run" && jump("error"),
  p: () => page() === "run" && jump("approval"),
  m: () => page() === "run" && jump("cost"),
  a: approve,
  e: (card) => act(card, "edit"),
  r: reject,
  u: (card) => act(card, "undo"),
  "?": help,
};

/** A key about a question goes to the one before the reader, and to none while it has just changed. */
function decide(key) {
  if (sinceChange() < QUIET_MS) return;
  const link = another();
  if (link) {
    link.click();
    return;
  }
  const card = current();
  if (card) keys[key](card);
  else if (key === "r") document.querySelector("[data-reason]")?.focus(); // an outcome that nobody knows
}

let going = -Infinity;
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select");
  if (event.key === "Escape" && typing) typing.blur();
  if (typing || event.metaKey || event.ctrlKey || event.altKey || event.repeat) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "g") {
    going = performance.now();
    return;
  }
  if (performance.now() - going < 1200 && PLACES[event.key]) {
    location.assign(PLACES[event.key]);
    return;
  }
  going = -Infinity;
  const known = keys[event.key];
  if (!known) return;
  event.preventDefault();
  if (DECIDING.includes(event.key)) decide(event.key);
  else known();
});
