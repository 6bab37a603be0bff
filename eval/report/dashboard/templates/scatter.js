// One quantity against another: an arm is a point with both intervals; a line of effective robustness where one was fitted.
function axisColumns() {
  const shown = data.arms.map((_, i) => armRow(i));
  return [...chosenColumns(shown).map((c) => [remembered(c), shown]), ...data.facts.map((f, i) => [factColumn(f, i), shown]),
    ...data.aggregates.map((a) => [aggregateColumn(a), shown]), ...data.measures.map((_, m) => [measureColumn(m), shown])];
}

function axisOptions(columns) {
  const groups = new Map();
  for (const [c] of columns) {
    if (!groups.has(c.group)) groups.set(c.group, []);
    groups.get(c.group).push([c.key, c.label]);
  }
  return [...groups];
}

const logistic = (v) => 1 / (1 + Math.exp(-v));
const logit = (p) => Math.log(p / (1 - p));
const onLine = (line, x) => (line.logit ? logistic(line.slope * logit(x) + line.intercept) : line.slope * x + line.intercept);

// Greedy places for labels: the first of four sides that is free; none = only shown when pointed at.
function placeLabels(points, width, height) {
  const taken = points.map((p) => [p.px - 7, p.py - 7, p.px + 7, p.py + 7]);
  for (const p of points) {
    const w = 6.4 * p.short.length + 4;
    const sides = [[p.px + 9, p.py + 4, "start", p.px + 8], [p.px - 9, p.py + 4, "end", p.px - 8 - w], [p.px, p.py - 11, "middle", p.px - w / 2], [p.px, p.py + 19, "middle", p.px - w / 2]];
    for (const [x, y, anchor, from] of sides) {
      const area = [from, y - 11, from + w, y + 3];
      if (area[0] < 50 || area[2] > width || area[1] < 0 || area[3] > height - 44) continue;
      if (taken.some((t) => t !== taken[points.indexOf(p)] && area[0] < t[2] && area[2] > t[0] && area[1] < t[3] && area[3] > t[1])) continue;
      taken.push(area);
      p.label = { x, y, anchor };
      break;
    }
  }
}

function makeScatter(section) {
  const tools = el("div", { class: "picks" });
  const place = el("div", { class: "plot-place" });
  const remark = el("p", { class: "fine" });
  const numbers = el("details", { class: "numbers" });
  section.append(el("p", { class: "lede" }, "Each point is an arm; bars are 95 % intervals in both directions. Go from point to point with the arrow keys."),
    tools, el("div", { class: "card" }, place, remark, numbers));
  // what all arms share, such as samples seen at equal training, tells nothing across
  const varies = (_, i) => new Set(data.arms.map((a) => a.facts[i]).filter((v) => v !== null)).size > 1;
  const first = data.facts.find(varies);
  const fallback = () => (first ? `fact:${first.name}` : data.measures.length ? `m:${data.measures[0].name}` : "mean");
  const draw = () => {
    const columns = axisColumns();
    const find = (key, other) => (columns.find(([c]) => c.key === key) ?? columns.find(([c]) => c.key === other) ?? columns[0]);
    const [[x, shown], [y]] = [find(state.x || fallback(), fallback()), find(state.y, "mean")];
    // what a log axis can show is said by its unit: shares are rarely read in decades
    const isLog = (choice, c) => (choice ? choice === "true" : Boolean(c.fact && c.fact.log));
    const [wantX, wantY] = [isLog(state.xlog, x), isLog(state.ylog, y)];
    tools.replaceChildren(
      select("across", axisOptions(columns), x.key, (v) => choose({ x: v, xlog: "" }), "pick-x"), toggle("log", wantX, (on) => choose({ xlog: String(on) }), "log-x"),
      select("up", axisOptions(columns), y.key, (v) => choose({ y: v, ylog: "" }), "pick-y"), toggle("log", wantY, (on) => choose({ ylog: String(on) }), "log-y"),
      toggle("names", state.labels, (on) => choose({ labels: on })));
    drawScatter({ x, y, xlog: wantX, ylog: wantY, shown, place, remark, numbers });
  };
  whenChanged(["x", "y", "xlog", "ylog", "labels", "tasks", "control"], draw);
  drawnIn(place, draw);
}

function drawScatter({ x, y, xlog, ylog, shown, place, remark, numbers }) {
  const both = shown.map((row) => ({ row, a: x.of(row), b: y.of(row) })).filter((p) => p.a && p.b && p.a.value !== null && p.b.value !== null);
  const points = both.filter((p) => (!xlog || p.a.value > 0) && (!ylog || p.b.value > 0));
  const left = shown.length - points.length;
  const line = data.robustness.find((r) => r.x === x.m && r.y === y.m && x.m !== undefined);
  const notes = [];
  if (left) notes.push(`${left} of ${shown.length} arms have no place here.`);
  if (line) notes.push(`Dashed: the ${y.label} to expect at each ${x.label}; what lies above it is effective robustness. ${line.fitted_on}`);
  remark.textContent = notes.join(" ");
  if (!points.length) {
    place.replaceChildren(el("p", { class: "faint" }, "No arm has both of these."));
    numbers.replaceChildren();
    return;
  }
  const ends = (c, log) => (c.low === null ? [c.value] : [c.value, log && c.low <= 0 ? c.value : c.low, c.high]);
  const f = frame(place, points.flatMap((p) => ends(p.a, xlog)), points.flatMap((p) => ends(p.b, ylog)), {
    xlog, ylog, xunit: x.unit, yunit: y.unit, xtitle: unitTitle(x.label, x.unit), ytitle: unitTitle(y.label, y.unit),
    says: `${y.label} against ${x.label}, ${points.length} arms` });
  points.forEach((p) => {
    p.px = f.x.at(p.a.value);
    p.py = f.y.at(p.b.value);
    const name = data.arms[p.row.arm].name;
    p.short = name.length > 26 ? `${name.slice(0, 25)}…` : name;
  });
  if (state.labels) placeLabels(points, f.width, f.height);
  if (line) {
    const [from, to] = [f.left, f.width - f.right];
    const along = Array.from({ length: 41 }, (_, i) => from + ((to - from) * i) / 40).map((px) => [px, f.x.back(px)]).filter(([, v]) => !line.logit || (v > 0 && v < 1));
    const path = along.map(([px, v]) => [px, f.y.at(onLine(line, v))]).filter(([, py]) => py >= f.top && py <= f.height - f.bottom);
    if (path.length > 1) f.inside.append(svg("path", { class: "robust", d: `M${path.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L")}` }));
  }
  points.forEach((p, i) => f.inside.append(point(p, i, x, y, f, [xlog, ylog])));
  place.replaceChildren(f.node);
  f.node.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const nodes = all(".point", f.node).sort((a, b) => a.dataset.px - b.dataset.px);
    const at = nodes.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    const next = nodes[(at + step + nodes.length) % nodes.length];
    nodes.forEach((n) => n.setAttribute("tabindex", n === next ? 0 : -1));
    next.focus();
  });
  tellsWhere(f.node, ".point", (node) => pointFacts(points[node.dataset.i], x, y, line));
  scatterNumbers(numbers, points, x, y, line);
}

function point(p, i, x, y, f, [xlog, ylog]) {
  const bars = [];
  const clamp = (v, log, scale) => (log && v <= 0 ? (scale === f.x ? f.left : f.height - f.bottom) : scale.at(v));
  if (p.a.low !== null) bars.push(svg("line", { class: "error-bar", x1: clamp(p.a.low, xlog, f.x), x2: f.x.at(p.a.high), y1: p.py, y2: p.py }));
  if (p.b.low !== null) bars.push(svg("line", { class: "error-bar", x1: p.px, x2: p.px, y1: clamp(p.b.low, ylog, f.y), y2: f.y.at(p.b.high) }));
  const name = data.arms[p.row.arm].name;
  const mark = marker(p.row.arm);
  mark.setAttribute("transform", `translate(${p.px.toFixed(1)} ${p.py.toFixed(1)})`);
  return svg("g", { class: `point ${colour(p.row.arm)}`, tabindex: i ? -1 : 0, role: "img", "data-i": i, "data-px": p.px,
    "aria-label": `${name}: ${x.label} ${withUnit(p.a.value, x.unit)}, ${y.label} ${withUnit(p.b.value, y.unit)}` },
    bars, mark, p.label ? svg("text", { class: "label", x: p.label.x, y: p.label.y, "text-anchor": p.label.anchor }, p.short) : null);
}

function pointFacts(p, x, y, line) {
  const told = [["arm", data.arms[p.row.arm].name]];
  for (const [c, v] of [[x, p.a], [y, p.b]]) {
    told.push([c.label, `${withUnit(v.value, c.unit)} ${interval(v.low, v.high, c.unit)}`]);
    if (v.kind) told.push(["interval", `95${NARROW}%, ${v.kind}`]);
    if (c.m !== undefined) told.push(...measureFacts(c.m).filter(([t, v2]) => v2 && ["protocol", "version", "test samples", "templates' hash", "set's digest"].includes(t)));
  }
  if (line) told.push(["effective robustness", `${change(p.b.value - onLine(line, p.a.value), y.unit)} points`]);
  return told;
}

function scatterNumbers(numbers, points, x, y, line) {
  const open = numbers.open;
  numbers.replaceChildren(el("summary", {}, "Numbers"), scrolling("Numbers of the plot", el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "arm"), [x, y].map((c) => el("th", { scope: "col", class: "n" }, said(unitTitle(c.label, c.unit)))), line ? el("th", { scope: "col", class: "n" }, "effective robustness") : null)),
    el("tbody", {}, points.map((p) => el("tr", {}, el("th", { scope: "row" }, dot(p.row.arm), said(data.arms[p.row.arm].name)),
      [[x, p.a], [y, p.b]].map(([c, v]) => el("td", { class: "n" }, reading(v.value, c.unit), el("small", {}, interval(v.low, v.high, c.unit)))),
      line ? el("td", { class: "n" }, change(p.b.value - onLine(line, p.a.value), y.unit)) : null))))));
  numbers.open = open;
}
