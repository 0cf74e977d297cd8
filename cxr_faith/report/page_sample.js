// ---- one sample: what was asked, a map for each method, curves and scores ----

// The map over the picture; gray where the status says that there is nothing to explain. A cell is as opaque as it is
// strong, and the strongest one as `most` of 255.
function mapStage(sample, method, values, ok, most = 153) {
  const [rows, columns] = sample.grid, thumb = data.thumbs[sample.id];
  const canvas = el("canvas", { width: columns, height: rows, role: "img", "aria-label": `map of ${method}${ok ? "" : ", gray: nothing to explain"}` });
  const context = canvas.getContext("2d"), pixels = context.createImageData(columns, rows), last = data.viridis.length - 1;
  const gray = (level) => Array(3).fill(60 + 150 * level / last);
  values.forEach((level, i) => pixels.data.set([...(ok ? data.viridis[level] : gray(level)), thumb ? most * level / last : 255], 4 * i));
  context.putImageData(pixels, 0, 0);
  const stage = el("div", { class: thumb ? "stage over" : "stage" }, thumb ? el("img", { src: thumb.uri, alt: "" }) : null, canvas);
  if (thumb) {
    const [top, left, height, width] = thumb.region;
    canvas.style.cssText = `top:${100 * top}%;left:${100 * left}%;width:${100 * width}%;height:${100 * height}%`;
  } else stage.style.aspectRatio = `${columns} / ${rows}`;
  return stage;
}

// The patient's sides stand below each picture, where they cover none of it.
const sides = (sample) => el("div", { class: "sides" }, ...sample.sides.map((at) => el("div", {}, ...[...at].map((side) => el("span", {}, side)))));

const plainStage = (sample) => el("div", { class: "stage over" }, el("img", { src: data.thumbs[sample.id].uri, alt: sample.pictures.length > 1 ? "the pictures" : "the picture" }));

const enlarge = (name, open) => el("button", { type: "button", class: "plain small", "aria-label": `enlarge ${name}`, onclick: open }, "Enlarge");

function mapFigure(sample, method, values, row, curve) {
  const says = !row ? "" : row.status === "ok" ? `srg ${num(row.srg, true)}` : row.status;
  const shares = sample.shares[data.methods.indexOf(method)];
  const lines = [says, shares ? sample.pictures.map((name, i) => `${name} ${Math.round(100 * shares[i])}%`).join(" · ") : ""].filter(Boolean);
  return el("figure", {}, mapStage(sample, method, values, !row || row.status === "ok"), sides(sample), el("figcaption", {}, method, ...lines.flatMap((line) => [el("br"), line])),
    enlarge(`the map of ${method}`, () => openLarge(sample, method, values, !row || row.status === "ok", curve)));
}

// The scale of the maps, gray where all of them are.
function colorBar(gray) {
  const colors = data.viridis.filter((_, i) => i % 7 === 0).map((rgb) => `rgb(${rgb.join(",")})`).join(",");
  const scale = gray ? "rgb(60,60,60),rgb(210,210,210)" : colors;
  return el("div", { class: "colorbar" }, el("span", {}, "least"), el("span", { class: "scale", role: "img", "aria-label": "from least to most important", style: `background:linear-gradient(to right,${scale})` }), el("span", {}, "most important"));
}

// The samples before and after this one in the list as it is filtered and ordered now.
function steps(id) {
  const place = state.listed.indexOf(id), step = (other, text) => (other === undefined ? null : el("a", { class: "plain", href: sampleAddress(other) }, text));
  const before = place < 1 ? undefined : state.listed[place - 1], after = place < 0 ? undefined : state.listed[place + 1];
  return el("p", { class: "controls" }, el("a", { class: "plain", href: "#samples" }, "Close"), step(before, "‹ Previous sample"), step(after, "Next sample ›"),
    place < 0 ? null : el("span", { class: "quiet" }, `${place + 1} of ${state.listed.length} in the list below`));
}

function sampleFacts(sample) {
  const wrong = sample.correct === false ? ", which is wrong" : "";
  const facts = [["question", sample.question], ["answer", `${sample.answer ?? "–"}${wrong} (generated: ${sample.generated ?? "–"})`], ["reference", sample.reference ?? "unknown"], ["p(yes)", num(sample.p_yes)],
    ["finding", sample.finding ?? "–"], ["effect", `${num(sample.effect, true)} (${settingName(data.settings[state.setting])})`], ...(sample.use ? [["image use", sample.use]] : []), ...(sample.reason ? [["reason", sample.reason]] : [])];
  return el("dl", { class: "facts" }, ...facts.flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
}

// The smallest random_p that the number of random orders allows says so.
function sampleCell(row, name, orders) {
  const value = num(row[name], name.startsWith("gap")), lowest = orders && known(row[name]) && row[name] * (orders + 1) < 1.001;
  return el("td", {}, value, name === "random_p" && lowest ? el("small", {}, "lowest possible") : null);
}

function sampleTable(rows) {
  const { orders } = data.settings[state.setting];
  return el("table", {}, el("caption", {}, "Scores of this sample"), el("thead", {}, el("tr", {}, ...["method", "status", ...data.values].map((n) => el("th", { scope: "col" }, n, " ", what(n, n))))),
    el("tbody", {}, ...rows.map((r) => el("tr", {}, el("td", {}, swatch(r.method), r.method + (r.own ? "*" : "")), el("td", {}, r.status), ...data.values.map((n) => sampleCell(r, n, orders))))));
}

function randomNote() {
  const { orders } = data.settings[state.setting];
  return el("p", { class: "quiet" }, orders ? `random_p is from ${orders} random orders: it cannot be below 1/${orders + 1} = ${num(1 / (orders + 1))}, however good a map is.` : "");
}

// A status that every method has is the sample's own.
function banner(rows) {
  const [first] = rows;
  if (!first || first.status === "ok" || rows.some((r) => r.status !== first.status)) return null;
  return el("p", { class: "warnings", id: "sample-banner", role: "note" }, el("strong", {}, `${first.status}: `), data.banners[first.status] ?? "");
}

async function openSample() {
  const section = byId("sample"), wanted = state.sample, sample = data.samples.find((s) => s.id === wanted);
  section.hidden = wanted === null;
  if (wanted === null) { openSample.shown = null; return; }
  if (!sample) { section.replaceChildren(el("h2", { tabindex: -1 }, "No such sample on this page"), el("p", {}, wanted)); return; }
  const rows = rowsOf(sample).filter((r) => r.setting === state.setting && !state.hidden.has(r.method));
  const heading = el("h2", { tabindex: -1 }, "Sample ", ...breakable(sample.id));
  const maps = el("div", { class: "maps" }), curves = el("div", { class: "charts" });
  const warning = banner(rows);
  section.replaceChildren(heading, steps(sample.id), ...[warning].filter(Boolean), sampleFacts(sample), el("h3", {}, "Maps"), colorBar(warning !== null),
    el("p", { class: "quiet" }, `Each on its own scale, 2nd to 98th percentile: compare places, not shades. ${sample.sides.every(Boolean) ? "R and L are the patient's sides." : "Lateral and turned pictures have no marks of sides."}`), maps,
    el("h3", {}, "Curves"), curves, el("div", { class: "scroll" }, sampleTable(rows)), randomNote());
  if (openSample.shown !== wanted) { section.scrollIntoView(); heading.focus({ preventScroll: true }); openSample.shown = wanted; }
  if (!sample.detail) { maps.append(el("p", { class: "quiet" }, "The page has no room for this sample's maps and curves; they are in the records.")); return; }
  const detail = await unpack(sample);
  if (!maps.isConnected) return;
  const rowOf = Object.fromEntries(rows.map((r) => [r.method, r])), thumb = data.thumbs[sample.id];
  const several = sample.pictures.length > 1, named = several ? `the pictures alone: ${sample.pictures.join(", ")}` : "the picture alone";
  if (several) maps.style.gridTemplateColumns = `repeat(auto-fill, minmax(min(${9.5 * sample.pictures.length}rem, 100%), 1fr))`;
  if (thumb) {
    const stage = plainStage(sample);
    stage.append(...truthOf(sample));
    maps.append(el("figure", {}, stage, sides(sample), el("figcaption", {}, named), enlarge(named, () => openLarge(sample))));
  }
  const curveOf = (method) => detail.curves.find((c) => c.setting === state.setting && c.method === method);
  maps.append(...Object.entries(detail.maps).filter(([m]) => !state.hidden.has(m)).map(([m, values]) => mapFigure(sample, m, values, rowOf[m], curveOf(m))));
  const series = detail.curves.filter((c) => c.setting === state.setting && !state.hidden.has(c.method));
  if (series.length) curves.append(...["deletion", "insertion"].map((side) => curveChart(side, series, side, [[series[0].deletion[0], "intact picture"], [series[0].insertion[0], "all substrate"]], "score (logits)")));
}
