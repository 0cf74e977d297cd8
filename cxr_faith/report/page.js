"use strict";
// Everything is drawn from the data in this page. Names and questions are inserted as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const state = { setting: 0, slice: "all", hidden: new Set(), sort: null, down: true, page: 0 };
const PAGE = 50;

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

function num(value, signed) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value), text = value.toFixed(size < 10 ? 3 : size < 100 ? 2 : 1);
  if (Number(text) === 0) return text.replace("-", "");
  return (signed && value > 0 ? "+" : "") + text.replace("-", "−");
}
const settingName = (s) => [s.substrate, data.several ? s.target : null, data.several ? s.space : null].filter(Boolean).join(", ");
const color = (method) => data.styles[method].color, dash = (method) => data.styles[method].dash;
const swatch = (method) => shape("svg", { class: "swatch", viewBox: "0 0 26 10", "aria-hidden": "true" }, shape("line", { x1: 0, x2: 26, y1: 5, y2: 5, stroke: color(method), "stroke-width": 3, "stroke-dasharray": dash(method) }));
const board = () => data.boards.find((b) => b.setting === state.setting && b.slice === state.slice);

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}

// ---- leaderboard ----
function sortHeader(label, key, explain) {
  const active = state.sort === key;
  const button = el("button", { type: "button", title: explain, onclick: () => {
    state.down = active ? !state.down : true; state.sort = key; leaderboard();
    byId("board").querySelector(`button[data-key="${key}"]`).focus();
  }, "data-key": key }, label);
  return el("th", { scope: "col", "aria-sort": active ? (state.down ? "descending" : "ascending") : "none" }, button);
}

function compare(a, b) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
  if (b === null || b === undefined) return -1;
  const order = typeof a === "string" ? a.localeCompare(b) : a - b;
  return state.down ? -order : order;
}

function leaderboard() {
  const b = board(), table = byId("board");
  byId("board-note").textContent = b ? b.note : "There is no such board in this run.";
  if (!b) { table.replaceChildren(); draw([]); return; }
  if (state.sort === null) state.sort = b.headline;
  byId("board-verdict").textContent = b.verdict.join(" ");
  byId("board-verdict").hidden = b === data.boards[0]; // the page begins with that one
  const place = (r) => r.verdict && -data.verdicts.indexOf(r.verdict);
  const fixed = { method: (r) => r.method, verdict: place, n: (r) => r.n_used, coverage: (r) => r.coverage, flat: (r) => r.flat };
  const value = fixed[state.sort] || ((r) => r.values[state.sort]);
  const rows = b.rows.filter((r) => !state.hidden.has(r.method)).sort((x, y) => compare(value(x), value(y)));
  const head = el("tr", {}, sortHeader("method", "method"), sortHeader("verdict", "verdict", "by the rules below the table"), sortHeader("n", "n", "samples in the means"),
    sortHeader("cov", "coverage", "share of rows that have normalized scores"),
    sortHeader("flat", "flat", "share of maps whose cells are all equal"),
    ...b.columns.map((c) => sortHeader(`${c.label} ${c.arrow}`, c.key)));
  const body = rows.map((r) => el("tr", {}, el("td", {}, swatch(r.method), r.label), el("td", { class: "word" }, r.verdict || "–"), el("td", {}, r.n_used),
    el("td", {}, `${Math.round(100 * r.coverage)} %`), el("td", {}, r.flat ? `${Math.round(100 * r.flat)} %` : "–"),
    ...b.columns.map((c) => {
      const ci = r.ci[c.key];
      return el("td", {}, num(r.values[c.key], c.signed), ci ? el("small", {}, `${num(ci[0], c.signed)} to ${num(ci[1], c.signed)}`) : null);
    })));
  table.replaceChildren(el("caption", {}, b.title), el("thead", {}, head), el("tbody", {}, ...body));
  const tied = ties(b);
  byId("ties-box").hidden = !tied.length;
  byId("ties-title").textContent = `${tied.length} of ${b.rows.length} methods are not significantly better than some others (5 %, Holm over all pairs)`;
  byId("ties").replaceChildren(...tied.map((line) => el("li", {}, line)));
  statuses(b, rows);
  draw(rows);
}

function ties(b) {
  const below = {};
  for (const pair of b.differences) {
    if (pair.p_holm === null || pair.p_holm < 0.05) continue;
    const [upper, lower] = pair.mean > 0 ? [pair.a, pair.b] : [pair.b, pair.a]; // on the samples that both have
    (below[upper] = below[upper] || []).push(lower);
  }
  return Object.entries(below).map(([name, others]) => `${name} is not significantly better than ${others.join(", ")}.`);
}

function statuses(b, rows) {
  const names = data.statuses;
  byId("statuses").replaceChildren(el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "method"), ...names.map((n) => el("th", { scope: "col" }, n)))),
    el("tbody", {}, ...rows.map((r) => el("tr", {}, el("td", {}, r.method), ...names.map((n) => el("td", {}, r.status[n] ?? 0))))));
}

// ---- charts ----
const W = 420, H = 270, PAD = { l: 48, r: 16, t: 24, b: 40 };
function ticks(low, high, most) {
  const raw = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const places = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) places.push(Number(t.toPrecision(10)));
  return places;
}

function curveChart(title, series, side, guides, yLabel) {
  const all = series.flatMap((s) => [...s[side], ...(s[`${side}_low`] || []), ...(s[`${side}_high`] || [])]).concat(guides.map((g) => g[0]));
  let low = Math.min(...all), high = Math.max(...all);
  const room = 0.04 * (high - low || 1); low -= room; high += room;
  const x = (v) => PAD.l + v * (W - PAD.l - PAD.r), y = (v) => PAD.t + (high - v) / (high - low) * (H - PAD.t - PAD.b);
  const path = (xs, ys) => xs.map((v, i) => `${i ? "L" : "M"}${x(v).toFixed(1)} ${y(ys[i]).toFixed(1)}`).join("");
  const svg = shape("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}: ${series.map((s) => s.method).join(", ")}` });
  svg.append(shape("text", { x: W / 2, y: 14, "text-anchor": "middle", "font-weight": 600 }, title));
  for (const t of ticks(low, high, 5)) svg.append(shape("line", { x1: PAD.l, x2: W - PAD.r, y1: y(t), y2: y(t), stroke: "#e6eaee" }), shape("text", { x: PAD.l - 5, y: y(t) + 4, "text-anchor": "end" }, String(t).replace("-", "−")));
  for (const t of [0, 0.25, 0.5, 0.75, 1]) svg.append(shape("text", { x: x(t), y: H - PAD.b + 16, "text-anchor": "middle" }, `${100 * t}`));
  svg.append(shape("text", { x: (PAD.l + W - PAD.r) / 2, y: H - 6, "text-anchor": "middle" }, `cells ${side === "deletion" ? "removed" : "shown"}, most salient first (%)`));
  svg.append(shape("text", { x: 11, y: (PAD.t + H - PAD.b) / 2, "text-anchor": "middle", transform: `rotate(-90 11 ${(PAD.t + H - PAD.b) / 2})` }, yLabel));
  for (const [v, name] of guides) svg.append(shape("line", { x1: PAD.l, x2: W - PAD.r, y1: y(v), y2: y(v), stroke: "#8793a1", "stroke-dasharray": "3 3" }, shape("title", {}, name)));
  for (const s of series) {
    if (s[`${side}_low`]) svg.append(shape("path", { d: path(s.x, s[`${side}_high`]) + path([...s.x].reverse(), [...s[`${side}_low`]].reverse()).replace("M", "L") + "Z", fill: color(s.method), "fill-opacity": 0.13 }));
  }
  for (const s of series) svg.append(shape("path", { d: path(s.x, s[side]), fill: "none", stroke: color(s.method), "stroke-width": 1.9, "stroke-dasharray": dash(s.method) }, shape("title", {}, s.method)));
  return el("figure", {}, svg, el("figcaption", { class: "key" }, ...series.map((s) => el("span", {}, swatch(s.method), s.method))));
}

function forestChart(title, lines) {
  const row = 19, top = 26, left = 165, height = top + row * lines.length + 34;
  const shown = lines.filter((l) => l.value !== null && l.value !== undefined);
  if (!shown.length) return el("p", { class: "quiet" }, `${title}: no value.`);
  const all = shown.flatMap((l) => [l.value, ...(l.ci || [])]).concat([0]);
  let low = Math.min(...all), high = Math.max(...all);
  const room = 0.05 * (high - low || 1); low -= room; high += room;
  const x = (v) => left + (v - low) / (high - low) * (W - left - 12);
  const svg = shape("svg", { viewBox: `0 0 ${W} ${height}`, role: "img", "aria-label": `${title}: ${shown.map((l) => `${l.name} ${num(l.value, true)}`).join(", ")}` });
  svg.append(shape("text", { x: W / 2, y: 14, "text-anchor": "middle", "font-weight": 600 }, title));
  for (const t of ticks(low, high, 4)) svg.append(shape("line", { x1: x(t), x2: x(t), y1: top - 6, y2: height - 30, stroke: t === 0 ? "#55606e" : "#e6eaee" }), shape("text", { x: x(t), y: height - 16, "text-anchor": "middle" }, String(t).replace("-", "−")));
  svg.append(shape("text", { x: (left + W) / 2, y: height - 2, "text-anchor": "middle" }, "positive = better"));
  lines.forEach((l, i) => {
    const y = top + row * (i + 0.5);
    svg.append(shape("text", { x: left - 8, y: y + 4, "text-anchor": "end", "font-weight": l.heading ? 700 : 400 }, l.name.length > 24 ? `${l.name.slice(0, 23)}…` : l.name));
    if (l.value === null || l.value === undefined) return;
    const stroke = color(l.method), clear = l.ci && (l.ci[0] > 0 || l.ci[1] < 0);
    if (l.ci) svg.append(shape("line", { x1: x(l.ci[0]), x2: x(l.ci[1]), y1: y, y2: y, stroke, "stroke-width": 2 }));
    svg.append(shape("circle", { cx: x(l.value), cy: y, r: 4, fill: clear ? stroke : "#fff", stroke, "stroke-width": 1.6 }, shape("title", {}, `${l.name}: ${num(l.value, true)}`)));
  });
  return el("figure", {}, svg);
}

function draw(rows) {
  const series = rows.filter((r) => r.curves).map((r) => ({ method: r.method, ...r.curves }));
  const guides = [[1, "intact picture"], [0, "all substrate"]];
  byId("curves").replaceChildren(...(series.length
    ? [curveChart("Deletion (lower is better)", series, "deletion", guides, "share of the effect kept"), curveChart("Insertion (higher is better)", series, "insertion", guides, "share of the effect kept")]
    : [el("p", { class: "quiet" }, "No mean curves: no sample is ok for every method.")]));
  const key = byId("forest-metric").value, name = byId("forest-metric").selectedOptions[0].textContent;
  const line = (r, text) => ({ method: r.method, name: text || r.method, value: r.values[key], ci: r.ci[key] });
  const findings = data.boards.filter((b) => b.setting === state.setting && b.slice.startsWith("finding:"));
  // The leaderboard's order in every chart, so that they can be read across; a baseline has no gap to itself.
  const order = [...new Set([...rows.map((r) => r.method), ...data.methods])];
  const lines = (b) => b.filter((r) => r.values[key] !== null && r.values[key] !== undefined && !state.hidden.has(r.method))
    .sort((x, y) => order.indexOf(x.method) - order.indexOf(y.method)).map((r) => line(r));
  byId("forest").replaceChildren(forestChart(`${name}, by method`, lines(rows)),
    ...findings.map((b) => forestChart(`${name} · ${b.slice.slice(8)}`, lines(b.rows))));
}

function methodBoxes() {
  byId("methods").append(...data.methods.map((method) => el("label", {}, el("input", { type: "checkbox", checked: true, value: method, onchange: (event) => {
    if (event.target.checked) state.hidden.delete(method); else state.hidden.add(method);
    leaderboard(); openSample();
  } }), swatch(method), method)));
}

// ---- samples ----
const rowsOf = (sample) => sample.rows.map(([setting, method, status, own, map, curve, ...values]) => ({ setting, method: data.methods[method], status, own, map, curve,
  ...Object.fromEntries(data.values.map((name, i) => [name, values[i]])) }));

function sampleScore(sample, method) {
  const rows = rowsOf(sample).filter((r) => r.setting === state.setting && (method ? r.method === method : !data.controls.includes(r.method)));
  const known = rows.map((r) => r.srg).filter((v) => v !== null);
  return { status: rows.length ? (rows.find((r) => r.status !== "ok") || rows[0]).status : "–", srg: known.length ? known.reduce((a, b) => a + b, 0) / known.length : null };
}

function samples() {
  const finding = byId("sample-finding").value, status = byId("sample-status").value, method = byId("sample-method").value;
  const words = byId("sample-search").value.toLowerCase().split(/\s+/).filter(Boolean), order = byId("sample-order").value;
  const matches = data.samples.map((s, i) => ({ s, i, ...sampleScore(s, method) }))
    .filter(({ s, status: its }) => (!finding || s.finding === finding) && (!status || its === status)
      && words.every((w) => `${s.id} ${s.question} ${s.answer ?? ""}`.toLowerCase().includes(w)));
  if (order !== "id") matches.sort((a, b) => (a.srg === null) - (b.srg === null) || (order === "best" ? b.srg - a.srg : a.srg - b.srg));
  state.page = Math.min(state.page, Math.max(0, Math.ceil(matches.length / PAGE) - 1));
  const shown = matches.slice(PAGE * state.page, PAGE * (state.page + 1));
  byId("sample-rows").replaceChildren(...shown.map(({ s, status: its, srg }) => el("tr", {}, el("td", {}, el("a", { href: `#sample=${encodeURIComponent(s.id)}` }, s.id)),
    el("td", {}, s.question), el("td", {}, s.answer ?? "–"), el("td", {}, s.reference ?? "–"), el("td", {}, s.finding ?? "–"), el("td", {}, its), el("td", {}, num(srg, true)))));
  byId("sample-count").textContent = matches.length ? `${PAGE * state.page + 1}–${PAGE * state.page + shown.length} of ${matches.length}` : "none";
  byId("back").disabled = state.page === 0;
  byId("next").disabled = PAGE * (state.page + 1) >= matches.length;
}

function galleryOf() {
  const place = new Map(data.samples.map((s) => [s.id, s]));
  for (const [kind, ids] of Object.entries(data.gallery)) {
    const cards = ids.filter((id) => place.has(id)).map((id) => {
      const s = place.get(id), thumb = data.thumbs[id];
      return el("li", {}, el("a", { href: `#sample=${encodeURIComponent(id)}` }, thumb ? el("img", { src: thumb.uri, alt: "" }) : null, el("strong", {}, s.question), ` ${s.answer ?? "–"} · srg ${num(sampleScore(s).srg, true)}`, el("br"), id));
    });
    byId("gallery").append(el("h3", {}, data.gallery_titles[kind]), cards.length ? el("ul", { class: "gallery" }, ...cards) : el("p", { class: "quiet" }, "None in this run."));
  }
}

async function unpack(sample) {
  const bytes = Uint8Array.from(atob(sample.detail), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(stream).arrayBuffer());
  const [low, high] = sample.range, cells = sample.grid ? sample.grid[0] * sample.grid[1] : 0, maps = {}, curves = [];
  let at = 0;
  for (const row of rowsOf(sample)) {
    if (row.map) { maps[row.method] = raw.subarray(at, at + cells); at += cells; }
    if (row.curve) {
      const x = data.settings[row.setting].x, take = () => Array.from(raw.subarray(at, (at += x.length)), (v) => low + v / 255 * (high - low));
      curves.push({ setting: row.setting, method: row.method, x, deletion: take(), insertion: take() });
    }
  }
  return { maps, curves };
}

function mapFigure(sample, method, values, srg) {
  const [rows, columns] = sample.grid, thumb = data.thumbs[sample.id], canvas = el("canvas", { width: columns, height: rows, role: "img", "aria-label": `map of ${method}` });
  const context = canvas.getContext("2d"), pixels = context.createImageData(columns, rows);
  values.forEach((level, i) => pixels.data.set([...data.viridis[level], thumb ? 153 * level / 63 : 255], 4 * i));
  context.putImageData(pixels, 0, 0);
  const wide = Math.max(sample.pictures.length, 1), shares = sample.shares[data.methods.indexOf(method)];
  const marks = Array.from({ length: wide }, (_, i) => [el("span", { class: "side", style: `left:calc(${100 * i / wide}% + 3px)` }, "R"),
    el("span", { class: "side", style: `right:calc(${100 * (1 - (i + 1) / wide)}% + 3px)` }, "L")]).flat();
  const stage = el("div", { class: thumb ? "stage over" : "stage" }, thumb ? el("img", { src: thumb.uri, alt: "" }) : null, canvas, ...marks);
  if (thumb) {
    const [top, left, height, width] = thumb.region;
    canvas.style.cssText = `top:${100 * top}%;left:${100 * left}%;width:${100 * width}%;height:${100 * height}%`;
  } else stage.style.aspectRatio = `${columns} / ${rows}`;
  const lines = [`srg ${num(srg, true)}`, ...(shares ? [sample.pictures.map((name, i) => `${name} ${Math.round(100 * shares[i])}%`).join(" · ")] : [])];
  return el("figure", {}, stage, el("figcaption", {}, method, ...lines.flatMap((line) => [el("br"), line])));
}

function sampleInAddress() {
  if (!location.hash.startsWith("#sample=")) return null;
  const name = location.hash.slice(8);
  try { return decodeURIComponent(name); } catch { return name; } // typed by hand
}

async function openSample() {
  const section = byId("sample"), wanted = sampleInAddress();
  const sample = data.samples.find((s) => s.id === wanted);
  section.hidden = !wanted;
  if (!wanted) { openSample.shown = null; return; }
  if (!sample) { section.replaceChildren(el("h2", { tabindex: -1 }, "No such sample on this page"), el("p", {}, wanted)); return; }
  const rows = rowsOf(sample).filter((r) => r.setting === state.setting && !state.hidden.has(r.method));
  const facts = [["question", sample.question], ["answer", `${sample.answer ?? "–"} (generated: ${sample.generated ?? "–"})`], ["reference", sample.reference ?? "unknown"], ["p(yes)", num(sample.p_yes)],
    ["finding", sample.finding ?? "–"], ["effect", `${num(sample.effect, true)} (${settingName(data.settings[state.setting])})`], ...(sample.reason ? [["reason", sample.reason]] : [])];
  const table = el("table", {}, el("caption", {}, "Scores of this sample"), el("thead", {}, el("tr", {}, ...["method", "status", ...data.values].map((n) => el("th", { scope: "col" }, n)))),
    el("tbody", {}, ...rows.map((r) => el("tr", {}, el("td", {}, swatch(r.method), r.method + (r.own ? "*" : "")), el("td", {}, r.status), ...data.values.map((n) => el("td", {}, num(r[n], n.startsWith("gap"))))))));
  const heading = el("h2", { tabindex: -1 }, `Sample ${sample.id}`);
  const maps = el("div", { class: "maps" }), curves = el("div", { class: "charts" });
  section.replaceChildren(heading, el("a", { class: "plain", href: "#samples" }, "Close"), el("dl", { class: "facts" }, ...facts.flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)])),
    el("h3", {}, "Maps"), el("p", { class: "quiet" }, "Each on its own scale, 2nd to 98th percentile: compare places, not shades. R and L are the patient's sides."), maps, el("h3", {}, "Curves"), curves, el("div", { class: "scroll" }, table));
  if (openSample.shown !== wanted) { section.scrollIntoView(); heading.focus({ preventScroll: true }); openSample.shown = wanted; }
  if (!sample.detail) { maps.append(el("p", { class: "quiet" }, "The page has no room for this sample's maps and curves; they are in the records.")); return; }
  const detail = await unpack(sample);
  if (!maps.isConnected) return;
  const score = Object.fromEntries(rows.map((r) => [r.method, r.srg])), thumb = data.thumbs[sample.id];
  const several = sample.pictures.length > 1, named = several ? `the pictures alone: ${sample.pictures.join(", ")}` : "the picture alone";
  if (several) maps.style.gridTemplateColumns = `repeat(auto-fill, minmax(min(${9.5 * sample.pictures.length}rem, 100%), 1fr))`;
  if (thumb) maps.append(el("figure", {}, el("div", { class: "stage" }, el("img", { src: thumb.uri, alt: several ? "the pictures" : "the picture" })), el("figcaption", {}, named)));
  maps.append(...Object.entries(detail.maps).filter(([m]) => !state.hidden.has(m)).map(([m, values]) => mapFigure(sample, m, values, score[m] ?? null)));
  const series = detail.curves.filter((c) => c.setting === state.setting && !state.hidden.has(c.method));
  if (series.length) curves.append(...["deletion", "insertion"].map((side) => curveChart(side, series, side, [[series[0].deletion[0], "intact picture"], [series[0].insertion[0], "all substrate"]], "score (logits)")));
}

function start() {
  if (!data.boards.length) { byId("interactive").hidden = true; byId("empty").hidden = false; return; }
  options(byId("setting"), data.settings.map((s, i) => [String(i), settingName(s)]), "0");
  options(byId("slice"), [...new Map(data.boards.map((b) => [b.slice, b.slice_title]))], "all");
  options(byId("forest-metric"), data.forest, data.forest[0][0]);
  byId("setting").onchange = (e) => { state.setting = Number(e.target.value); state.sort = null; state.down = true; leaderboard(); samples(); openSample(); };
  byId("slice").onchange = (e) => { state.slice = e.target.value; state.sort = null; state.down = true; leaderboard(); };
  byId("forest-metric").onchange = leaderboard;
  methodBoxes();
  options(byId("sample-finding"), [["", "all"], ...[...new Set(data.samples.map((s) => s.finding).filter(Boolean))].sort().map((f) => [f, f])], "");
  options(byId("sample-status"), [["", "all"], ...data.statuses.map((s) => [s, s])], "");
  options(byId("sample-method"), [["", "mean of the methods"], ...data.methods.map((m) => [m, m])], "");
  for (const id of ["sample-finding", "sample-status", "sample-method", "sample-order"]) byId(id).onchange = () => { state.page = 0; samples(); };
  byId("sample-search").oninput = () => { state.page = 0; samples(); };
  byId("back").onclick = () => { state.page -= 1; samples(); };
  byId("next").onclick = () => { state.page += 1; samples(); };
  leaderboard(); samples(); galleryOf(); openSample();
  window.addEventListener("hashchange", openSample);
}
start();
document.documentElement.dataset.ready = "yes";
