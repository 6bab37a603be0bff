// Two arms beside each other: one choice for classes, groups and mistakes.
function pair(arms) {
  const there = [...arms].sort((a, b) => a - b);
  const usual = there.includes(state.control) ? state.control : there[0];
  const b = there.includes(state.b) ? state.b : usual;
  const a = there.includes(state.a) ? state.a : (bestArm(there.filter((i) => i !== b)) ?? b);
  return { a, b };
}

function bestArm(arms) {
  const value = (i) => meanScore(armRow(i), averaged(chosen())).value ?? -Infinity;
  return arms.length ? arms.reduce((best, i) => (value(i) > value(best) ? i : best)) : null;
}

const armPicks = (arms, { a, b }, id) => {
  if (arms.length < 2) return [];
  const options = [...arms].sort((x, y) => x - y).map((i) => [String(i), data.arms[i].name]);
  return [select("A", options, String(a), (v) => choose({ a: Number(v) }), `${id}-a`), select("B", options, String(b), (v) => choose({ b: Number(v) }), `${id}-b`)];
};

const armsIn = (table) => Object.keys(table).map(Number);
const measureLabel = (m) => data.measures[m].label;
const tablesBy = (tables, name) => tables.find((t) => name(t)) ?? tables[0];
