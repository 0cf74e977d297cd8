"use strict";
// The report page, first part: the data, what is shown of it, and how elements are made.
// Everything is drawn from the data in this page. Names and questions are inserted as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const state = { setting: 0, slice: "all", hidden: new Set(), sort: null, down: true, all: false, sample: null, page: 0, listed: [] };

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick" || name === "onchange") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...(children || []).filter((child) => child !== null && child !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return node;
}
const el = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const shape = (tag, attributes, ...children) => put(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const known = (value) => value !== null && value !== undefined;

function num(value, signed) {
  if (!known(value)) return "–";
  const size = Math.abs(value), text = value.toFixed(size < 10 ? 3 : size < 100 ? 2 : 1);
  if (Number(text) === 0) return text.replace("-", "");
  return (signed && value > 0 ? "+" : "") + text.replace("-", "−");
}

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}

// A small link to what a column's name means.
const what = (key, label) => (data.words[key] ? el("a", { class: "what", href: `#${data.words[key]}`, "aria-label": `what ${label} means` }, "?") : null);

const settingName = (s) => [s.substrate, data.several ? s.target : null, data.several ? s.space : null].filter(Boolean).join(", ");
const color = (method) => data.styles[method].color, dash = (method) => data.styles[method].dash;
const swatch = (method) => shape("svg", { class: "swatch", viewBox: "0 0 26 10", "aria-hidden": "true" },
  shape("line", { class: "mark", x1: 0, x2: 26, y1: 5, y2: 5, stroke: color(method), "stroke-width": 3, "stroke-dasharray": dash(method) }));
const board = () => data.boards.find((b) => b.setting === state.setting && b.slice === state.slice);
