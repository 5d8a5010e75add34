// Copy what a step holds, all of it: it is fetched when it is asked for.

async function copy(button) {
  const word = button.textContent;
  const say = (text) => {
    button.textContent = text;
    setTimeout(() => {
      button.textContent = word;
    }, 1500);
  };
  try {
    const text = fetch(button.dataset.copy).then((response) => {
      if (!response.ok) throw new Error(response.status);
      return response.text();
    });
    if (navigator.clipboard) await navigator.clipboard.writeText(await text);
    else throw new Error("no clipboard without https");
    say("Copied");
  } catch {
    say("Open Raw to copy");
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});
