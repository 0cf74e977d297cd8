// ---- one map, large: opacity, zoom, the truth where it is known, and the film of deletion ----
const GONE = "#808080"; // a removed cell, where the page has no picture of the substrate
const large = { number: 0 };

// Cells of several pictures: one picture after another in the order, side by side in the map.
function cellPlace(sample, cell) {
  const pictures = Math.max(sample.pictures.length, 1), [rows, columns] = sample.grid, width = columns / pictures;
  const picture = Math.floor(cell / (rows * width)), inside = cell % (rows * width);
  return [Math.floor(inside / width), picture * width + inside % width];
}

function unpackOrder(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return Array.from({ length: bytes.length / 2 }, (_, i) => bytes[2 * i] + 256 * bytes[2 * i + 1]);
}

// Boxes and the outline of the mask, in shares of the whole picture.
function truthOf(sample) {
  const thumb = data.thumbs[sample.id];
  if (!thumb) return [];
  const box = ([label, x1, y1, x2, y2]) => el("div", { class: "truth", title: label, style: `left:${100 * x1}%;top:${100 * y1}%;width:${100 * (x2 - x1)}%;height:${100 * (y2 - y1)}%` });
  const mask = thumb.mask && el("div", { class: "outline", role: "img", "aria-label": "outline of the finding", style: `background-image:url(${thumb.mask})` });
  return [...thumb.boxes.map(box), mask].filter(Boolean);
}

async function openLarge(sample, method, values, ok, curve) {
  const thumb = data.thumbs[sample.id], stage = values ? mapStage(sample, method, values, ok, 255) : plainStage(sample);
  const truth = truthOf(sample), number = (large.number += 1), map = stage.querySelector("canvas");
  stage.append(...truth);
  byId("large-title").textContent = `${values ? method : "the picture alone"} · ${sample.question}`;
  byId("large-view").replaceChildren(stage);
  byId("large-sides").replaceChildren(sides(sample));
  byId("large-opacity").value = 60;
  byId("large-zoom").value = 100;
  byId("large-opacity-label").hidden = !(thumb && map);
  byId("large-truth-label").hidden = !truth.length;
  byId("large-truth").checked = true;
  if (!byId("large").open) byId("large").showModal();
  Object.assign(large, { stage, map, truth, aspect: sample.grid ? sample.grid[1] / sample.grid[0] : 1 });
  if (thumb) {
    const picture = stage.querySelector("img");
    await picture.decode();
    if (number !== large.number) return; // another map was opened meanwhile
    large.aspect = picture.naturalWidth / picture.naturalHeight;
  }
  sizeLarge();
  fadeLarge();
  await prepareFilm(sample, method, curve, number);
}

function sizeLarge() {
  const whole = `min(100%, ${62 * large.aspect}vh)`;
  large.stage.style.width = `calc(${whole} * ${byId("large-zoom").value / 100})`;
  byId("large-sides").style.width = whole;
}

function fadeLarge() {
  if (large.map && !byId("large-opacity-label").hidden) large.map.style.opacity = byId("large-opacity").value / 100;
}

async function prepareFilm(sample, method, curve, number) {
  const thumb = data.thumbs[sample.id], order = thumb && thumb.orders[method];
  byId("large-film-box").hidden = !(order && curve && large.map);
  large.film = null;
  if (byId("large-film-box").hidden) return;
  const setting = data.settings[curve.setting], same = thumb.removed && thumb.substrate === setting.substrate;
  const removed = same ? el("img", { src: thumb.removed, alt: "" }) : null;
  if (removed) await removed.decode();
  if (number !== large.number) return;
  const picture = large.stage.querySelector("img"), [, , height, width] = thumb.region;
  const canvas = el("canvas", { class: "film", width: Math.round(picture.naturalWidth * width), height: Math.round(picture.naturalHeight * height), "aria-hidden": "true" });
  for (const side of ["top", "left", "width", "height"]) canvas.style[side] = large.map.style[side];
  large.map.before(canvas);
  const context = large.map.getContext("2d");
  large.film = { sample, curve, removed, canvas, order: unpackOrder(order), whole: context.getImageData(0, 0, large.map.width, large.map.height) };
  Object.assign(byId("large-film"), { max: curve.x.length - 1, value: 0 });
  byId("large-substrate").textContent = removed ? `replaced by ${setting.substrate}` : "drawn gray: the page has no picture of this substrate";
  showFilm();
}

// The picture without its first cells, and what is left of the score; the map stays where cells remain.
function showFilm() {
  const { sample, curve, removed, canvas, order, whole } = large.film, step = Number(byId("large-film").value);
  const [rows, columns] = sample.grid, context = canvas.getContext("2d"), map = large.map.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  map.putImageData(whole, 0, 0);
  for (const cell of order.slice(0, Math.round(curve.x[step] * order.length))) {
    const [row, column] = cellPlace(sample, cell);
    const [left, right] = [column, column + 1].map((edge) => Math.round(edge * canvas.width / columns));
    const [top, bottom] = [row, row + 1].map((edge) => Math.round(edge * canvas.height / rows));
    const place = [left, top, right - left, bottom - top];
    if (removed) context.drawImage(removed, ...scaledPlace(place, removed, canvas), ...place);
    else { context.fillStyle = GONE; context.fillRect(...place); }
    map.clearRect(column, row, 1, 1);
  }
  byId("large-said").textContent = filmText(sample, curve, step);
}

const scaledPlace = ([x, y, width, height], from, canvas) => {
  const across = from.naturalWidth / canvas.width, down = from.naturalHeight / canvas.height;
  return [x * across, y * down, width * across, height * down];
};

function filmText(sample, curve, step) {
  const score = curve.deletion[step], whole = curve.deletion[0], all = curve.deletion[curve.deletion.length - 1];
  const answer = known(sample.p_yes) ? (score < 0 ? `, no longer “${sample.answer}”` : `, still “${sample.answer}”`) : "";
  return `${Math.round(100 * curve.x[step])} % of the cells removed: score ${num(score, true)}${answer} (intact ${num(whole, true)}, all removed ${num(all, true)})`;
}

function startLarge() {
  byId("large-opacity").oninput = fadeLarge;
  byId("large-zoom").oninput = sizeLarge;
  byId("large-film").oninput = showFilm;
  byId("large-truth").onchange = (e) => { for (const one of large.truth) one.hidden = !e.target.checked; };
  byId("large-close").onclick = () => byId("large").close();
}
