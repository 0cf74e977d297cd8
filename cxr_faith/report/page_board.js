// ---- leaderboard: a short table, and all columns on request ----

// The columns that are shown: `best` says what the first click puts first, `cell` gives a cell's content.
function shownColumns(b) {
  const place = (r) => (r.verdict ? data.verdicts.indexOf(r.verdict) : null);
  const method = { key: "method", label: "method", best: "low", value: (r) => r.method, cell: (r) => [swatch(r.method), ...breakable(r.label)] };
  const verdict = { key: "verdict", label: "verdict", help: "by the rules below the table", best: "low", value: place, cell: (r) => [verdictWord(r)] };
  const n = { key: "n", label: "n", help: "samples in the means", best: "high", value: (r) => r.n_used, cell: (r) => [r.n_used] };
  const coverage = { key: "coverage", label: "coverage", help: "share of rows that have normalized scores", best: "high", value: (r) => r.coverage, cell: (r) => [`${Math.round(100 * r.coverage)} %`] };
  const flat = { key: "flat", label: "flat", help: "share of maps whose cells are all equal", best: "low", value: (r) => r.flat, cell: (r) => [r.flat ? `${Math.round(100 * r.flat)} %` : "–"] };
  const bars = barScale(b);
  const numbers = b.columns.filter((c) => b.rows.some((r) => known(r.values[c.key]))).map((c) => ({
    key: c.key, label: `${c.label} ${c.arrow}`, best: c.arrow === "↓" ? "low" : "high", value: (r) => r.values[c.key],
    ranked: c.key === b.headline,
    cell: (r) => (c.key === b.headline ? [rankedCell(r, c, bars)] : [num(r.values[c.key], c.signed), interval(r.ci[c.key], c.signed)]),
  }));
  if (state.all) return [method, verdict, n, coverage, flat, ...numbers];
  const main = (b.headline === "srg" ? ["srg", "gap_srg_center"] : [b.headline]).map((key) => numbers.find((c) => c.key === key)).filter(Boolean);
  return [method, verdict, ...main, coverage];
}

const verdictWord = (r) => (r.verdict === data.verdicts[0] ? el("strong", {}, r.verdict) : data.controls.includes(r.method) ? el("span", { class: "quiet" }, "control") : r.verdict || "–");

// How a row's verdict looks: to be believed, clearly not, or neither.
const judged = (r) => (r.verdict === data.verdicts[0] ? "believe" : data.against.includes(r.verdict) ? "against" : "");

// A name may break after "_", "/" and ".".
const breakable = (name) => name.split(/(?<=[_/.])/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));

const interval = (ends, signed) => (ends ? el("small", {}, `${num(ends[0], signed)} to ${num(ends[1], signed)}`) : null);

// One scale for the bars of a board, in percent of their width: all values and intervals of its headline, and 0.
function barScale(b) {
  const all = b.rows.flatMap((r) => [r.values[b.headline], ...(r.ci[b.headline] || [])]).filter(known).concat([0]);
  const low = Math.min(...all), high = Math.max(...all);
  return (v) => `${(3 + (v - low) / (high - low || 1) * 94).toFixed(2)}%`;
}

// The score that ranks the methods, with its interval as a bar.
function rankedCell(r, c, x) {
  const number = el("span", { class: "number" }, num(r.values[c.key], c.signed), interval(r.ci[c.key], c.signed));
  return el("div", { class: "value" }, number, bar(r, c.key, x));
}

function bar(r, key, x) {
  const value = r.values[key], ends = r.ci[key];
  if (!known(value)) return null;
  const svg = shape("svg", { class: "bar", "aria-hidden": "true" }, shape("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: "100%" }));
  if (ends) svg.append(shape("line", { class: "mark", x1: x(ends[0]), x2: x(ends[1]), y1: "50%", y2: "50%", stroke: color(r.method), "stroke-width": 3 }));
  svg.append(shape("svg", { x: x(value), y: "50%", width: 1, height: 1, overflow: "visible" }, point(0, 0, ends, color(r.method), 3.4)));
  return svg;
}

// Filled: the interval excludes 0; hollow: it includes 0; a cross: there is no interval.
function point(x, y, ends, stroke, size) {
  if (!ends) return shape("path", { class: "mark", d: `M${x - size} ${y - size}L${x + size} ${y + size}M${x - size} ${y + size}L${x + size} ${y - size}`, stroke, "stroke-width": 1.8, fill: "none" });
  const clear = ends[0] > 0 || ends[1] < 0;
  return shape("circle", { class: clear ? "mark" : "mark hollow", cx: x, cy: y, r: size, fill: clear ? stroke : null, stroke, "stroke-width": 1.6 });
}

function sortHeader(column) {
  const active = state.sort === column.key;
  const button = el("button", { type: "button", title: column.help, onclick: () => {
    state.down = active ? !state.down : column.best === "high";
    state.sort = column.key; leaderboard(); writeAddress();
    byId("board").querySelector(`button[data-key="${column.key}"]`).focus();
  }, "data-key": column.key }, column.label);
  return el("th", { scope: "col", class: column.key === "verdict" ? "word" : column.ranked ? "ranked" : null, "aria-sort": active ? (state.down ? "descending" : "ascending") : "none" }, button, what(column.key, column.label));
}

// Missing values stay at the end, whichever way it sorts.
function compare(a, b) {
  if (!known(a) || !known(b)) return known(b) - known(a);
  const order = typeof a === "string" ? a.localeCompare(b) : a - b;
  return state.down ? -order : order;
}

// The rows that are shown, in the order that is chosen.
function sortedRows(b, columns) {
  const chosen = columns.find((c) => c.key === state.sort) || columns.find((c) => c.key === b.headline) || columns[0];
  if (state.sort !== chosen.key) { state.sort = chosen.key; state.down = chosen.best === "high"; }
  return b.rows.filter((r) => !state.hidden.has(r.method)).sort((x, y) => compare(chosen.value(x), chosen.value(y)));
}

function leaderboard() {
  const b = board(), table = byId("board");
  byId("board-note").textContent = b ? b.note : "There is no such board in this run.";
  if (!b) { table.replaceChildren(); draw([]); return; }
  byId("board-verdict").textContent = b.verdict.join(" ");
  const isFirst = b === data.boards[0]; // the page begins with that one
  byId("board-verdict").hidden = isFirst;
  if (byId("verdict-scope")) byId("verdict-scope").textContent = isFirst ? "" : "All samples: ";
  const columns = shownColumns(b), rows = sortedRows(b, columns);
  const head = el("tr", {}, ...columns.map(sortHeader));
  const body = rows.map((r) => el("tr", { class: judged(r) === "believe" ? "believe" : null }, ...columns.map((c) => el("td", { class: c.key === "verdict" ? `word ${judged(r)}` : c.ranked ? "ranked" : null }, ...c.cell(r)))));
  table.replaceChildren(el("caption", {}, b.title), el("thead", {}, head), el("tbody", {}, ...body));
  table.className = state.all ? "" : "short";
  byId("more").textContent = state.all ? "Fewer columns" : "All columns";
  byId("more").setAttribute("aria-expanded", String(state.all));
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

// ---- the table as CSV: all columns with the ends of their intervals, numbers in full ----
function csv(b) {
  // A spreadsheet takes text that begins like this for a formula.
  const text = (value) => `"${String(value).replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  const cell = (value) => (!known(value) ? "" : typeof value === "number" ? String(value) : text(value));
  const head = ["slice", "substrate", "method", "verdict", "n", "coverage", "flat", ...b.columns.flatMap((c) => [c.key, `${c.key}_low`, `${c.key}_high`])];
  const lines = sortedRows(b, shownColumns(b)).map((r) => [b.slice, settingName(data.settings[b.setting]), r.method, r.verdict, r.n_used, r.coverage, r.flat,
    ...b.columns.flatMap((c) => [r.values[c.key], ...(r.ci[c.key] || [null, null])])]);
  return [head, ...lines].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

function saveCsv() {
  const b = board();
  if (!b) return;
  const address = URL.createObjectURL(new Blob([csv(b)], { type: "text/csv" }));
  const name = `leaderboard-${b.slice}-${settingName(data.settings[b.setting])}`.replace(/[^\w.-]+/g, "_");
  el("a", { href: address, download: `${name}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function methodBoxes() {
  byId("methods").append(...data.methods.map((method) => el("label", {}, el("input", { type: "checkbox", checked: !state.hidden.has(method), value: method, onchange: (event) => {
    if (event.target.checked) state.hidden.delete(method); else state.hidden.add(method);
    leaderboard(); openSample(); writeAddress();
  } }), swatch(method), method)));
}
