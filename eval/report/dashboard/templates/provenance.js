// Where a number comes from: shown beside it for the mouse and for the keyboard.
const hint = byId("provenance");

function measureFacts(m) {
  const x = data.measures[m];
  return [
    ["set", [x.dataset, x.split].filter(Boolean).join(", ")], ["suite", x.suite], ["metric", x.metric],
    ["protocol", x.protocol], ["version", x.version], ["templates' hash", x.text_hash.slice(0, 12)],
    ["set's digest", x.digest.slice(0, 12)], ["test samples", x.n === null ? "" : count(x.n)],
    ["chance", x.chance === null ? "" : withUnit(x.chance, x.unit)],
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
      if (nearChance(column, cell)) told.push(["note", "not told apart from chance"]);
    } else if (cell && cell.needed !== undefined) {
      told.push([column.label, `${cell.needed} needed, ${cell.there} there`]);
    } else {
      told.push([column.label, "not measured"]);
    }
    const apart = control && row.arm !== control.arm ? column.versus(row, control) : null;
    if (apart) {
      told.push([`against ${data.arms[control.arm].name}`, `${change(apart.value, column.unit)} ${changes(apart.low, apart.high, column.unit)}`]);
      told.push(["test", apart.kind]);
      if (apart.p !== undefined && apart.p !== null) told.push(["p, after Holm", `${pValue(apart.p)}, ${pValue(apart.holm)}`]);
    }
  } else {
    told.push(["column", column.label]);
  }
  if (column.m !== undefined) told.push(...measureFacts(column.m));
  if (column.tasks) told.push(["over", column.tasks]);
  if (column.aggregate) told.push(["mean of", `${column.aggregate.needed} measures`], ["what", column.aggregate.description]);
  return told.filter(([, text]) => text !== "" && text !== null && text !== undefined);
}

const nearChance = (column, cell) =>
  cell && cell.low !== null && column.chance !== null && column.m !== undefined && cell.low <= column.chance && cell.high >= column.chance;

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
