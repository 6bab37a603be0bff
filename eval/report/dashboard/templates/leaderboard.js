// The leaderboard: rows are arms or single models, columns the chosen measures, their mean, mean rank and win rate.
const MOST_OF_LABEL = 64; // characters of a heading; what is pointed at shows it whole
const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
let board = { columns: [], rows: [], control: null };

function boardColumns(shown) {
  return [
    ...chosenColumns(shown),
    ...(state.aggregates ? data.aggregates.map(aggregateColumn) : []),
    ...chosen().map(measureColumn),
  ].map(remembered);
}

function sortedRows(columns, shown) {
  const column = columns.find((c) => c.key === state.sort) ?? null;
  if (state.sort === "arm" || !column) return [shown, null];
  const descending = state.order ? state.order === "descending" : column.higher;
  const sign = descending ? -1 : 1;
  const keyed = shown.map((row) => [column.of(row)?.value ?? null, row]);
  keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * (a - b)));
  return [keyed.map(([, row]) => row), column];
}

// Shade by place between the worst and the best of the column: a blue that also reads in grey. Where intervals are wide
// beside what lies between worst and best, all is pale: a strong colour would claim what the numbers do not.
function shades(column, shown) {
  const cells = shown.map((row) => column.of(row)).filter((c) => c && c.value !== null);
  const values = cells.map((c) => c.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const widths = cells.filter((c) => c.low !== null).map((c) => (c.high - c.low) / 2);
  const strength = widths.length ? (high - low) / (high - low + mean(widths)) : 1;
  return (value) => {
    if (value === null || high === low) return "";
    const part = (strength * (value - low)) / (high - low) + (column.higher ? 0 : 1 - strength);
    return `q${Math.round(10 * (column.higher ? part : 1 - part))}`;
  };
}

function cellOf(column, row, shade, best) {
  const cell = column.of(row);
  const apart = row.arm === board.control.arm ? null : column.versus(row, board.control);
  const attributes = { tabindex: -1, "data-column": column.key };
  if (!cell || cell.value === null) {
    const told = cell && cell.needed !== undefined && column.aggregate ? `${cell.needed} needed, ${cell.there} there` : cell && cell.needed ? `${cell.there} of ${cell.needed}` : NONE;
    return el("td", { ...attributes, class: "n faint lacks" }, told);
  }
  if (state.view === "differences" && !["rank", "win"].includes(column.key)) {
    if (!apart) return el("td", { ...attributes, class: "n faint" }, row.arm === board.control.arm ? "control" : NONE);
    return el("td", { ...attributes, class: `n ${excludesZero(apart) ? (apart.value > 0 === column.higher ? "better" : "worse") : "unsure"}` },
      sign(apart, column), change(apart.value, column.unit), el("small", {}, changes(apart.low, apart.high, column.unit) || "no interval"));
  }
  const near = nearChance(column, cell);
  return el("td", { ...attributes, class: `n ${near ? "near" : shade(cell.value)}${best === cell.value && !near ? " best" : ""}` },
    sign(apart, column), el("span", {}, reading(cell.value, column.unit)), el("small", {}, interval(cell.low, cell.high, column.unit)));
}

// Marked only where the interval of the difference excludes 0; the shape says what the colour says.
function sign(apart, column) {
  if (!excludesZero(apart)) return null;
  const better = apart.value > 0 === column.higher;
  return el("i", { class: better ? "up" : "down", role: "img", "aria-label": better ? "better than the control" : "worse than the control" }, better ? "▲" : "▼");
}

function headOf(column) {
  const sorted = state.sort === column.key;
  const order = sorted ? state.order || (column.higher ? "descending" : "ascending") : null;
  return el("th", { scope: "col", class: "n", "aria-sort": order, "data-column": column.key },
    el("button", { type: "button", class: "sort", tabindex: -1, click: () => sortBy(column) }, broken(cut(column.label, MOST_OF_LABEL))));
}

function sortBy(column) {
  const first = column.higher ? "descending" : "ascending";
  const same = state.sort === column.key && (state.order || first) === first;
  choose({ sort: column.key, order: same ? (first === "descending" ? "ascending" : "descending") : "" });
  const again = all("#leaderboard th[data-column]").find((th) => th.dataset.column === column.key);
  again?.querySelector("button").focus();
}

function groupRow(columns) {
  const row = el("tr", { class: "of-groups" }, el("td", { colspan: 2 }));
  for (let i = 0; i < columns.length; ) {
    const name = columns[i].group;
    let j = i;
    while (j < columns.length && columns[j].group === name) j += 1;
    row.append(el("th", { scope: "colgroup", colspan: j - i }, el("span", {}, said(name))));
    i = j;
  }
  return row;
}

function drawBoard(box) {
  const shown = rows();
  board = { columns: [], rows: shown, control: armRow(state.control) };
  if (state.rows === "seeds") board.control = shown.find((r) => r.arm === state.control) ?? board.control;
  const columns = boardColumns(shown);
  const controls = new Map(shown.map((row) => [row, state.rows === "seeds" ? controlOf(row, shown) : board.control]));
  const [sorted, by] = sortedRows(columns, shown);
  const ranked = by ?? columns[0];
  const place = places(ranked, byBest(ranked, shown));
  board = { ...board, columns, rows: sorted, controls };
  const looks = columns.map((c) => [["rank", "win"].includes(c.key) ? () => "" : shades(c, shown), bestOf(c, shown)]);
  const body = sorted.map((row) => {
    board.control = controls.get(row);
    const at = place.get(row);
    return el("tr", { class: row.arm === state.control ? "control" : null },
      el("td", { class: "n place", tabindex: -1 }, at ? (at.from === at.to ? String(at.from) : `${at.from}–${at.to}`) : NONE),
      el("th", { scope: "row" }, named(row.arm, rowName(row)), row.arm === state.control ? el("small", { class: "inline" }, " control") : null),
      columns.map((c, i) => cellOf(c, row, ...looks[i])));
  });
  const chance = el("tr", {}, el("td", {}), el("th", { scope: "row" }, "chance"),
    columns.map((c) => el("td", { class: "n" }, c.chance === null || c.chance === undefined ? "" : reading(c.chance, c.unit))));
  const table = el("table", { class: "leaders", "aria-label": "Leaderboard" },
    el("thead", {}, groupRow(columns), el("tr", {},
      el("th", { scope: "col", class: "n place" }, el("span", { class: "sr" }, "place"), el("span", { "aria-hidden": "true" }, "#")),
      el("th", { scope: "col", "aria-sort": state.sort === "arm" ? "ascending" : null }, el("button", { type: "button", class: "sort", tabindex: -1, click: () => choose({ sort: "arm", order: "" }) }, state.rows === "seeds" ? "model" : "arm")),
      columns.map(headOf))),
    el("tbody", {}, body),
    columns.some((c) => c.chance !== null) ? el("tfoot", {}, chance) : null);
  const first = table.querySelector("button.sort");
  first.tabIndex = 0;
  const kept = box.scrollLeft;
  box.replaceChildren(table);
  box.scrollLeft = kept;
}

const controlOf = (row, shown) => shown.find((r) => r.arm === state.control && r.seed === row.seed) ?? shown.find((r) => r.arm === state.control);
function byBest(column, shown) {
  const sign = column.higher ? -1 : 1;
  const value = (row) => column.of(row)?.value ?? null;
  return shown.filter((r) => value(r) !== null).sort((a, b) => sign * (value(a) - value(b)));
}
const bestOf = (column, shown) => {
  const first = byBest(column, shown)[0];
  return first && shown.length > 1 ? column.of(first).value : null;
};

// Arrow keys go from cell to cell; the table is one stop of the tab key.
function walk(event, box) {
  const stop = event.target.closest("td, th");
  const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -1e9], End: [0, 1e9] }[event.key];
  if (!stop || !step) return;
  const lines = all("tr:not(.of-groups)", box);
  const line = Math.max(0, Math.min(lines.indexOf(stop.parentNode) + step[0], lines.length - 1));
  const cells = [...lines[line].cells];
  let at = Math.max(0, Math.min(stop.cellIndex + step[1], cells.length - 1));
  let target = cells[at].querySelector("button") ?? cells[at];
  while (target.tabIndex < -1 || (!target.hasAttribute("tabindex") && at < cells.length - 1)) target = cells[(at += 1)].querySelector("button") ?? cells[at];
  if (!target.hasAttribute("tabindex")) return;
  event.preventDefault();
  all("[tabindex='0']", box).forEach((e) => (e.tabIndex = -1));
  target.tabIndex = 0;
  target.focus();
}

const howSteady = ([tau, low]) =>
  `How steady the order by mean is: with tasks of this kind drawn again, Kendall's τ to it is ${minus(tau.toFixed(2))} on average (1 = the same order)${low < 1 ? `, and ${minus(low.toFixed(2))} or less in one draw of twenty` : ""}.`;

function makeLeaderboard(section) {
  section.append(el("p", { class: "lede" },
    "Each number is the mean over seeds with its 95 % interval. ▲ and ▼ mark a difference to the control whose interval excludes 0; nothing is marked where it does not. ",
    "Arms that share a place are not told apart; with one seed a mean has no test, and places are only its order. Point at a number, or go to it with the arrow keys, to see where it comes from."));
  makeChooser(section);
  const tools = el("div", { class: "picks" });
  const box = el("div", { class: "box tall", role: "region", "aria-label": "Leaderboard, scrolls", keydown: (e) => walk(e, box) });
  const steady = el("p", { class: "fine" });
  const text = tableTools(() => board);
  section.append(tools, box, steady, text);
  whenChanged(["tasks"], () => (steady.textContent = data.arms.length > 2 && data.overall?.tau && sameOverall(chosen()) ? howSteady(data.overall.tau) : ""));
  tellsWhere(box, "td[data-column], th[data-column]", (cell) => {
    const column = board.columns.find((c) => c.key === cell.dataset.column);
    const row = cell.tagName === "TD" ? board.rows[cell.parentNode.sectionRowIndex] : null;
    return column ? provenance(column, row, row ? board.controls.get(row) : null) : null;
  });
  whenChanged(["view", "rows", "control", "aggregates"], () => {
    tools.replaceChildren(
      select("control", data.arms.map((a, i) => [String(i), a.name]), String(state.control), (v) => choose({ control: Number(v) }), "pick-control"),
      select("show", [["values", "values"], ["differences", "differences to the control"]], state.view, (v) => choose({ view: v }), "pick-view"),
      data.arms.some((a) => a.seeds.length > 1) ? toggle("seeds apart", state.rows === "seeds", (on) => choose({ rows: on ? "seeds" : "arms" }), "seeds-apart") : "",
      data.aggregates.length ? toggle("named means", state.aggregates, (on) => choose({ aggregates: on })) : "");
  });
  whenChanged(["tasks", "view", "rows", "control", "aggregates", "sort", "order"], () => drawBoard(box));
}
