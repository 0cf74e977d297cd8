// ---- the address holds what is shown, so that a link or a bookmark opens the same; then the page starts ----
const LIST_FILTERS = ["search", "finding", "status", "answer", "method", "order"];
const DEFAULTS = { order: "id" };
const listFilter = (name) => byId(`sample-${name}`);

function writeAddress() {
  const words = new URLSearchParams(), b = board();
  if (state.sample !== null) words.set("sample", state.sample);
  if (state.setting) words.set("board", state.setting);
  if (state.slice !== "all") words.set("slice", state.slice);
  for (const method of state.hidden) words.append("without", method);
  if (state.all) words.set("columns", "all");
  if (b && (state.sort !== b.headline || !state.down)) words.set("sort", `${state.down ? "-" : ""}${state.sort}`);
  for (const name of LIST_FILTERS) if (listFilter(name).value !== (DEFAULTS[name] ?? "")) words.set(`list-${name}`, listFilter(name).value);
  const text = words.toString();
  if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

// A link to a sample or to a heading leaves the rest as it is; any other address is the whole state.
function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1)), names = [...words.keys()];
  if (location.hash === "#samples") state.sample = null;
  else if (names.length === 1 && words.has("sample")) state.sample = words.get("sample");
  else if (!names.length || [...words.values()].some(Boolean)) readAll(words);
}

function readAll(words) {
  const sort = words.get("sort"), setting = Number(words.get("board") ?? 0), slice = words.get("slice") ?? "all";
  Object.assign(state, { sample: words.get("sample"), hidden: new Set(words.getAll("without")), all: words.get("columns") === "all", page: 0 });
  state.setting = data.settings[setting] ? setting : 0;
  state.slice = data.boards.some((b) => b.slice === slice) ? slice : "all";
  state.sort = sort ? sort.replace(/^-/, "") : null;
  state.down = !sort || sort.startsWith("-");
  byId("setting").value = String(state.setting);
  byId("slice").value = state.slice;
  suitForest();
  for (const box of byId("methods").querySelectorAll("input")) box.checked = !state.hidden.has(box.value);
  for (const name of LIST_FILTERS) {
    const field = listFilter(name);
    field.value = words.get(`list-${name}`) ?? DEFAULTS[name] ?? "";
    if (field.selectedIndex === -1) field.value = DEFAULTS[name] ?? "";
  }
}

function show() { leaderboard(); samples(); openSample(); writeAddress(); }

function fillControls() {
  options(byId("setting"), data.settings.map((s, i) => [String(i), settingName(s)]), "0");
  options(byId("slice"), [...new Map(data.boards.map((b) => [b.slice, b.slice_title]))], "all");
  options(byId("forest-metric"), data.forest, data.forest[0][0]);
  options(listFilter("finding"), [["", "all"], ...[...new Set(data.samples.map((s) => s.finding).filter(Boolean))].sort().map((f) => [f, f])], "");
  options(listFilter("status"), [["", "all"], ...data.statuses.map((s) => [s, s])], "");
  options(listFilter("method"), [["", "mean of the methods"], ...data.methods.map((m) => [m, m])], "");
  methodBoxes();
  if (byId("agreement")) options(byId("agreement-measure"), data.agreement.measures, data.agreement.measures[0][0]);
}

function start() {
  if (!data.boards.length) { byId("interactive").hidden = true; byId("empty").hidden = false; return; }
  fillControls();
  byId("setting").onchange = (e) => { Object.assign(state, { setting: Number(e.target.value), sort: null, down: true }); suitForest(); show(); };
  byId("slice").onchange = (e) => { Object.assign(state, { slice: e.target.value, sort: null, down: true }); suitForest(); leaderboard(); writeAddress(); };
  byId("forest-metric").onchange = leaderboard;
  byId("more").onclick = () => { state.all = !state.all; leaderboard(); writeAddress(); };
  byId("csv").onclick = saveCsv;
  if (byId("agreement")) { byId("agreement-measure").onchange = agreement; agreement(); }
  const filter = () => { state.page = 0; samples(); openSample(); writeAddress(); };
  for (const name of LIST_FILTERS) listFilter(name)[name === "search" ? "oninput" : "onchange"] = filter;
  byId("back").onclick = () => { state.page -= 1; samples(); };
  byId("next").onclick = () => { state.page += 1; samples(); };
  startLarge();
  readAddress();
  galleryOf();
  show();
  window.addEventListener("hashchange", () => { readAddress(); show(); });
}
start();
document.documentElement.dataset.ready = "yes";
