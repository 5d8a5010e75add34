// The run page: which step is shown, and following the live one until the reader chooses another.
import { send } from "./live.js";

const page = () => document.querySelector("[data-page=run]");
const panel = () => document.getElementById("panel");

let below = false;
let chosen = Number(new URLSearchParams(location.search).get("step")) || null;

function mark() {
  const step = panel()?.dataset.step;
  for (const row of document.querySelectorAll("#steps .row")) {
    if (row.dataset.step === step) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
  const follow = document.getElementById("follow");
  if (follow) follow.checked = chosen === null;
}

function choose(step) {
  chosen = step;
  send({ step });
}

/** Follow the live step again. */
export function follow() {
  choose(null);
  history.replaceState(null, "", location.pathname);
  mark();
}

if (page()) {
  document.addEventListener("click", (event) => {
    const row = event.target.closest("#steps .row");
    if (!row || event.metaKey || event.ctrlKey) return;
    choose(Number(row.dataset.step));
    below = event.detail > 0 && matchMedia("(width < 1024px)").matches; // a tap, not a key
  });
  document.addEventListener("change", (event) => {
    if (event.target.id !== "follow") return;
    if (event.target.checked) follow();
    else {
      const step = Number(panel().dataset.step);
      choose(step);
      history.replaceState(null, "", `?step=${step}`);
    }
  });
  document.addEventListener("agentops:live", () => send({ step: chosen }));
  document.addEventListener("agentops:changed", mark);
  document.addEventListener("htmx:afterSwap", () => {
    mark();
    if (below) panel().scrollIntoView(); // on a narrow screen it stands under the trace
    below = false;
  });
  document.addEventListener("htmx:afterSettle", mark);
  window.addEventListener("popstate", () => location.reload());
  mark();
}
