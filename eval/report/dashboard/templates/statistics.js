// What is worked out anew for each choice of tasks: means over seeds with t-intervals, ranks, win rate, ties.
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

// Mean over seeds and Student's t-interval; none for one seed, nor for seeds that agree: a spread that was not seen is
// not a spread of 0.
function overSeeds(values) {
  const n = values.length;
  const centre = mean(values);
  if (n < 2) return { value: centre, low: null, high: null };
  const sd = Math.sqrt(values.reduce((a, v) => a + (v - centre) ** 2, 0) / (n - 1));
  if (sd < 1e-9) return { value: centre, low: null, high: null };
  const half = (data.t[Math.min(n - 1, data.t.length) - 1] * sd) / Math.sqrt(n);
  return { value: centre, low: centre - half, high: centre + half };
}

// Rank of each value, 1 = best; equal ones share the mean of their places; null stays null. Equal is what does not differ
// by more than the numbers of the page were rounded.
const ROUNDING = 1.5e-6;
function ranks(values, higher) {
  const sign = higher ? 1 : -1;
  return values.map((v) => {
    if (v === null) return null;
    let better = 0;
    let equal = 0;
    for (const other of values) {
      if (other === null) continue;
      if (Math.abs(other - v) <= ROUNDING * Math.max(1, Math.abs(v))) equal += 1;
      else if (sign * other > sign * v) better += 1;
    }
    return better + (equal + 1) / 2;
  });
}

// Share of the others that each value beats; a tie counts half.
function wins(values, higher) {
  const there = values.filter((v) => v !== null).length;
  return ranks(values, higher).map((rank) => (rank === null || there < 2 ? null : (there - rank) / (there - 1)));
}

const excludesZero = (d) => d !== null && d.low !== null && d.low !== undefined && (d.low > 0 || d.high < 0);
