// The state of the live connection, in words, and the way back after it broke.

const SILENT_MS = 25_000; // the server says something every ten seconds
const SIGNED_OUT = 4401;
const GONE = 4404;

const words = {
  live: ["Live", ""],
  reconnecting: ["Reconnecting", ""],
  offline: ["Offline", "reload to retry"],
  "signed-out": ["Signed out", "reload to sign in"],
};

let state = "off";
let wrapper = null;
let lastWord = performance.now();
let lastEvent = null;

function show(next) {
  state = next;
  const shown = next === "signed-out" ? "offline" : next;
  document.getElementById("live-line")?.setAttribute("data-state", shown);
  const live = document.getElementById("live");
  if (!live) return;
  live.dataset.state = shown;
  const word = live.querySelector("b");
  if (word.textContent !== words[next][0]) word.textContent = words[next][0];
  tell();
}

function tell() {
  const place = document.querySelector("#live .num");
  if (!place || state === "off") return;
  if (words[state][1]) {
    place.textContent = words[state][1];
    return;
  }
  const seconds = (performance.now() - (lastEvent ?? lastWord)) / 1000;
  const length = seconds < 60 ? `${Math.floor(seconds)} s` : seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
  place.textContent = seconds < 1 ? "event just now" : `event ${length} ago`;
}

/** Say something to the server, when it can be said now. */
export function send(message) {
  if (state === "live" && wrapper) wrapper.send(JSON.stringify(message));
}

if (window.htmx) {
  // Quick at first, never slower than five seconds: somebody is watching.
  htmx.config.wsReconnectDelay = (attempt) => Math.min(5000, 250 * 2 ** attempt) * (0.5 + Math.random() / 2);
}

document.addEventListener("htmx:wsConnecting", () => {
  if (state !== "off") show("reconnecting");
});
document.addEventListener("htmx:wsOpen", (event) => {
  wrapper = event.detail.socketWrapper;
  lastWord = performance.now();
  show("live");
  document.dispatchEvent(new CustomEvent("agentops:live"));
});
document.addEventListener("htmx:wsAfterMessage", (event) => {
  lastWord = performance.now();
  if (event.detail.message.startsWith("<!--")) return;
  lastEvent = lastWord;
  tell();
  document.dispatchEvent(new CustomEvent("agentops:changed"));
});
document.addEventListener("htmx:wsClose", (event) => {
  const code = event.detail.event.code;
  show(code === SIGNED_OUT ? "signed-out" : code === GONE ? "offline" : "reconnecting");
});

setInterval(() => {
  tell();
  if (state === "live" && wrapper && performance.now() - lastWord > SILENT_MS) {
    lastWord = performance.now();
    show("reconnecting");
    wrapper.reconnect();
  }
}, 1000);

window.addEventListener("offline", () => show("offline"));
window.addEventListener("online", () => {
  if (state !== "offline") return;
  show("reconnecting");
  wrapper?.reconnect();
});

// The title of the tab: how much waits for a person, then what the page says of itself.
const plainTitle = document.title.replace(/^\(\d+\) /, "");
function title() {
  const counts = document.getElementById("pending-count")?.dataset ?? {};
  const waiting = Number(counts.count ?? 0);
  const said = document.querySelector("[data-title]")?.dataset.title ?? plainTitle;
  document.title = waiting ? `(${waiting}) ${said}` : said;
  for (const node of document.querySelectorAll("[data-pending]")) node.textContent = counts.approvals ?? 0;
  for (const node of document.querySelectorAll("[data-unknown]")) node.textContent = counts.outcomes ?? 0;
}
document.addEventListener("agentops:changed", title);
title();
