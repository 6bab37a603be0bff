// Worst groups: one measure by region, income and the like, with how many samples each group has.
function makeGroups(section) {
  const tools = el("div", { class: "picks" });
  const box = scrolling("Measure by group");
  section.append(el("p", { class: "lede" }, "Groups of A from its worst to its best. A group of few samples has a wide interval: the worst of many small groups is partly chance. Where chance differs, as between languages with other classes, groups cannot be set against each other, only arms within a group."), tools, box);
  const key = (g) => `${data.measures[g.m].name}\n${g.field}`;
  whenChanged(["groups", "a", "b", "control"], () => {
    const g = tablesBy(data.groups, (t) => key(t) === state.groups);
    const arms = armsIn(g.arms);
    const { a, b } = pair(arms);
    const unit = data.measures[g.m].unit;
    tools.replaceChildren(select("set", data.groups.map((t) => [key(t), `${measureLabel(t.m)}, by ${t.field}`]), key(g), (v) => choose({ groups: v }), "pick-groups"), ...armPicks(arms, { a, b }, "groups"));
    const order = g.groups.map((_, i) => i).sort((i, j) => (g.arms[a][i][0] ?? 2) - (g.arms[a][j][0] ?? 2));
    const lows = order.flatMap((i) => [...g.arms[a][i], ...g.arms[b][i]]).filter((v) => v !== null);
    const [low, high] = [Math.min(...lows), Math.max(...lows)];
    const at = (v) => `${(100 * (v - low)) / (high - low || 1)}%`;
    const drawn = (arm, i, y) => {
      const [value, from, to] = g.arms[arm][i];
      if (value === null) return [];
      return [from === null ? null : svg("line", { class: `error-bar ${colour(arm)}`, x1: at(from), x2: at(to), y1: y, y2: y }), svg("circle", { class: `seed ${colour(arm)}`, cx: at(value), cy: y, r: 4.5 })];
    };
    const cell = (arm, i) => {
      const [value, from, to] = g.arms[arm][i];
      return el("td", { class: "n" }, reading(value, unit), el("small", {}, interval(from, to, unit)));
    };
    box.replaceChildren(el("table", { class: "by-group" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, said(g.field)), el("th", { scope: "col", class: "n" }, "samples"), g.chance.length ? el("th", { scope: "col", class: "n" }, "chance") : null,
        el("th", { scope: "col", class: "wide" }, el("span", { class: "sr" }, "drawn")),
        (a === b ? [a] : [a, b]).map((arm, k) => el("th", { scope: "col", class: "n" }, dot(arm), `${"AB"[k]} `, said(data.arms[arm].name))))),
      el("tbody", {}, order.map((i, k) => el("tr", { class: k ? null : "worst" }, el("th", { scope: "row" }, said(g.groups[i]), k ? null : el("small", {}, "worst of A")), el("td", { class: "n" }, count(g.n[i])), g.chance.length ? el("td", { class: "n faint" }, reading(g.chance[i], unit)) : null,
        el("td", { class: "wide" }, svg("svg", { class: "pairdots", "aria-hidden": "true" }, drawn(a, i, 11), a === b ? [] : drawn(b, i, 25))),
        cell(a, i), a === b ? null : cell(b, i))))));
  });
}
