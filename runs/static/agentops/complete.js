// Completion of the search box: the server says what may come next, arrow keys and Enter choose.

const input = document.querySelector("[data-complete]");
const list = document.createElement("ul");
let shown = [];
let chosen = -1;
let asked = 0;

function close() {
  list.hidden = true;
  chosen = -1;
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
}

function mark(at) {
  chosen = at;
  [...list.children].forEach((item, number) => item.setAttribute("aria-selected", number === at));
  const item = list.children[at];
  if (!item) return input.removeAttribute("aria-activedescendant");
  input.setAttribute("aria-activedescendant", item.id);
  return item.scrollIntoView({ block: "nearest" });
}

/** The last word before the caret makes way for the suggestion. */
function take(at) {
  const caret = input.selectionStart;
  const before = input.value.slice(0, caret);
  const begin = before.search(/[^\s"]*(?:"[^"]*)?$/);
  const minus = before[begin] === "-" ? "-" : "";
  const insert = minus + shown[at].insert + (shown[at].insert.endsWith(":") ? "" : " ");
  input.setRangeText(insert, begin, caret, "end");
  close();
  ask();
}

function show(suggestions) {
  shown = suggestions;
  list.replaceChildren(
    ...suggestions.map((suggestion, number) => {
      const item = document.createElement("li");
      item.id = `q-option-${number}`;
      item.setAttribute("role", "option");
      item.dataset.at = number;
      const label = document.createElement("b");
      label.textContent = suggestion.label;
      const about = document.createElement("span");
      about.textContent = suggestion.about;
      item.append(label, about);
      return item;
    }),
  );
  list.hidden = !suggestions.length;
  input.setAttribute("aria-expanded", String(!list.hidden));
  mark(-1);
}

async function ask() {
  const text = input.value.slice(0, input.selectionStart);
  const number = ++asked;
  if (!text.trim()) return close();
  try {
    const answer = await fetch(`${input.dataset.complete}?q=${encodeURIComponent(text)}`);
    if (!answer.ok) return close();
    const { suggestions } = await answer.json();
    if (number === asked && document.activeElement === input) show(suggestions);
  } catch {
    close();
  }
  return undefined;
}

if (input) {
  Object.assign(list, { id: "q-options", className: "completions", hidden: true });
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Suggestions");
  input.after(list);
  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-controls": list.id, "aria-expanded": "false" })) input.setAttribute(name, value);
  input.addEventListener("input", ask);
  input.addEventListener("blur", () => setTimeout(close, 150));
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const last = list.children.length - 1;
    if (event.key === "ArrowDown") mark(chosen >= last ? 0 : chosen + 1);
    else if (event.key === "ArrowUp") mark(chosen <= 0 ? last : chosen - 1);
    else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) take(chosen);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  list.addEventListener("mousedown", (event) => {
    event.preventDefault();
    const item = event.target.closest("li");
    if (item) take(Number(item.dataset.at));
  });
}
