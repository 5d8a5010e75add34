// Which question a key means, and whether it is before the reader: no key acts on what cannot be seen.

const cards = () => [...document.querySelectorAll("#card[data-question], .ask[data-question], .ask-undo")];

/** The part of the window that bars at its edges do not cover, as its top and bottom edge. */
function opening() {
  const top = document.querySelector(".topbar")?.getBoundingClientRect().bottom ?? 0;
  const rail = document.querySelector(".rail")?.getBoundingClientRect();
  const below = rail && rail.top > innerHeight / 2 ? rail.top : innerHeight;
  return [Math.max(0, top), below];
}

function inside(node) {
  const [top, bottom] = opening();
  const box = node.getBoundingClientRect();
  return box.height > 0 && box.top >= top - 1 && box.bottom <= bottom + 1;
}

/** How many pixels of the card's height are in sight. */
function share(card) {
  const [top, bottom] = opening();
  const box = card.getBoundingClientRect();
  return Math.max(0, Math.min(box.bottom, bottom) - Math.max(box.top, top));
}

/** The question with the focus in it or on its step, else the one that most of is in sight; null without any. */
export function current() {
  const all = cards();
  const focus = document.activeElement;
  const held = all.find((card) => card.contains(focus));
  if (held) return held;
  const step = focus?.closest?.(".row[data-step]")?.parentElement;
  const asked = step && all.find((card) => card.parentElement === step);
  if (asked) return asked;
  return all.reduce((best, card) => (best === null || share(card) > share(best) ? card : best), null);
}

/** Is this control wholly in sight, and what it would do as well? A card higher than the window shows no more. */
export function shown(card, control) {
  if (!inside(control)) return false;
  const [top, bottom] = opening();
  const headline = card.querySelector("[data-headline]");
  return !headline || inside(headline) || card.getBoundingClientRect().height > bottom - top;
}

/** Bring the question into sight, and the control with the focus on it. */
export function reveal(card, control) {
  if (!control) {
    card.scrollIntoView({ block: "start" });
    return;
  }
  if (!shown(card, control)) card.scrollIntoView({ block: "start" });
  if (!inside(control)) control.scrollIntoView({ block: "center" });
  control.focus({ preventScroll: true });
}

/** Press it when it has the focus and can be seen with its question; else only go there. */
export function press(card, control) {
  if (document.activeElement === control && shown(card, control)) control.click();
  else reveal(card, control);
}
