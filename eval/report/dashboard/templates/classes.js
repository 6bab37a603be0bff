// Per class: two arms side by side, the largest differences first; and what is taken for what.
const FEW = 30;

function makeClasses(section) {
  const tools = el("div", { class: "picks" });
  const box = scrolling("Accuracy by class");
  const more = el("p", { class: "fine" });
  let whole = false;
  let words = "";
  section.append(el("p", { class: "lede" }, "The same measure class by class, mean over seeds; the largest differences between A and B first, or the lowest of a single arm."), tools, box, more);
  const filter = el("input", { type: "search", placeholder: "filter classes", "aria-label": "Filter classes", input: () => {
    words = filter.value.toLowerCase();
    table();
  } });
  let current = null;
  let two = null;
  const draw = () => {
    current = tablesBy(data.perClass, (t) => data.measures[t.m].name === state.classes);
    const arms = armsIn(current.arms);
    two = pair(arms);
    tools.replaceChildren(
      select("set", data.perClass.map((t) => [data.measures[t.m].name, measureLabel(t.m)]), data.measures[current.m].name, (v) => choose({ classes: v }), "pick-classes"),
      ...armPicks(arms, two, "classes"), filter);
    table();
  };
  const table = () => {
    const { a, b } = two;
    const unit = data.measures[current.m].unit;
    const lines = current.classes.map((name, i) => ({ name, n: current.n[i] ?? null, va: current.arms[a][i], vb: current.arms[b][i] }));
    lines.forEach((l) => (l.d = l.va === null || l.vb === null ? null : l.va - l.vb));
    lines.sort((p, q) => (a === b ? (p.va ?? 2) - (q.va ?? 2) : Math.abs(q.d ?? 0) - Math.abs(p.d ?? 0)));
    const found = lines.filter((l) => l.name.toLowerCase().includes(words));
    const shown = whole ? found : found.slice(0, FEW);
    const most = Math.max(...lines.map((l) => Math.abs(l.d ?? 0)), 1e-9);
    box.replaceChildren(el("table", { class: "by-class" },
      el("thead", {}, el("tr", {}, ["class", "samples"].map((t, i) => el("th", { scope: "col", class: i ? "n" : null }, t)),
        (a === b ? [a] : [a, b]).map((arm, i) => el("th", { scope: "col", class: "n" }, `${"AB"[i]} `, said(data.arms[arm].name))),
        a === b ? null : el("th", { scope: "col", class: "n" }, "A − B"), a === b ? null : el("th", { scope: "col", class: "wide" }, el("span", { class: "sr" }, "difference drawn")))),
      el("tbody", {}, shown.map((l) => el("tr", {}, el("th", { scope: "row" }, said(l.name)), el("td", { class: "n" }, count(l.n)),
        el("td", { class: "n" }, reading(l.va, unit)), a === b ? null : [el("td", { class: "n" }, reading(l.vb, unit)), el("td", { class: "n" }, l.d === null ? NONE : change(l.d, unit)),
        el("td", { class: "wide" }, l.d === null ? null : diverging(l.d / most))])))));
    more.replaceChildren(`${shown.length} of ${current.classes.length} classes. `, found.length > FEW ? button(whole ? "show fewer" : `show all ${found.length}`, () => {
      whole = !whole;
      table();
    }) : "");
  };
  whenChanged(["classes", "a", "b", "control"], draw);
}

// A bar from the middle: right and blue = A is better, left and orange = B is better.
const diverging = (part) => svg("svg", { class: "bar1", "aria-hidden": "true" },
  svg("line", { class: "base", x1: "50%", x2: "50%", y1: 0, y2: "100%" }),
  svg("rect", { class: part > 0 ? "kept" : "dropped", x: `${part > 0 ? 50 : 50 + 50 * part}%`, width: `${50 * Math.abs(part)}%`, height: "100%", rx: 2 }));

function makeConfusions(section) {
  const tools = el("div", { class: "picks" });
  const place = el("div", { class: "card columns" });
  section.append(el("p", { class: "lede" }, "The most frequent confusions of one arm; rows of the matrix are true classes, columns what was said."), tools, place);
  const key = (c) => `${data.measures[c.m].name}\n${data.arms[c.arm].name}`;
  whenChanged(["confusion"], () => {
    const c = tablesBy(data.confusions, (t) => key(t) === state.confusion);
    const sets = [...new Set(data.confusions.map((t) => t.m))];
    tools.replaceChildren(
      select("set", sets.map((m) => [String(m), measureLabel(m)]), String(c.m), (v) => choose({ confusion: key(data.confusions.find((t) => t.m === Number(v) && t.arm === c.arm) ?? data.confusions.find((t) => t.m === Number(v))) }), "pick-confusion"),
      select("arm", data.confusions.filter((t) => t.m === c.m).map((t) => [String(t.arm), data.arms[t.arm].name]), String(c.arm), (v) => choose({ confusion: key(data.confusions.find((t) => t.m === c.m && t.arm === Number(v))) }), "confusion-arm"));
    place.replaceChildren(...[c.pairs.length ? topConfusions(c) : null, c.counts.length ? matrix(c) : null].filter(Boolean));
  });
}

function topConfusions(c) {
  const most = Math.max(...c.pairs.map((p) => p[2]));
  return el("div", {}, el("h3", {}, "Most frequent"), scrolling("Most frequent confusions", el("table", { class: "confused" },
    el("thead", {}, el("tr", {}, ["true", "taken for", "count", ""].map((t, i) => el("th", { scope: "col", class: i === 2 ? "n" : null }, t)))),
    el("tbody", {}, c.pairs.slice(0, 15).map(([from, to, n]) => el("tr", {}, el("td", {}, said(from)), el("td", {}, said(to)), el("td", { class: "n" }, count(n)),
      el("td", { class: "bars" }, svg("svg", { class: "bar1", "aria-hidden": "true" }, svg("rect", { class: "dropped", width: `${(100 * n) / most}%`, height: "100%", rx: 2 })))))))));
}

function matrix(c) {
  const shade = (row, n) => `q${Math.round((10 * n) / Math.max(1, row.reduce((a, b) => a + b, 0)))}`;
  return el("div", {}, el("h3", {}, "Matrix"), scrolling("Confusion matrix", el("table", { class: "heat matrix" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "true ↓ said →"), c.classes.map((k, i) => el("th", { scope: "col", title: k }, el("span", { class: "sr" }, k), el("span", { "aria-hidden": "true" }, String(i + 1)))))),
    el("tbody", {}, c.counts.map((row, i) => el("tr", {}, el("th", { scope: "row" }, el("span", { class: "named" }, el("span", { class: "faint number" }, String(i + 1)), said(c.classes[i]))), row.map((n, j) => el("td", { class: `${shade(row, n)}${i === j ? " self" : ""}` }, count(n)))))))));
}
