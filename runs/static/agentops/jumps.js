// Jumps in a trace: to the next error, the next question, the most expensive step; and folding by key.
import { fold, goTo } from "./trace.js";

const here = () => Number(document.querySelector("#steps .row[aria-current]")?.dataset.step ?? document.getElementById("panel")?.dataset.step ?? 0);

function say(text) {
  const place = document.getElementById("jump-said");
  if (place) place.textContent = text;
}

/** Ask the server where the next one is: it may stand far outside of what is read. */
export async function jump(kind) {
  const link = document.querySelector(`[data-jump="${kind}"]`);
  if (!link) return;
  const response = await fetch(`${link.getAttribute("href").split("?")[0]}?after=${here()}`, { headers: { "HX-Request": "true" } });
  const { step, sentence } = await response.json();
  say(sentence);
  if (step) await goTo(step);
}

/** Fold or unfold the turn that holds the current row. */
export function foldHere(folded) {
  const row = document.activeElement?.closest("#steps .row") ?? document.querySelector("#steps .row[aria-current]");
  let turn = row?.closest("li");
  while (turn && !turn.querySelector(":scope > .fold-turn")) turn = turn.parentElement.closest("#steps li");
  if (!turn) return;
  fold(turn, folded);
  if (folded) turn.querySelector(":scope > .row").focus({ preventScroll: true });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-jump]");
  const hit = event.target.closest("[data-hit]");
  if (!(link || hit) || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  if (link) jump(link.dataset.jump);
  else goTo(Number(hit.dataset.hit));
});
