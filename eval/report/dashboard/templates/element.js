// Elements made from data. Text is only ever set as text; marks of hidden characters are set apart.
const root = document.documentElement;
const SVG = "http://www.w3.org/2000/svg";
const MARK = /⟨U\+[0-9A-F]{4,6}⟩|[\u2400-\u241f\u2421⏎⇥]/g;
const data = JSON.parse(document.getElementById("data").textContent);

const byId = (id) => document.getElementById(id);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== ""));
  return node;
}

// el("td", {class: "n", click: f}, "text", node...): strings become text, functions listeners.
const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

// Text of the data, isolated in direction, its marks apart from what was really written.
function said(text) {
  const box = el("bdi", { class: "t" });
  let from = 0;
  for (const found of text.matchAll(MARK)) {
    box.append(text.slice(from, found.index), el("i", { class: "ctl" }, found[0]));
    from = found.index + found[0].length;
  }
  box.append(text.slice(from));
  return box;
}

// The same, where it may go on in the next line after _ and /.
function broken(text) {
  const box = said(text);
  for (const node of [...box.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE)) {
    node.replaceWith(...node.data.split(/(?<=[_/])/).flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part])));
  }
  return box;
}

// A wide thing that scrolls inside its own box, by keyboard too.
const scrolling = (label, ...children) =>
  el("div", { class: "box", role: "region", "aria-label": label, tabindex: 0 }, ...children);

const button = (text, click, attributes = {}) => el("button", { type: "button", class: "small", click, ...attributes }, text);

// A labelled select: options are [value, text] or [group, [[value, text]...]].
function select(label, options, chosen, change, id = null) {
  const option = ([value, text]) => el("option", { value, selected: value === chosen }, text);
  const box = el(
    "select",
    { id, change: () => change(box.value) },
    options.map(([name, inside]) =>
      Array.isArray(inside) ? el("optgroup", { label: name }, inside.map(option)) : option([name, inside]),
    ),
  );
  return el("label", { class: "pick" }, el("span", {}, label), box);
}

const toggle = (label, on, change, id = null) => {
  const box = el("input", { type: "checkbox", id, checked: on, change: () => change(box.checked) });
  return el("label", { class: "tick" }, box, label);
};

const announce = (text) => {
  byId("announce").textContent = text;
};
const COLOURS = 7;
const colour = (arm) => (arm === data.control ? "arm-control" : `arm-${shade(arm)}`);
const shade = (arm) => (arm > data.control ? arm - 1 : arm) % COLOURS;
// An arm's name with its colour; long ones are cut after two lines, the hint shows them whole.
const named = (arm, text = data.arms[arm].name) => el("span", { class: "named" }, dot(arm), broken(text));
const dot = (arm) => el("i", { class: `dot ${colour(arm)}` });
const download = (name, type, text) => {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
};
