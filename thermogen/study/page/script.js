"use strict";
// Without this script the page is whole: tables are plain, and terms lead to their definitions.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

const made = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

// --- figures to keep: the colours of the light theme in place of variables

function saved(svg) {
  const copy = svg.cloneNode(true);
  const [, , width, height] = copy.getAttribute("viewBox").split(" ");
  copy.removeAttribute("style");
  copy.setAttribute("width", `${width}pt`);
  copy.setAttribute("height", `${height}pt`);
  const text = new XMLSerializer().serializeToString(copy);
  return text.replace(/var\(--c-[0-9a-f]+, (#[0-9a-f]+)\)/g, "$1");
}

for (const button of all(".download")) {
  button.hidden = false;
  const name = button.dataset.name;
  button.setAttribute("aria-label", `Save the figure ${name} as SVG`);
  button.addEventListener("click", () => {
    const svg = button.closest("figure").querySelector("svg");
    const url = URL.createObjectURL(new Blob([saved(svg)], { type: "image/svg+xml" }));
    made("a", { href: url, download: `${name}.svg` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
}

// --- definitions beside their terms, by pointer, keyboard and touch

const tip = made("div", { className: "tip", hidden: true });
tip.setAttribute("aria-hidden", "true"); // the term refers to the definition itself
document.body.append(tip);
let leaving = 0;

function showTip(term) {
  clearTimeout(leaving);
  tip.textContent = document.getElementById(term.getAttribute("aria-describedby")).textContent;
  tip.hidden = false;
  const at = term.getBoundingClientRect();
  const room = document.documentElement.clientWidth - tip.offsetWidth - 16;
  tip.style.left = `${scrollX + Math.max(16, Math.min(at.left, room))}px`;
  const below = at.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.top = `${scrollY + (below ? at.bottom + 6 : at.top - tip.offsetHeight - 6)}px`;
}

const hideTip = () => { tip.hidden = true; };
const hideSoon = () => { leaving = setTimeout(hideTip, 200); };

for (const term of all(".term")) {
  term.addEventListener("mouseenter", () => showTip(term));
  term.addEventListener("focus", () => showTip(term));
  term.addEventListener("mouseleave", hideSoon);
  term.addEventListener("blur", hideTip);
  term.addEventListener("pointerup", (event) => {
    if (event.pointerType !== "touch") return;
    term.addEventListener("click", (click) => click.preventDefault(), { once: true });
    showTip(term);
  });
}
tip.addEventListener("mouseenter", () => clearTimeout(leaving));
tip.addEventListener("mouseleave", hideSoon);

// --- the library: sort, filter, and what belongs to a state

const table = document.getElementById("states");
const panel = document.getElementById("panel");
const hint = panel && panel.firstElementChild;
const FEW = 25;

function library() {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const [sort, descending, filter, count, more] =
    ["sort", "descending", "filter", "count", "more"].map((id) => document.getElementById(id));
  const value = (row) => Number(row.querySelector(`[data-sort="${sort.value}"]`).dataset.value);
  let limit = FEW;

  function arrange() {
    const sign = descending.checked ? -1 : 1;
    const order = [...rows].sort((a, b) => sign * (value(a) - value(b)));
    const chosen = order.filter((row) => !filter.value || row.dataset.bound === filter.value);
    body.append(...order);
    for (const row of rows) row.hidden = true;
    for (const row of chosen.slice(0, limit)) row.hidden = false;
    const seen = Math.min(limit, chosen.length);
    count.textContent = seen < chosen.length ? `${seen} of ${chosen.length} states` : `${seen} state${seen === 1 ? "" : "s"}`;
    more.hidden = seen === chosen.length;
    more.textContent = `Show all ${chosen.length} states`;
    for (const head of all("thead th", table)) head.removeAttribute("aria-sort");
    const column = rows[0].querySelector(`[data-sort="${sort.value}"]`).cellIndex;
    table.tHead.rows[0].cells[column].setAttribute("aria-sort", descending.checked ? "descending" : "ascending");
  }

  for (const row of rows) {
    const head = row.cells[0];
    const button = made("button", { type: "button", textContent: head.textContent });
    button.setAttribute("aria-label", `State ${head.textContent}`);
    button.setAttribute("aria-describedby", "panel");
    head.replaceChildren(button);
    row.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") showState(row); });
    button.addEventListener("focus", () => showState(row));
    button.addEventListener("click", () => showState(row));
  }
  for (const input of [sort, descending, filter]) input.addEventListener("change", arrange);
  more.addEventListener("click", () => {
    const next = [...body.rows].find((row) => row.hidden);
    limit = Infinity;
    arrange();
    next.querySelector("button").focus();
  });
  sort.form.addEventListener("submit", (event) => event.preventDefault());
  for (const part of [sort.form, panel, ...all(".scripted")]) part.hidden = false;
  arrange();
}

function showState(row) {
  hideState();
  const number = row.cells[0].textContent;
  const bound = row.dataset.bound === "none" ? "" : `, bound state ${row.dataset.bound}`;
  const close = made("button", { type: "button", className: "close", textContent: "×" });
  close.setAttribute("aria-label", "Close");
  close.addEventListener("click", hideState);
  const state = row.querySelector("img").cloneNode();
  const scale = Math.min(2, 220 / state.width);
  state.width *= scale;
  state.height *= scale;
  panel.replaceChildren(close, made("h3", { textContent: `State ${number}${bound}` }), state);
  const samples = row.querySelector('[data-sort="samples"]').textContent;
  if (row.dataset.picture) {
    const some = made("img", { src: row.dataset.picture, alt: `Some of the samples that fall to state ${number}` });
    some.addEventListener("load", () => { some.width = Math.min(some.naturalWidth * zoom(some), 236); });
    panel.append(made("p", { textContent: `${samples} sample${samples === "1" ? " falls" : "s fall"} to it:` }), some);
    if (row.dataset.classes) panel.append(made("p", { className: "note", textContent: row.dataset.classes }));
  } else {
    panel.append(made("p", { textContent: "No sample falls to it." }));
  }
  const tree = document.querySelector("#figure-tree svg");
  if (tree && row.dataset.branch) {
    const copy = tree.cloneNode(true);
    for (const part of all("[id]", copy)) part.removeAttribute("id");
    copy.removeAttribute("role");
    copy.setAttribute("aria-hidden", "true");
    panel.append(made("p", { textContent: "Its branch of the tree:" }), copy);
    for (const drawing of [tree, copy]) {
      const lines = all(".branches path", drawing);
      for (const index of row.dataset.branch.split(" ")) lines[index].classList.add("way");
    }
  }
  row.classList.add("chosen");
  panel.classList.add("filled");
}

const zoom = (image) => Math.max(1, Math.floor(236 / image.naturalWidth));

function hideState() {
  for (const row of all(".chosen")) row.classList.remove("chosen");
  for (const line of all(".way")) line.classList.remove("way");
  panel.classList.remove("filled");
  panel.replaceChildren(hint);
}

if (table) library();
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  hideTip();
  if (panel) hideState();
});
