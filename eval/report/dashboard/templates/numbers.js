// Numbers as people read them: 12,345 · 91.2 % · +12.8 · 1.28 G.
const MINUS = "\u2212";
const NARROW = "\u202f";
const NONE = "–";
const minus = (text) => text.replaceAll("-", MINUS);

const count = (n) => (n === null || n === undefined ? NONE : minus(n.toLocaleString("en-US")));

// Four significant digits, thousands apart.
function plain(x) {
  if (x === null || x === undefined) return NONE;
  if (Math.abs(x) >= 1e4 && Math.abs(x) < 1e15) return minus(Math.round(x).toLocaleString("en-US"));
  return minus(String(Number(x.toPrecision(4))));
}

// 1.28 G: for axes, where room is short.
function brief(x) {
  for (const [size, sign] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(x) >= size) return minus(`${Number((x / size).toPrecision(3))}${NARROW}${sign}`);
  }
  return minus(String(Number(x.toPrecision(3))));
}

// A value in its column's unit, without the unit's sign (the column says it).
const reading = (x, unit) => (x === null || x === undefined ? NONE : unit === "percent" ? minus((100 * x).toFixed(1)) : unit === "rank" ? x.toFixed(2) : plain(x));
const withUnit = (x, unit) => (x === null ? NONE : unit === "percent" ? `${reading(x, unit)}${NARROW}%` : [reading(x, unit), unit].filter(Boolean).join(" "));
const interval = (low, high, unit) => (low === null || low === undefined ? "" : `[${reading(low, unit)}, ${reading(high, unit)}]`);

function change(x, unit) {
  const text = unit === "percent" ? (100 * x).toFixed(1) : String(Number(x.toPrecision(3)));
  if (!Number(text)) return text.replace("-", "");
  return minus(x > 0 ? `+${text}` : text);
}
const changes = (low, high, unit) => (low === null || low === undefined ? "" : `[${change(low, unit)}, ${change(high, unit)}]`);
const pValue = (p) => (p === null || p === undefined ? NONE : p < 0.001 ? "< 0.001" : p.toFixed(3));
