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
  for (const t of ticks(low, high, 5)) svg.append(shape("line", { x1: PAD.l, x2: W - PAD.r, y1: y(t), y2: y(t), class: "grid" }), shape("text", { x: PAD.l - 5, y: y(t) + 4, "text-anchor": "end" }, String(t).replace("-", "−")));
  for (const t of [0, 0.25, 0.5, 0.75, 1]) svg.append(shape("text", { x: x(t), y: H - PAD.b + 16, "text-anchor": "middle" }, `${100 * t}`));
  svg.append(shape("text", { x: (PAD.l + W - PAD.r) / 2, y: H - 6, "text-anchor": "middle" }, `cells ${side === "deletion" ? "removed" : "shown"}, most salient first (%)`));
  svg.append(shape("text", { x: 11, y: (PAD.t + H - PAD.b) / 2, "text-anchor": "middle", transform: `rotate(-90 11 ${(PAD.t + H - PAD.b) / 2})` }, yLabel));
  for (const [v, name] of guides) svg.append(shape("line", { x1: PAD.l, x2: W - PAD.r, y1: y(v), y2: y(v), class: "guide", "stroke-dasharray": "3 3" }, shape("title", {}, name)));
  for (const s of series) {
    if (s[`${side}_low`]) svg.append(shape("path", { d: path(s.x, s[`${side}_high`]) + path([...s.x].reverse(), [...s[`${side}_low`]].reverse()).replace("M", "L") + "Z", class: "mark", fill: color(s.method), "fill-opacity": 0.13 }));
  }
  for (const s of series) svg.append(shape("path", { d: path(s.x, s[side]), class: "mark", fill: "none", stroke: color(s.method), "stroke-width": 1.9, "stroke-dasharray": dash(s.method) }, shape("title", {}, s.method)));
  return el("figure", {}, svg, el("figcaption", { class: "key" }, ...series.map((s) => el("span", {}, swatch(s.method), s.method))));
}

// `all`: the values and ends of intervals that the x-scale spans, the same in every chart beside it.
function forestChart(title, lines, all) {
  const row = 19, top = 26, left = 165, height = top + row * lines.length + 34;
  const shown = lines.filter((l) => known(l.value));
  if (!shown.length) return el("p", { class: "quiet" }, `${title}: no value.`);
  let low = Math.min(...all), high = Math.max(...all);
  const room = 0.05 * (high - low || 1); low -= room; high += room;
  const x = (v) => left + (v - low) / (high - low) * (W - left - 12);
  const svg = shape("svg", { viewBox: `0 0 ${W} ${height}`, role: "img", "aria-label": `${title}: ${shown.map((l) => `${l.name} ${num(l.value, true)}`).join(", ")}` });
  svg.append(shape("text", { x: W / 2, y: 14, "text-anchor": "middle", "font-weight": 600 }, title));
  for (const t of ticks(low, high, 6)) svg.append(shape("line", { x1: x(t), x2: x(t), y1: top - 6, y2: height - 30, class: t === 0 ? "zero" : "grid" }), shape("text", { x: x(t), y: height - 16, "text-anchor": "middle" }, String(t).replace("-", "−")));
  svg.append(shape("text", { x: (left + W) / 2, y: height - 2, "text-anchor": "middle" }, "positive = better"));
  lines.forEach((l, i) => {
    const y = top + row * (i + 0.5);
    svg.append(shape("text", { x: left - 8, y: y + 4, "text-anchor": "end", "font-weight": l.heading ? 700 : 400 }, l.name.length > 24 ? `${l.name.slice(0, 23)}…` : l.name));
    if (!known(l.value)) return;
    const stroke = color(l.method);
    if (l.ci) svg.append(shape("line", { class: "mark", x1: x(l.ci[0]), x2: x(l.ci[1]), y1: y, y2: y, stroke, "stroke-width": 2 }));
    svg.append(put(point(x(l.value), y, l.ci, stroke, 4), {}, [shape("title", {}, `${l.name}: ${num(l.value, true)}`)]));
  });
  return el("figure", {}, svg);
}

// A slice without effect has no normalized scores: its gaps are shown in the unit of the scores, as its board is ranked.
function suitForest() {
  const b = board();
  byId("forest-metric").value = b && b.headline !== "srg" ? "srg_logit" : data.forest[0][0];
}

function draw(rows) {
  const series = rows.filter((r) => r.curves).map((r) => ({ method: r.method, ...r.curves }));
  const guides = [[1, "intact picture"], [0, "all substrate"]];
  byId("curves").replaceChildren(...(series.length
    ? [curveChart("Deletion (lower is better)", series, "deletion", guides, "share of the effect kept"), curveChart("Insertion (higher is better)", series, "insertion", guides, "share of the effect kept")]
    : [el("p", { class: "quiet" }, "No mean curves: no sample is ok for every method.")]));
  const key = byId("forest-metric").value, name = byId("forest-metric").selectedOptions[0].textContent;
  const keyOf = (b) => (key === "srg_logit" && b.headline !== "srg" ? b.headline : key);
  const line = (r, k) => ({ method: r.method, name: r.method, value: r.values[k], ci: r.ci[k] });
  const findings = data.boards.filter((b) => b.setting === state.setting && b.slice.startsWith("finding:"));
  // The leaderboard's order in every chart, so that they can be read across; a baseline has no gap to itself.
  const order = [...new Set([...rows.map((r) => r.method), ...data.methods])];
  const lines = (list, k) => list.filter((r) => known(r.values[k]) && !state.hidden.has(r.method))
    .sort((x, y) => order.indexOf(x.method) - order.indexOf(y.method)).map((r) => line(r, k));
  const forests = [[`${name}, by method`, rows.length ? lines(rows, keyOf(board())) : []], ...findings.map((b) => [`${name} · ${b.slice.slice(8)}`, lines(b.rows, keyOf(b))])];
  const all = forests.flatMap(([, list]) => list.flatMap((l) => [l.value, ...(l.ci || [])])).concat([0]);
  byId("forest").replaceChildren(...forests.map(([title, list]) => forestChart(title, list, all)));
}
