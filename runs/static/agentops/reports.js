// Pages of numbers about many runs are read again from time to time, while somebody has them in sight.

const EVERY_MS = 30_000;
const place = () => document.querySelector("[data-report]");
let readAt = performance.now();
let reading = false;

async function readAgain() {
  if (document.hidden || reading || performance.now() - readAt < EVERY_MS) return;
  reading = true;
  readAt = performance.now();
  try {
    const response = await fetch(location.href);
    if (!response.ok || response.redirected) return; // signed out, or gone: what is here stays
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html").querySelector("[data-report]");
    if (!fresh || !place()) return;
    Idiomorph.morph(place(), fresh);
    document.dispatchEvent(new CustomEvent("agentops:changed"));
  } catch {
    // The server does not answer: the word at the top says so, and the next time it is asked again.
  } finally {
    reading = false;
  }
}

if (place()) {
  setInterval(readAgain, 1000);
  document.addEventListener("visibilitychange", readAgain);
}
