// What was retrieved for a query by two arms, the right ones marked.
function makeRetrieval(section) {
  const tools = el("div", { class: "picks" });
  const place = el("div", { class: "card answers", tabindex: 0, role: "group", "aria-label": "Query and what was retrieved; arrow keys turn to the next" });
  section.append(el("p", { class: "lede" }, "A query and the first items that each arm retrieved for it; ✓ marks what belongs to it. These are examples, not a sample to count."), tools, place);
  let queries = [];
  let at = 0;
  const turn = (by) => choose({ query: (at + by + queries.length) % queries.length });
  place.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by || event.target !== place) return;
    event.preventDefault();
    turn(by);
  });
  whenChanged(["retrieval", "query", "a", "b", "control"], () => {
    const sets = [...new Set(data.retrieved.map((r) => r.m))];
    const m = sets.find((s) => data.measures[s].name === state.retrieval) ?? sets[0];
    queries = data.retrieved.filter((r) => r.m === m);
    at = Math.min(state.query, queries.length - 1);
    const query = queries[at];
    const arms = [...new Set(queries.flatMap((r) => armsIn(r.hits)))];
    const two = pair(arms);
    tools.replaceChildren(
      select("set", sets.map((s) => [data.measures[s].name, measureLabel(s)]), data.measures[m].name, (v) => choose({ retrieval: v, query: 0 }), "pick-retrieval"),
      ...armPicks(arms, two, "retrieval"),
      el("span", { class: "tools" }, button("← before", () => turn(-1)), el("span", { class: "faint" }, `query ${at + 1} of ${queries.length}`), button("next →", () => turn(1))));
    place.replaceChildren(
      el("div", { class: "query" }, el("h3", {}, "Query"), query.picture === null ? null : picture(query.picture, `query ${query.key}`), query.text ? el("p", { class: "asked" }, said(query.text)) : null, el("p", { class: "fine" }, said(query.key)), belonging(query)),
      ...[...new Set([two.a, two.b])].map((arm, k) => retrievedBy(query, arm, "AB"[k])));
  });
}

// What should have been found, for a query whose answer nobody found.
const belonging = (query) => (query.answers.length ? el("div", { class: "belongs" }, el("h4", {}, "Belongs to it"),
  el("ul", {}, query.answers.map(([, text, shown]) => el("li", {}, shown === null ? null : picture(shown, "belongs to the query"), text ? el("span", {}, said(text)) : null)))) : null);

function retrievedBy(query, arm, letter) {
  const hits = query.hits[arm];
  const rank = query.rank[arm];
  return el("div", { class: "side" },
    el("h4", {}, dot(arm), `${letter} `, said(data.arms[arm].name), rank === undefined ? null : el("small", {}, ` first right one at rank ${count(rank)}`)),
    hits ? el("ol", { class: "hits" }, hits.map(([right, text, shown, score], i) => el("li", { class: right ? "right" : null },
      el("span", { class: "rank" }, right ? "✓" : String(i + 1), right ? el("span", { class: "sr" }, ` right, rank ${i + 1}`) : null),
      shown === null ? null : picture(shown, `retrieved at rank ${i + 1}${right ? ", right" : ""}`), text ? el("span", { class: "found" }, said(text)) : null,
      score === null ? null : el("span", { class: "faint n" }, plain(score))))) : el("p", { class: "faint" }, "not stored"));
}
