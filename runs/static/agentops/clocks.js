// Times that go on: ages, durations, countdowns, and the present on the axis of a trace.

const skew = Number(document.body.dataset.now) - Date.now();

/** Milliseconds since 1970 by the server's clock. */
export const now = () => Date.now() + skew;

const two = (n) => String(n).padStart(2, "0");

function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const days = Math.floor(whole / 86400);
  const hours = Math.floor((whole % 86400) / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  const text = hours || days ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
  return days ? `${days} d ${text}` : text;
}

function duration(seconds) {
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  return seconds < 99.95 ? `${seconds.toFixed(1)} s` : clock(seconds);
}

function ago(seconds) {
  if (seconds < 2) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function expire(node) {
  if (node.dataset.expired) return;
  node.dataset.expired = "yes";
  for (const button of node.querySelectorAll("button[name=verdict], .while-open, .ask-form")) button.hidden = true;
  for (const sentence of node.querySelectorAll(".after-expiry")) sentence.hidden = false;
}

function tick() {
  const moment = now();
  for (const node of document.querySelectorAll("[data-ago]")) write(node, ago((moment - node.dataset.ago) / 1000));
  for (const node of document.querySelectorAll("[data-since]")) {
    const seconds = Math.max(0, (moment - node.dataset.since) / 1000);
    write(node, node.dataset.style === "duration" ? duration(seconds) : clock(seconds));
  }
  for (const node of document.querySelectorAll("[data-until]")) {
    const left = Math.max(0, (node.dataset.until - moment) / 1000);
    write(node, clock(left));
    node.closest(".left")?.classList.toggle("soon", left < 240);
  }
  for (const node of document.querySelectorAll("svg[data-to]")) {
    const share = (node.dataset.to - moment) / (node.dataset.to - node.dataset.from);
    const bar = node.querySelector("rect:last-of-type");
    bar.setAttribute("width", `${Math.max(0, Math.min(100, share * 100)).toFixed(1)}%`);
    bar.setAttribute("class", share < 0.25 ? "fg-bad" : "fg-quiet");
  }
  for (const node of document.querySelectorAll("[data-expires]")) {
    if (node.dataset.expires && moment >= Number(node.dataset.expires)) expire(node);
  }
  axis(moment);
}

/** Move the line of the present and the bars that still grow; the server draws everything else. */
function axis(moment) {
  const ruler = document.querySelector("#trace .axis[data-start]");
  if (!ruler) return;
  const { start, lost, cap, width } = ruler.dataset;
  let seconds = (moment - start) / 1000 - lost;
  if (cap) seconds = Math.min(seconds, Number(cap));
  const x = Math.max(0, Math.min(100, (100 * seconds) / width));
  for (const line of ruler.querySelectorAll("line.now")) {
    line.setAttribute("x1", `${x.toFixed(2)}%`);
    line.setAttribute("x2", `${x.toFixed(2)}%`);
  }
  for (const bar of ruler.closest(".section").querySelectorAll("rect[data-grows]")) {
    bar.setAttribute("width", `${Math.max(0.9, x - parseFloat(bar.getAttribute("x"))).toFixed(2)}%`);
  }
}

tick();
setInterval(tick, 250);
document.addEventListener("agentops:changed", tick);
