// Where a number comes from: shown beside it for the mouse and for the keyboard.
const hint = byId("provenance");

function measureFacts(m) {
  const x = data.measures[m];
  return [
    ["set", [x.dataset, x.split].filter(Boolean).join(", ")], ["suite", x.suite], ["metric", x.metric],
    ["protocol", x.protocol], ["version", x.version], ["templates' hash", x.text_hash.slice(0, 12)],
    ["set's digest", x.digest.slice(0, 12)], ["test samples", x.n === null ? "" : count(x.n)],
    ["chance", x.chance === null ? "" : withUnit(x.chance, x.unit)], ["note", x.note],
  ];
}

// Whether models can be told from guessing: the tests that were made, else the interval.
const nearChance = (column, cell) => {
  if (!cell || column.m === undefined || column.chance === null) return false;
  if (cell.verdicts && cell.verdicts.length) return cell.verdicts.every(([verdict]) => verdict === "like");
  return cell.low !== null && cell.low <= column.chance && cell.high >= column.chance;
};

function againstChance(column, cell) {
  if (!cell.verdicts || !cell.verdicts.length) return nearChance(column, cell) ? "its interval holds it" : "";
  const models = cell.verdicts.length;
  return ["above", "below", "like"].flatMap((which) => {
    const n = cell.verdicts.filter(([verdict]) => verdict === which).length;
    const words = which === "like" ? "not told apart" : which;
    return n ? [models > 1 ? `${n} of ${models} models ${words}` : `${words}, p ${pValue(cell.verdicts[0][1])}`] : [];
  }).join(", ");
}

function inRanks([rank, low, high, shared, of]) {
  const group = shared > 1 ? `${rank} of ${of}, shared by ${shared} that are not told apart` : `${rank} of ${of}`;
  return low === null ? group : `${group}; place 95${NARROW}% ${low}–${high}`;
}

// What else was tested of a difference: which chance it is about, and what could have been seen at all.
function behindDifference(apart, unit) {
  const points = (x) => (unit === "percent" ? `${(100 * x).toFixed(1)} points` : plain(x));
  const ends = (pair) => (pair ? changes(pair[0], pair[1], unit) : "");
  return [
    ["other images alone", ends(apart.samples)], ["other seeds and images", ends(apart.both)],
    ["only one was right", apart.wins === null || apart.wins === undefined ? "" : `${count(apart.wins)} times this arm, ${count(apart.losses)} times the control`],
    ["detectable", apart.detectable ? `from ${points(apart.detectable)} on, with 80${NARROW}% power` : ""],
  ];
}

// Terms and texts of one cell; [] = nothing to tell.
function provenance(column, row, control) {
  const told = [];
  if (row) {
    const cell = column.of(row);
    told.push(["arm", rowName(row)]);
    if (cell && cell.value !== null) {
      told.push([column.label, `${withUnit(cell.value, column.unit)} ${interval(cell.low, cell.high, column.unit)}`]);
      if (column.m !== undefined || column.tasks || column.aggregate) {
        told.push(["interval", cell.kind ? `95${NARROW}%, ${cell.kind}` : "none"]);
      }
      if (cell.seeds) told.push(["seeds", row.seed === null ? data.arms[row.arm].seeds.join(", ") : row.seed]);
      if (column.m !== undefined && column.chance !== null) told.push(["against chance", againstChance(column, cell)]);
      if (cell.rank) told.push(["rank", inRanks(cell.rank)]);
    } else if (cell && cell.needed !== undefined) {
      told.push([column.label, `${cell.needed} needed, ${cell.there} there`]);
    } else {
      told.push([column.label, "not measured"]);
    }
    const apart = control && row.arm !== control.arm ? column.versus(row, control) : null;
    if (apart) {
      told.push([`against ${data.arms[control.arm].name}`, `${change(apart.value, column.unit)} ${changes(apart.low, apart.high, column.unit)}`]);
      told.push(["test", apart.low === null ? `${apart.kind}: no interval` : apart.kind]);
      if (apart.p !== undefined && apart.p !== null) told.push(["p, after Holm", `${pValue(apart.p)}, ${pValue(apart.holm)}`]);
      told.push(...behindDifference(apart, column.unit));
    }
  } else {
    told.push(["column", column.label]);
  }
  const byItsLabel = ["suite", "metric"]; // said by the label above; a column's own hint has room for them
  if (column.m !== undefined) told.push(...measureFacts(column.m).filter(([term]) => !row || !byItsLabel.includes(term)));
  if (column.m !== undefined && !row) told.push(["templates", data.measures[column.m].templates.join("  ·  ")]);
  if (column.tasks) told.push(["over", column.tasks]);
  if (column.aggregate) told.push(["mean of", `${column.aggregate.needed} measures`], ["what", column.aggregate.description], ["not the published size", column.aggregate.altered.join(", ")]);
  return told.filter(([, text]) => text !== "" && text !== null && text !== undefined);
}

function showHint(target, told) {
  hint.replaceChildren(el("dl", {}, told.flatMap(([term, text]) => [el("dt", {}, said(term)), el("dd", {}, said(String(text)))])));
  hint.hidden = false;
  const place = target.getBoundingClientRect();
  const { offsetWidth: w, offsetHeight: h } = hint;
  const below = place.bottom + 8 + h < innerHeight || place.top < h + 8;
  hint.style.left = `${Math.max(8, Math.min(place.left, root.clientWidth - w - 8))}px`;
  hint.style.top = `${Math.max(8, Math.min(below ? place.bottom + 6 : place.top - h - 6, innerHeight - h - 8))}px`;
  target.setAttribute("aria-describedby", "provenance");
}

function hideHint() {
  hint.hidden = true;
  all("[aria-describedby=provenance]").forEach((e) => e.removeAttribute("aria-describedby"));
}

// `tell(target)` gives the terms for what is pointed at, or null.
function tellsWhere(box, selector, tell) {
  const show = (event) => {
    const target = event.target.closest(selector);
    const told = target && box.contains(target) ? tell(target) : null;
    if (told) showHint(target, told);
    else hideHint();
  };
  box.addEventListener("pointerover", show);
  box.addEventListener("focusin", show);
  box.addEventListener("pointerleave", hideHint);
  box.addEventListener("focusout", hideHint);
}
addEventListener("keydown", (event) => event.key === "Escape" && hideHint());
addEventListener("scroll", () => hint.hidden || document.activeElement?.matches("td, th *, .point") || hideHint(), { passive: true });
