// The run page: which step is shown, and following the live one until the reader chooses another.
import { send } from "./live.js";

const page = () => document.querySelector("[data-page=run]");
const panel = () => document.getElementById("panel");

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
    if (row && !event.metaKey && !event.ctrlKey) choose(Number(row.dataset.step));
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
  document.addEventListener("htmx:afterSwap", mark);
  document.addEventListener("htmx:afterSettle", mark);
  window.addEventListener("popstate", () => location.reload());
  mark();
}
