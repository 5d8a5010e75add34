// The keyboard. Single letters do nothing while somebody types or just after the content changed.
import { sinceChange } from "./morph.js";
import { foldHere, jump } from "./jumps.js";
import { follow, moveBy } from "./trace.js";

const QUIET_MS = 400;
const MOVES = {
  runs: { items: ".runs .q" },
  approvals: { items: "#queue h3 a" },
};
const PLACES = { r: "/", a: "/approvals/", c: "/costs/", t: "/tickets/", w: "/workers/", e: "/errors/", l: "/tools/", i: "/agents/" };

const page = () => document.querySelector("[data-page]")?.dataset.page;
const visible = (node) => node && node.offsetParent !== null;
const first = (selector) => [...document.querySelectorAll(selector)].find(visible);

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

function open() {
  if (page() === "run") return first(".ask a[href*='/approvals/']")?.click();
  if (page() === "approvals") return document.querySelector("[data-trace]")?.click();
  if (document.activeElement?.matches(".q")) document.activeElement.click();
  return undefined;
}

/** The first press only goes there; the second presses the button. */
function approve() {
  const button = first("[data-approve]");
  if (!button || button.disabled) return;
  if (document.activeElement === button) button.click();
  else {
    button.scrollIntoView({ block: "nearest" });
    button.focus();
  }
}

function reject() {
  const reason = first("[data-reason]");
  reason?.scrollIntoView({ block: "nearest" });
  reason?.focus();
}

function help() {
  document.getElementById("help")?.showModal();
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
  e: () => page() === "run" && jump("error"),
  p: () => page() === "run" && jump("approval"),
  m: () => page() === "run" && jump("cost"),
  a: approve,
  r: reject,
  "?": help,
};

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
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  if ("ar".includes(event.key) && sinceChange() < QUIET_MS) return;
  act();
});
