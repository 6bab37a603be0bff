// Mistakes: picture, what it is, what each of two arms said; filtered by who is right.
const SHOWN = {
  all: ["all", () => true],
  "a-wrong": ["A wrong", (a) => a && !a[1]],
  "b-wrong": ["B wrong", (a, b) => b && !b[1]],
  "only-a-wrong": ["A wrong, B right", (a, b) => a && b && !a[1] && b[1]],
  "only-b-wrong": ["A right, B wrong", (a, b) => a && b && a[1] && !b[1]],
  both: ["both wrong", (a, b) => a && b && !a[1] && !b[1]],
};

function makeMistakes(section) {
  const tools = el("div", { class: "picks" });
  const pager = makePager("Samples", 24);
  let words = "";
  const filter = el("input", { type: "search", placeholder: "filter by label", "aria-label": "Filter by label", input: () => {
    words = filter.value.toLowerCase();
    choose({ page: 0 });
  } });
  section.append(el("p", { class: "lede" }, "Samples that not all arms got right, as many as the page holds. Arrow keys go from one to the next, page keys turn the page."), tools, el("div", { class: "card" }, pager.node));
  let drawn = "";
  whenChanged(["mistakes", "show", "page", "a", "b", "control"], () => {
    const sets = [...new Set(data.mistakes.map((s) => s.m))];
    const m = sets.find((s) => data.measures[s].name === state.mistakes) ?? sets[0];
    const samples = data.mistakes.filter((s) => s.m === m);
    const arms = [...new Set(samples.flatMap((s) => armsIn(s.guesses)))];
    const { a, b } = pair(arms);
    const show = SHOWN[state.show] ? state.show : "all";
    const counted = Object.entries(SHOWN).filter(([key]) => a !== b || ["all", "a-wrong"].includes(key))
      .map(([key, [name, rule]]) => [key, `${name} (${samples.filter((s) => rule(s.guesses[a], s.guesses[b])).length})`]);
    const look = JSON.stringify([m, a, b, show]);
    if (look !== drawn) {
      drawn = look;
      tools.replaceChildren(
        select("set", sets.map((s) => [data.measures[s].name, measureLabel(s)]), data.measures[m].name, (v) => choose({ mistakes: v, page: 0 }), "pick-mistakes"),
        ...armPicks(arms, { a, b }, "mistakes"), select("show", counted, show, (v) => choose({ show: v, page: 0 }), "pick-show"), filter);
    }
    const found = samples.filter((s) => SHOWN[show][1](s.guesses[a], s.guesses[b]) &&
      (!words || [s.true, s.guesses[a]?.[0], s.guesses[b]?.[0]].some((t) => t && t.toLowerCase().includes(words))));
    pager.draw(found.map((s) => () => mistakeCard(s, a, b)), state.page, (page) => choose({ page }));
  });
}

function mistakeCard(s, a, b) {
  const guess = (arm, letter) => {
    const found = s.guesses[arm];
    if (!found) return null;
    return el("p", { class: `guess ${found[1] ? "is-right" : "is-wrong"}` }, el("b", {}, `${letter} ${found[1] ? "✓" : "✗"}`), el("span", { class: "sr" }, found[1] ? " right: " : " wrong: "), " ", said(found[0]));
  };
  return el("li", { "data-key": s.key }, picture(s.picture, `sample ${s.key}, true: ${s.true}`),
    el("p", { class: "is" }, said(s.true)), guess(a, "A"), a === b ? null : guess(b, "B"), s.note ? el("p", { class: "fine" }, said(s.note)) : null);
}
