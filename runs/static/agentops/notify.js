// Notifications of this browser: a new approval while nobody looks at the tab. Asked for by a click, never before.

const KEPT = "agentops.notify";
const supported = window.isSecureContext && "Notification" in window;
const wanted = () => localStorage.getItem(KEPT) === "on";
const on = () => supported && wanted() && Notification.permission === "granted";

let known = null; // approvals that were seen to wait, on a page or in a notification
let count = null;
let asking = null;

async function waiting() {
  try {
    const answer = await fetch("/approvals/pending.json", { headers: { accept: "application/json" } });
    return answer.ok && !answer.redirected ? (await answer.json()).pending : null;
  } catch {
    return null;
  }
}

function tell(approval) {
  try {
    // The tag is the approval: several tabs of this browser show it once.
    const shown = new Notification(`Approve? ${approval.headline}`, {
      body: `${approval.environment} · ${approval.agent} · run ${approval.run}`,
      tag: `agentops-approval-${approval.pk}`,
    });
    shown.addEventListener("click", () => {
      window.focus();
      shown.close();
      location.assign(approval.url);
    });
  } catch {
    // Some browsers of phones have the class and cannot make one.
  }
}

async function look() {
  const away = document.hidden; // now, not when the answer comes
  const pending = await waiting();
  if (!pending) return;
  const fresh = known ? pending.filter((approval) => !known.has(approval.pk)) : [];
  known ??= new Set();
  for (const approval of pending) known.add(approval.pk);
  if (away && on()) fresh.forEach(tell);
}

/** One look at a time, and the looks that were missed meanwhile are one more. */
function lookAgain() {
  asking = (asking ?? Promise.resolve()).then(look);
}

function changed() {
  const now = ["pending-count", "new-asks"].map((id) => document.getElementById(id)?.textContent).join();
  if (!on() || (now === count && known)) return;
  count = now;
  lookAgain();
}

function show() {
  for (const button of document.querySelectorAll("[data-notify]")) {
    button.hidden = !supported;
    const blocked = supported && Notification.permission === "denied";
    button.disabled = blocked;
    button.textContent = blocked ? "Notifications are blocked in this browser" : on() ? "Notified in this browser: stop" : "Notify me in this browser";
  }
}

document.addEventListener("click", async (event) => {
  if (!event.target.closest("[data-notify]")) return;
  if (on()) localStorage.removeItem(KEPT);
  else if ((await Notification.requestPermission()) === "granted") localStorage.setItem(KEPT, "on");
  show();
  changed();
});
document.addEventListener("agentops:changed", changed);
window.addEventListener("storage", show);
show();
changed();
