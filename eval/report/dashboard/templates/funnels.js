// What curation kept for each arm, and the way to the arm's own report. And the protocols, one line each.
function makeFunnels(section) {
  const arms = data.arms.map((a, i) => [a, i]).filter(([a]) => a.steps.length || a.report);
  const reports = arms.some(([a]) => a.report);
  section.append(el("p", { class: "lede" }, "What each arm's curation kept of its pool, filter by filter."), scrolling("Curation by arm", el("table", { class: "kept-by-arm" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "arm"), el("th", { scope: "col", class: "wide" }, "kept of the pool"), el("th", { scope: "col", class: "n" }, "kept"), el("th", { scope: "col", class: "n" }, "pool"), el("th", { scope: "col" }, "by filter"), reports ? el("th", { scope: "col" }, "report") : null)),
    el("tbody", {}, arms.map(([a, i]) => {
      const kept = a.steps.length ? a.steps.at(-1)[2] : null;
      return el("tr", {}, el("th", { scope: "row" }, dot(i), said(a.name), a.description ? el("small", {}, said(a.description)) : null),
        el("td", { class: "wide" }, kept === null ? null : svg("svg", { class: "bar1", role: "img", "aria-label": `${reading(kept / a.pool, "percent")} % kept` }, svg("rect", { class: "track", width: "100%", height: "100%", rx: 3 }), svg("rect", { class: "kept", width: `${(100 * kept) / a.pool}%`, height: "100%", rx: 3 }))),
        el("td", { class: "n" }, count(kept), kept === null ? null : el("small", {}, `${reading(kept / a.pool, "percent")}${NARROW}%`)), el("td", { class: "n" }, count(a.pool)),
        el("td", { class: "by-filter" }, a.steps.length ? el("ul", {}, a.steps.map(([label, entered, left]) => el("li", {}, said(label), " ", el("span", { class: "faint" }, `${MINUS}${count(entered - left)}`)))) : NONE),
        reports ? el("td", {}, a.report ? el("a", { href: a.report }, "open") : NONE) : null);
    })))));
}

function makeMeasures(section) {
  section.append(el("p", { class: "lede" }, "Numbers are in one column only if all of this is equal."), scrolling("Protocols", el("table", { class: "protocols" },
    el("thead", {}, el("tr", {}, ["measure", "suite", "metric", "samples", "chance", "protocol", "version", "text", "set"].map((t, i) => el("th", { scope: "col", class: i === 3 || i === 4 ? "n" : null }, t)))),
    el("tbody", {}, data.measures.map((x) => el("tr", {}, el("th", { scope: "row" }, said(x.label)), el("td", {}, said(x.suite)), el("td", { class: "code" }, said(x.metric)), el("td", { class: "n" }, count(x.n)), el("td", { class: "n" }, reading(x.chance, x.unit)),
      el("td", { class: "in-words" }, said(x.protocol)), el("td", {}, said(x.version)), el("td", { class: "code", title: x.text_hash }, said(x.text_hash.slice(0, 10))), el("td", { class: "code", title: x.digest }, said(x.digest.slice(0, 10)))))))));
}
