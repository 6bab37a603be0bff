// Columns of the leaderboard and axes of the scatter plot: what they are of a row, and against the control.
// A row is an arm, all seeds together, or one seed of it: {arm, seeds: places, label}.
const chosen = () => [...state.tasks].sort((a, b) => a - b);
const armRow = (arm) => ({ arm, seeds: data.arms[arm].seeds.map((_, i) => i), seed: null });

function rows() {
  return data.arms.flatMap((arm, i) =>
    state.rows === "seeds" ? arm.seeds.map((name, s) => ({ arm: i, seeds: [s], seed: name })) : [armRow(i)],
  );
}
const rowName = (row) => data.arms[row.arm].name + (row.seed === null ? "" : ` · seed ${row.seed}`);
const SEEDS_KIND = "Student's t over seeds";

// The same column, each of its values worked out once per row.
function remembered(column) {
  const [values, differences] = [new Map(), new Map()];
  const once = (known, key, make) => {
    if (!known.has(key)) known.set(key, make());
    return known.get(key);
  };
  return {
    ...column,
    of: (row) => once(values, row, () => column.of(row)),
    versus: (row, control) => once(once(differences, control, () => new Map()), row, () => column.versus(row, control)),
  };
}

// One measure of one row.
function score(row, m) {
  const found = data.arms[row.arm].scores[m];
  if (!found) return null;
  const [values, span, spans = [], verdicts = [], rank = null] = found;
  const there = row.seeds.filter((s) => values[s] !== null);
  if (!there.length) return null;
  const made = overSeeds(there.map((s) => values[s]));
  const given = row.seed === null && span ? span : there.length === 1 && spans.length ? spans[there[0]] : null;
  const told = { seeds: there.length, verdicts: row.seeds.map((s) => verdicts[s]).filter(Boolean), rank: row.seed === null ? rank : null };
  if (given) return { value: made.value, low: given[0], high: given[1], kind: data.kinds[given[2]], ...told };
  return { ...made, kind: made.low === null ? "" : SEEDS_KIND, ...told };
}

// Mean over measures, per seed; null where one of them is missing.
function meanBySeed(row, measures) {
  const scores = measures.map((m) => data.arms[row.arm].scores[m]);
  return row.seeds.map((s) => {
    const values = scores.map((found) => (found ? found[0][s] : null));
    return values.length && values.every((v) => v !== null) ? mean(values) : null;
  });
}

// Mean over measures; only where all of them are there, else it would be of other tasks than its neighbour's.
function meanScore(row, measures, needed = measures.length) {
  const scores = measures.map((m) => score(row, m));
  const there = scores.filter((s) => s !== null).length;
  if (there < needed || !there) return { value: null, low: null, high: null, there, needed };
  const whole = meanBySeed(row, measures).filter((v) => v !== null);
  const value = mean(scores.map((s) => s.value));
  const made = whole.length === row.seeds.length && whole.length > 1 ? overSeeds(whole) : { low: null, high: null };
  return { low: made.low, high: made.high, value, there, needed, seeds: whole.length, kind: made.low === null ? "" : SEEDS_KIND };
}

// Row minus control on the mean of some measures, paired by seed.
function paired(row, control, measures) {
  if (row.arm === control.arm) return null;
  const names = data.arms[row.arm].seeds;
  const others = data.arms[control.arm].seeds;
  const [mine, theirs] = [meanBySeed(row, measures), meanBySeed(control, measures)];
  const pairs = row.seeds.flatMap((s, i) => {
    const j = others.indexOf(names[s]);
    return j >= 0 && mine[i] !== null && theirs[j] !== null ? [mine[i] - theirs[j]] : [];
  });
  if (!pairs.length) return null;
  return { ...overSeeds(pairs), single: pairs.length === 1, kind: `paired by seed, ${pairs.length} ${pairs.length === 1 ? "pair" : "pairs"}` };
}

// What was tested where the runs were compared, if it was; else by seeds, here.
function difference(row, control, m) {
  const tested = data.differences[m];
  if (tested && row.seed === null && row.arm !== control.arm) {
    const [there, back] = [tested[`${row.arm},${control.arm}`], tested[`${control.arm},${row.arm}`]];
    const [sign, found] = there ? [1, there] : [-1, back];
    if (found) {
      const [value, low, high, p, holm, kind, samples, both, wins, losses, detectable] = found;
      const turned = (ends) => (ends ? ends.map((v) => sign * v).sort((a, b) => a - b) : null);
      const ends = low === null ? [null, null] : turned([low, high]);
      const [mine, theirs] = sign > 0 ? [wins, losses] : [losses, wins];
      return { value: sign * value, low: ends[0], high: ends[1], p, holm, kind: data.kinds[kind],
        samples: turned(samples), both: turned(both), wins: mine, losses: theirs, detectable };
    }
  }
  return paired(row, control, [m]);
}

// Only measures in percent where more is better can be averaged; the others are told apart, not mixed in.
const averaged = (measures) => measures.filter((m) => data.measures[m].unit === "percent" && data.measures[m].higher_is_better);

function measureColumn(m) {
  const measure = data.measures[m];
  return {
    key: `m:${measure.name}`, m, label: measure.label, group: measure.groups[0], unit: measure.unit,
    higher: measure.higher_is_better, chance: measure.chance,
    of: (row) => score(row, m),
    versus: (row, control) => difference(row, control, m),
  };
}

function aggregateColumn(aggregate) {
  return {
    key: `agg:${aggregate.name}`, aggregate, label: aggregate.name, group: "Named means", unit: "percent", higher: true, chance: null,
    of: (row) => meanScore(row, aggregate.measures, aggregate.needed),
    versus: (row, control) => (meanScore(row, aggregate.measures, aggregate.needed).value === null ? null : paired(row, control, aggregate.measures)),
  };
}

function factColumn(fact, i) {
  return {
    key: `fact:${fact.name}`, fact, label: fact.label, group: "Facts", unit: fact.unit, higher: true, chance: null,
    of: (row) => {
      const value = data.arms[row.arm].facts[i];
      return value === null ? null : { value, low: null, high: null, kind: "" };
    },
    versus: () => null,
  };
}

const sameOverall = (measures) => data.overall !== null && data.overall.measures.length === measures.length && data.overall.measures.every((m, i) => m === measures[i]);

// The columns that depend on the choice; ranks are among the rows that have all of it.
function chosenColumns(shown) {
  const measures = chosen();
  const counted = averaged(measures);
  const values = measures.map((m) => shown.map((row) => score(row, m)?.value ?? null));
  const complete = shown.map((_, i) => values.length > 0 && values.every((v) => v[i] !== null));
  const byTask = (rule) => values.map((v, k) => rule(v.map((x, i) => (complete[i] ? x : null)), data.measures[measures[k]].higher_is_better));
  const over = (table, i) => (complete[i] ? mean(table.map((v) => v[i])) : null);
  const rankTable = byTask(ranks);
  const winTable = byTask(wins);
  const place = new Map(shown.map((row, i) => [row, i]));
  const told = (table) => (row) => {
    const value = place.has(row) && table.length ? over(table, place.get(row)) : null;
    const there = values.filter((v) => place.has(row) && v[place.get(row)] !== null).length;
    return { value: Number.isNaN(value) ? null : value, low: null, high: null, there, needed: measures.length, kind: "" };
  };
  // the interval that was worked out where the runs were compared, if it is of this very number
  const meanRank = (row) => {
    const found = told(rankTable)(row);
    const known = row.seed === null && sameOverall(measures) ? data.overall.ranks[row.arm] : null;
    if (!known || found.value === null || Math.abs(known[0] - found.value) > 1e-3) return found;
    return { ...found, low: known[1], high: known[2], kind: known[1] === null ? "" : "bootstrap, other tasks of this kind" };
  };
  const left = measures.length - counted.length;
  const tasks = `${counted.length} chosen ${counted.length === 1 ? "measure" : "measures"}${left ? `, ${left} left out: other units` : ""}`;
  return [
    { key: "mean", label: "mean", group: "Chosen", unit: "percent", higher: true, chance: null, tasks,
      of: (row) => meanScore(row, counted), versus: (row, control) => paired(row, control, counted) },
    { key: "rank", label: "mean rank", group: "Chosen", unit: "rank", higher: false, chance: null, tasks: `${measures.length} chosen`,
      of: meanRank, versus: () => null },
    { key: "win", label: "win rate", group: "Chosen", unit: "percent", higher: true, chance: null, tasks: `${measures.length} chosen`,
      of: told(winTable), versus: () => null },
  ];
}

// Places by one column, 1 = best. Rows that are not told apart from the first of them share a place: {from, to}.
function places(column, sorted) {
  const there = sorted.filter((row) => column.of(row)?.value !== null && column.of(row) !== null);
  const found = new Map();
  for (let i = 0; i < there.length; ) {
    let j = i + 1;
    while (j < there.length) {
      const apart = column.versus(there[j], there[i]);
      // one pair has no test, so places are only an order; several that agree have seen no spread, which is no difference
      const unsure = apart ? (apart.low === null ? !apart.single : !excludesZero(apart)) : column.of(there[j]).value === column.of(there[i]).value;
      if (!unsure) break;
      j += 1;
    }
    for (let k = i; k < j; k += 1) found.set(there[k], { from: i + 1, to: j });
    i = j;
  }
  return found;
}
