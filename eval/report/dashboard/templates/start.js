// Puts the page together: sections, links, theme.
const MAKERS = {
  leaderboard: makeLeaderboard, scatter: makeScatter, curves: makeCurves, classes: makeClasses, confusions: makeConfusions,
  groups: makeGroups, retrieval: makeRetrieval, mistakes: makeMistakes, funnels: makeFunnels, measures: makeMeasures,
};

function goTo(id, smooth) {
  const section = byId(id);
  if (!section || !(id in MAKERS || id === "top")) return;
  section.scrollIntoView(smooth ? {} : { behavior: "instant" });
  if (!section.hasAttribute("tabindex")) section.tabIndex = -1;
  section.focus({ preventScroll: true });
}

const links = new Map(all(".bar nav a").map((a) => [a.hash.slice(1), a]));
for (const link of [...links.values(), ...all("a.brand")]) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const id = link.hash.slice(1);
    choose({ at: id === "top" ? "" : id });
    goTo(id, true);
  });
}
const inView = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((a) => a.removeAttribute("aria-current"));
      const link = links.get(entry.target.id);
      link.setAttribute("aria-current", "true");
      const strip = link.closest("nav");
      if (strip.scrollWidth > strip.clientWidth) strip.scrollLeft = link.offsetLeft - strip.clientWidth / 3;
    }
  },
  { rootMargin: "-20% 0px -70% 0px" },
);
links.values().next().value?.setAttribute("aria-current", "true");

const darkSystem = matchMedia("(prefers-color-scheme: dark)");
document.querySelector("button.theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : darkSystem.matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("curate-report-theme", root.dataset.theme);
  } catch (refused) {
    // not kept for next time
  }
});

readLink();
for (const id of links.keys()) MAKERS[id](byId(id));
drawAll();
links.forEach((_, id) => inView.observe(byId(id)));
if (state.at) goTo(state.at, false);
addEventListener("hashchange", () => {
  readLink();
  drawAll();
  if (state.at) goTo(state.at, false);
});
root.dataset.ready = String(Math.round(performance.now()));
