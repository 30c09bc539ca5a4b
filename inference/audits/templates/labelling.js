"use strict";
const audit = JSON.parse(document.getElementById("audit").textContent);
const KEYS = "123456789abcdefghijklmnpqrtuvwxyz"; // without o and s, which have a meaning of their own
const single = audit.labels.length === 1;
const element = (id) => document.getElementById(id);

let answers = {}; // labels of each row that is done, by its name
let place = 0;
let stored = true; // whether the browser keeps the answers

function shelf() {
  return `${audit.name}/${element("coder").value.trim()}`; // each coder has answers of their own
}

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(shelf()) || "{}");
    answers = kept.answers || {};
    place = Math.min(kept.place || 0, audit.documents.length - 1);
    localStorage.setItem(audit.name, element("coder").value);
  } catch {
    stored = false;
  }
  show();
}

function begin() {
  try {
    element("coder").value = localStorage.getItem(audit.name) || "";
  } catch {
    stored = false;
  }
  load();
}

function keep() {
  try {
    localStorage.setItem(shelf(), JSON.stringify({ answers, place }));
  } catch {
    stored = false;
  }
}

function show() {
  const paper = audit.documents[place];
  const said = answers[paper.row];
  const done = Object.keys(answers).length;
  element("place").textContent = `document ${place + 1} of ${audit.documents.length}`;
  element("row").textContent = paper.row;
  element("text").textContent = paper.text;
  element("state").textContent =
    `${done} of ${audit.documents.length} labelled` +
    (element("coder").value.trim() ? ` by ${element("coder").value.trim()}` : "") +
    (stored ? "" : " · this browser keeps nothing: save the sheet before you leave");
  element("bar").style.width = `${(100 * done) / audit.documents.length}%`;
  element("choices").replaceChildren(
    ...audit.labels.map((label, number) => button(KEYS[number] || "", label, said && said.includes(label), number)),
    button("0", single ? "no" : audit.none, said && said.length === 0, -1),
  );
}

function button(key, label, chosen, number) {
  const made = document.createElement("button");
  made.textContent = key ? `${key}  ${label}` : label;
  made.className = chosen ? "true" : "";
  made.setAttribute("aria-pressed", String(Boolean(chosen)));
  made.addEventListener("click", () => choose(number));
  return made;
}

function choose(number) {
  const row = audit.documents[place].row;
  if (number < 0) {
    answers[row] = [];
  } else if (audit.exclusive || single) {
    answers[row] = [audit.labels[number]];
  } else {
    const label = audit.labels[number];
    const said = answers[row] || [];
    answers[row] = said.includes(label) ? said.filter((one) => one !== label) : [...said, label];
    if (!answers[row].length) delete answers[row]; // it is open again; 0 says that none applies
    keep();
    show();
    return;
  }
  move(1);
}

function move(step) {
  place = Math.min(Math.max(place + step, 0), audit.documents.length - 1);
  keep();
  show();
}

function nextOpen() {
  const count = audit.documents.length;
  for (let step = 1; step <= count; step += 1) {
    if (!answers[audit.documents[(place + step) % count].row]) {
      place = (place + step) % count;
      break;
    }
  }
  move(0);
}

function cell(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function sheet() {
  const head = ["row", "text", ...audit.labels.map((label) => `${label}?`)].map(cell).join(",");
  const lines = audit.documents.map((paper) => {
    const said = answers[paper.row];
    const cells = audit.labels.map((label) => (said ? Number(said.includes(label)) : ""));
    return [cell(paper.row), cell(paper.text), ...cells].join(",");
  });
  return "\ufeff" + [head, ...lines].join("\r\n") + "\r\n";
}

function save() {
  const coder = element("coder").value.trim().replace(/[^\w-]+/g, "_");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([sheet()], { type: "text/csv" }));
  link.download = `${audit.name}${coder ? `_${coder}` : ""}.csv`;
  link.click();
}

document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    ArrowRight: () => move(1), ArrowLeft: () => move(-1), Enter: () => move(1), o: nextOpen, s: save, 0: () => choose(-1),
  };
  const number = KEYS.indexOf(event.key);
  const action = actions[event.key] || (number >= 0 && number < audit.labels.length ? () => choose(number) : null);
  if (!action || (event.repeat && !event.key.startsWith("Arrow"))) return; // a held key must not label what follows
  event.preventDefault();
  action();
});
element("back").addEventListener("click", () => move(-1));
element("next").addEventListener("click", () => move(1));
element("open").addEventListener("click", nextOpen);
element("save").addEventListener("click", save);
element("coder").addEventListener("change", load);
begin();
