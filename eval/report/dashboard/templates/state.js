// What is chosen: kept in the link, so that a link shows the same page. What is as it was at first is left out of it.
const DEFAULT_TASKS = new Set(data.chosen);
const MAIN_TASKS = new Set(data.measures.flatMap((m, i) => (m.main ? [i] : [])));
const FIRST = {
  at: "", tasks: DEFAULT_TASKS, view: "values", rows: "arms", sort: "mean", order: "", control: data.control,
  aggregates: true, x: "", y: "mean", xlog: "", ylog: "", labels: true, a: -1, b: -1, curve: "", curvelog: false,
  classes: "", confusion: "", groups: "", retrieval: "", query: 0, mistakes: "", show: "all", page: 0,
};
const state = { ...FIRST };
const listeners = []; // [keys, draw]
const measureOf = new Map(data.measures.map((m, i) => [m.name, i]));
const armOf = new Map(data.arms.map((a, i) => [a.name, i]));
const ARMS = new Set(["control", "a", "b"]);
const NUMBERS = new Set(["query", "page"]);

const sameTasks = (a, b) => a.size === b.size && [...a].every((i) => b.has(i));
const listed = (indices) => [...indices].map((i) => encodeURIComponent(data.measures[i].name)).join(",");

function written() {
  const parts = [];
  for (const [key, value] of Object.entries(state)) {
    if (key === "tasks") {
      if (sameTasks(value, DEFAULT_TASKS)) continue;
      const out = new Set([...data.measures.keys()].filter((i) => !value.has(i)));
      parts.push(out.size < value.size ? `without=${listed(out)}` : `tasks=${listed(value)}`);
    } else if (value !== FIRST[key]) {
      const text = ARMS.has(key) ? (data.arms[value] ? data.arms[value].name : "") : String(value);
      parts.push(`${key}=${encodeURIComponent(text)}`);
    }
  }
  return parts.join("&");
}

const readable = (text) => {
  try {
    return decodeURIComponent(text);
  } catch (malformed) {
    return text;
  }
};

// Takes what it knows from the link and leaves the rest as it is at first.
function readLink() {
  Object.assign(state, FIRST, { tasks: new Set(DEFAULT_TASKS) });
  const link = location.hash.slice(1);
  if (link && !link.includes("=")) state.at = readable(link);
  for (const part of link.split("&")) {
    const cut = part.indexOf("=");
    if (cut < 0) continue;
    const [key, raw] = [part.slice(0, cut), part.slice(cut + 1)];
    if (key === "tasks" || key === "without") {
      const named = raw.split(",").map((t) => measureOf.get(readable(t))).filter((i) => i !== undefined);
      state.tasks = new Set(key === "tasks" ? named : [...data.measures.keys()].filter((i) => !named.includes(i)));
    } else if (ARMS.has(key)) {
      state[key] = armOf.get(readable(raw)) ?? FIRST[key];
    } else if (Object.hasOwn(FIRST, key)) {
      const text = readable(raw);
      const kind = typeof FIRST[key];
      state[key] = NUMBERS.has(key) ? Math.max(0, parseInt(text, 10) || 0) : kind === "boolean" ? text === "true" : text;
    }
  }
}

const whenChanged = (keys, draw) => listeners.push([keys, draw]);
const drawAll = () => listeners.forEach(([, draw]) => draw());

function choose(changed) {
  Object.assign(state, changed);
  try {
    history.replaceState(null, "", `#${written()}`);
  } catch (refused) {
    // the link is then not kept; the page works all the same
  }
  const keys = Object.keys(changed);
  listeners.forEach(([theirs, draw]) => theirs.some((k) => keys.includes(k)) && draw());
}
