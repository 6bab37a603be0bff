// Which tasks count: check boxes by group, all and none, a filter by words.
const groupsOfMeasures = new Map();
data.measures.forEach((m, i) => {
  const name = m.groups[0];
  if (!groupsOfMeasures.has(name)) groupsOfMeasures.set(name, []);
  groupsOfMeasures.get(name).push(i);
});
const everyGroup = [...new Set(data.measures.flatMap((m) => m.groups))];

function makeChooser(section) {
  const boxes = new Map();
  const sets = new Map();
  const summary = el("b");
  const filter = el("input", { type: "search", placeholder: "filter by words", "aria-label": "Filter tasks by words", input: () => narrow() });
  const visible = (i) => !boxes.get(i).parentNode.hidden;
  const pick = (indices, on) => {
    const tasks = new Set(state.tasks);
    indices.filter(visible).forEach((i) => (on ? tasks.add(i) : tasks.delete(i)));
    choose({ tasks });
  };
  const everything = [...data.measures.keys()];
  const only = select(
    "only", [["", "choose a set"], ["first", "as at first"], ["main", "main metrics"], ...everyGroup.map((g, i) => [String(i), g])], "",
    (value) => {
      if (value === "") return;
      const tasks = value === "first" ? DEFAULT_TASKS : value === "main" ? MAIN_TASKS : everything.filter((i) => data.measures[i].groups.includes(everyGroup[value]));
      choose({ tasks: new Set(tasks) });
      only.querySelector("select").value = "";
    },
  );
  const list = el("div", { class: "choices" });
  for (const [name, indices] of groupsOfMeasures) {
    const set = el(
      "fieldset", {},
      el("legend", {}, said(name), " ", el("span", { class: "tools" },
        button("all", () => pick(indices, true), { "aria-label": `all of ${name}` }),
        button("none", () => pick(indices, false), { "aria-label": `none of ${name}` }))),
      indices.map((i) => {
        const box = el("input", { type: "checkbox", "data-m": i, change: () => pick([i], box.checked) });
        boxes.set(i, box);
        return el("label", { class: "tick" }, box, said(data.measures[i].label));
      }),
    );
    sets.set(set, indices);
    list.append(set);
  }
  function narrow() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    boxes.forEach((box, i) => {
      const m = data.measures[i];
      const text = [m.label, m.dataset, m.suite, m.metric, ...m.groups].join(" ").toLowerCase();
      box.parentNode.hidden = !words.every((w) => text.includes(w));
    });
    sets.forEach((indices, set) => (set.hidden = !indices.some(visible)));
  }
  const details = el(
    "details", { class: "card chooser" },
    el("summary", {}, "Choose tasks: ", summary),
    el("div", { class: "tools wide-tools" }, filter, button("all", () => pick(everything, true)), button("none", () => pick(everything, false)), only),
    list,
  );
  section.append(details);
  whenChanged(["tasks"], () => {
    boxes.forEach((box, i) => (box.checked = state.tasks.has(i)));
    summary.textContent = `${state.tasks.size} of ${data.measures.length} measures chosen`;
  });
}
