// Forms: sent once, with a token, and an irreversible act only after its object was typed.

function token() {
  try {
    return JSON.parse(document.body.getAttribute("hx-headers"))["x-csrftoken"];
  } catch {
    return "";
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (event.submitter?.matches("[data-nothing]")) {
    event.preventDefault();
    return;
  }
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  // A part that came over the live connection carries no token of its own.
  if (!form.querySelector("input[name=csrfmiddlewaretoken]")) {
    const input = document.createElement("input");
    Object.assign(input, { type: "hidden", name: "csrfmiddlewaretoken", value: token() });
    form.append(input);
  }
  if (form.matches("[data-guard]")) {
    form.dataset.sent = "yes";
    const pressed = event.submitter;
    // After the browser has read the form: a disabled button would not be sent.
    setTimeout(() => {
      for (const button of form.querySelectorAll("button")) button.disabled = true;
      if (pressed?.dataset.busy) pressed.textContent = pressed.dataset.busy;
    });
  }
});

// Back from the next page: the form may be sent again.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const form of document.querySelectorAll("[data-sent]")) {
    delete form.dataset.sent;
    for (const button of form.querySelectorAll("button")) button.disabled = false;
  }
});

function checkWord(input) {
  const button = input.form?.querySelector("[data-approve]");
  if (button) button.disabled = input.value.trim() !== input.dataset.confirm;
}
const checkWords = () => document.querySelectorAll("[data-confirm]").forEach(checkWord);
document.addEventListener("input", (event) => {
  if (event.target.matches("[data-confirm]")) checkWord(event.target);
});
document.addEventListener("agentops:changed", checkWords);
checkWords();

document.addEventListener("click", (event) => {
  const dismiss = event.target.closest("[data-dismiss]");
  if (dismiss) dismiss.closest(".toast").remove();
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens)?.showModal();
});

// A message that only confirms goes away by itself.
for (const toast of document.querySelectorAll(".toast:not(.tone-bad)")) setTimeout(() => toast.remove(), 8000);
