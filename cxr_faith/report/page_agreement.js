// ---- do the methods agree? one matrix of a measure that is chosen; the fuller the shade, the more alike the maps ----
const DARKEST = 45; // percent of color in a cell of full agreement: text on it stays readable

function agreement() {
  const { methods, pairs, measures } = data.agreement, measure = measures.findIndex(([key]) => key === byId("agreement-measure").value);
  const values = new Map(pairs.flatMap(([a, b, , ...each]) => [[`${a} ${b}`, each[measure]], [`${b} ${a}`, each[measure]]]));
  const cell = (row, column) => {
    const value = values.get(`${row} ${column}`);
    if (row === column || !known(value)) return el("td", {}, row === column ? "" : "–");
    const text = value.toFixed(2).replace(/^-0\.00$/, "0.00"), title = `${methods[row]} and ${methods[column]}: ${num(value)}`;
    return el("td", { class: text < 0 ? "shade against" : "shade", style: `--shade:${(DARKEST * Math.min(1, Math.abs(value))).toFixed(1)}%`, title }, text.replace("-", "−"));
  };
  const names = methods.map((name) => el("th", { scope: "col" }, el("span", {}, name)));
  byId("agreement").replaceChildren(el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "method"), ...names)),
    el("tbody", {}, ...methods.map((name, row) => el("tr", {}, el("th", { scope: "row" }, ...breakable(name)), ...methods.map((_, column) => cell(row, column))))));
}
