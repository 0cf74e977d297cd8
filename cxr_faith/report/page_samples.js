// ---- samples: those worth a look, the list of all, and what is stored of one ----
const PAGE = 50;
const rowsOf = (sample) => sample.rows.map(([setting, method, status, own, map, curve, ...values]) => ({ setting, method: data.methods[method], status, own, map, curve,
  ...Object.fromEntries(data.values.map((name, i) => [name, values[i]])) }));

function sampleScore(sample, method) {
  const rows = rowsOf(sample).filter((r) => r.setting === state.setting && (method ? r.method === method : !data.controls.includes(r.method)));
  const scores = rows.map((r) => r.srg).filter((v) => v !== null);
  return { status: rows.length ? (rows.find((r) => r.status !== "ok") || rows[0]).status : "–", srg: scores.length ? scores.reduce((a, b) => a + b, 0) / scores.length : null };
}

// The samples that pass the filters, in the order that is chosen.
function matchingSamples() {
  const finding = byId("sample-finding").value, status = byId("sample-status").value, answer = byId("sample-answer").value;
  const words = byId("sample-search").value.toLowerCase().split(/\s+/).filter(Boolean), order = byId("sample-order").value;
  const matches = data.samples.map((s) => ({ s, ...sampleScore(s, byId("sample-method").value) }))
    .filter(({ s, status: its }) => (!finding || s.finding === finding) && (!status || its === status)
      && (!answer || s.correct === (answer === "right"))
      && words.every((w) => `${s.id} ${s.question} ${s.answer ?? ""}`.toLowerCase().includes(w)));
  if (order !== "id") matches.sort((a, b) => (a.srg === null) - (b.srg === null) || (order === "best" ? b.srg - a.srg : a.srg - b.srg));
  return matches;
}

function samples() {
  const matches = matchingSamples();
  state.listed = matches.map(({ s }) => s.id);
  state.page = Math.min(state.page, Math.max(0, Math.ceil(matches.length / PAGE) - 1));
  const shown = matches.slice(PAGE * state.page, PAGE * (state.page + 1));
  byId("sample-rows").replaceChildren(...shown.map(({ s, status: its, srg }) => el("tr", {}, el("td", {}, el("a", { href: sampleAddress(s.id) }, ...breakable(s.id))),
    el("td", {}, s.question), el("td", s.correct === false ? { class: "wrong" } : {}, (s.answer ?? "–") + (s.correct === false ? " (wrong)" : "")),
    el("td", {}, s.reference ?? "–"), el("td", {}, s.finding ?? "–"), el("td", {}, its), el("td", {}, num(srg, true)))));
  byId("sample-count").textContent = matches.length ? `${PAGE * state.page + 1}–${PAGE * state.page + shown.length} of ${matches.length}` : "none";
  byId("back").disabled = state.page === 0;
  byId("next").disabled = PAGE * (state.page + 1) >= matches.length;
}

const sampleAddress = (id) => `#sample=${encodeURIComponent(id)}`;

function galleryOf() {
  const place = new Map(data.samples.map((s) => [s.id, s]));
  const best = [...data.boards[0].rows].filter((r) => !data.controls.includes(r.method)).sort((a, b) => (b.values.srg ?? -9) - (a.values.srg ?? -9)).map((r) => r.method);
  for (const [kind, ids] of Object.entries(data.gallery)) {
    const cards = ids.filter((id) => place.has(id)).map((id) => card(place.get(id), best));
    byId("gallery").append(el("h3", {}, data.gallery_titles[kind]), cards.length ? el("ul", { class: "gallery" }, ...cards) : el("p", { class: "quiet" }, "None in this run."));
  }
}

// A card shows the map of the best method that has one for this sample.
function card(sample, best) {
  const thumb = data.thumbs[sample.id], { status, srg } = sampleScore(sample);
  const place = el("div", { class: "place" }, thumb ? el("img", { src: thumb.uri, alt: "" }) : null), name = el("span", { class: "quiet" });
  if (sample.detail) unpack(sample).then(({ maps }) => {
    const method = best.find((one) => maps[one]);
    if (!method) return;
    place.replaceChildren(mapStage(sample, method, maps[method], status === "ok"));
    name.append(` map of ${method}`, el("br"));
  });
  const says = status === "ok" ? `srg ${num(srg, true)}` : status;
  return el("li", {}, el("a", { href: sampleAddress(sample.id) }, place, name, el("strong", {}, sample.question), ` ${sample.answer ?? "–"} · ${says}`, el("br"), ...breakable(sample.id)));
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

