// What curation kept for each arm, and the way to the arm's own report. And the protocols, one line each.
function makeFunnels(section) {
  const arms = data.arms.map((a, i) => [a, i]).filter(([a]) => a.steps.length || a.report);
  const reports = arms.some(([a]) => a.report);
  section.append(el("p", { class: "lede" }, "What each arm's curation kept of its pool, filter by filter."), scrolling("Curation by arm", el("table", { class: "kept-by-arm" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "arm"), el("th", { scope: "col", class: "wide" }, "kept of the pool"), el("th", { scope: "col", class: "n" }, "kept"), el("th", { scope: "col", class: "n" }, "pool"), el("th", { scope: "col" }, "by filter"), reports ? el("th", { scope: "col" }, "report") : null)),
    el("tbody", {}, arms.map(([a, i]) => {
      const kept = a.steps.length ? a.steps.at(-1)[2] : null;
      return el("tr", {}, el("th", { scope: "row" }, named(i), a.description ? el("small", {}, said(a.description)) : null),
        el("td", { class: "wide" }, kept === null ? null : svg("svg", { class: "bar1", role: "img", "aria-label": `${reading(kept / a.pool, "percent")} % kept` }, svg("rect", { class: "track", width: "100%", height: "100%", rx: 3 }), svg("rect", { class: "kept", width: `${(100 * kept) / a.pool}%`, height: "100%", rx: 3 }))),
        el("td", { class: "n" }, count(kept), kept === null ? null : el("small", {}, `${reading(kept / a.pool, "percent")}${NARROW}%`)), el("td", { class: "n" }, count(a.pool)),
        el("td", { class: "by-filter" }, a.steps.length ? el("ul", {}, a.steps.map(([label, entered, left]) => el("li", {}, said(label), " ", el("span", { class: "faint" }, `${MINUS}${count(entered - left)}`)))) : NONE),
        reports ? el("td", {}, a.report ? el("a", { href: a.report }, "open") : NONE) : null);
    })))));
}

// One line per protocol, all its metrics in it: what one column needs equal, its neighbours mostly share.
function makeMeasures(section) {
  const protocols = new Map();
  for (const x of data.measures) {
    const key = JSON.stringify([x.dataset, x.suite, x.split, x.protocol, x.version, x.text_hash, x.digest]);
    if (!protocols.has(key)) protocols.set(key, []);
    protocols.get(key).push(x);
  }
  const short = (text) => el("td", { class: "code", title: text || null }, text ? said(text.slice(0, 10)) : NONE);
  const metric = (x) => el("li", { title: x.label }, x.main ? el("b", {}, broken(x.metric)) : broken(x.metric), x.chance === null ? null : el("small", {}, ` chance ${reading(x.chance, x.unit)}`));
  section.append(el("p", { class: "lede" }, "Numbers are in one column only if all of this is equal. Main metrics are bold."), scrolling("Protocols", el("table", { class: "protocols" },
    el("thead", {}, el("tr", {}, ["set", "suite", "metrics", "samples", "protocol", "templates", "version", "text", "set's digest"].map((t) => el("th", { scope: "col", class: t === "samples" ? "n" : null }, t)))),
    el("tbody", {}, [...protocols.values()].map((those) => {
      const [x] = [those.find((y) => y.main) ?? those[0]];
      return el("tr", {}, el("th", { scope: "row" }, broken(x.dataset || x.label), x.split ? el("small", {}, said(x.split)) : null), el("td", {}, broken(x.suite)),
        el("td", { class: "code metrics" }, el("ul", {}, those.map(metric))), el("td", { class: "n" }, count(x.n)), el("td", { class: "in-words" }, said(x.protocol)),
        el("td", { class: "in-words" }, x.templates.length ? el("ul", {}, x.templates.map((t) => el("li", {}, said(t)))) : NONE), el("td", {}, said(x.version)), short(x.text_hash), short(x.digest));
    })))));
}
