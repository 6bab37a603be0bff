// The page's behaviour: theme, tabs, sortable tables, section links, and plots drawn when they come into view.
"use strict";
(() => {
  const root = document.documentElement;
  const darkSystem = matchMedia("(prefers-color-scheme: dark)");
  const print = matchMedia("print");
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

  // --- plots -------------------------------------------------------------------------------------------------
  const source = document.getElementById("figures");
  const { figures, template } = source ? JSON.parse(source.textContent) : { figures: {}, template: {} };
  const drawn = new Map(); // div -> the width it was drawn at
  const probe = document.createElement("i");
  probe.hidden = true;
  document.body.append(probe);

  // Colours are written as var(--name) in the figures; plotly wants them as numbers.
  function themed(value, known) {
    if (typeof value === "string") {
      if (!/^var\(--[a-z0-9-]+\)$/.test(value)) return value;
      if (!known.has(value)) {
        probe.style.color = value;
        known.set(value, getComputedStyle(probe).color);
      }
      return known.get(value);
    }
    if (Array.isArray(value)) return value.map((item) => themed(item, known));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, known)]));
    }
    return value;
  }

  // Draws a plot, or draws it again; one that is hidden now is drawn when it comes into view.
  function draw(div) {
    const width = div.clientWidth;
    if (!window.Plotly || !width) {
      drawn.delete(div);
      return;
    }
    const known = new Map();
    const { data, layout } = themed(figures[div.id], known);
    for (const key of all(`[data-plot="${div.id}"][aria-pressed=false]`)) {
      key.dataset.traces.split(",").forEach((i) => (data[i].visible = false));
    }
    const fine = matchMedia("(pointer: fine)").matches;
    const look = { ...layout, template: themed(template, known), dragmode: fine ? "zoom" : false };
    const config = { displaylogo: false, displayModeBar: false, responsive: true, scrollZoom: false };
    window.Plotly.react(div, data, look, config);
    if (div._fullLayout.width !== width) window.Plotly.Plots.resize(div);
    drawn.set(div, width);
  }

  const redraw = () => [...drawn.keys()].forEach(draw);
  const inView = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting && drawn.get(target) !== target.clientWidth) draw(target);
      }
    },
    { rootMargin: "400px" },
  );
  for (const key of all("[data-plot]")) {
    key.addEventListener("click", () => {
      key.setAttribute("aria-pressed", String(key.getAttribute("aria-pressed") === "false"));
      draw(document.getElementById(key.dataset.plot));
    });
  }
  addEventListener("DOMContentLoaded", () => all(".plot").forEach((div) => inView.observe(div)));

  // --- theme -------------------------------------------------------------------------------------------------
  const button = document.querySelector("button.theme");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : darkSystem.matches);
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("curate-report-theme", root.dataset.theme);
    } catch (refused) {
      // not kept for next time
    }
    redraw();
  });
  darkSystem.addEventListener("change", redraw);

  // On paper everything is shown, in the light theme.
  const forPaper = () => {
    root.classList.toggle("paper", print.matches);
    all(".plot").forEach(draw);
  };
  print.addEventListener("change", forPaper);

  // --- tabs --------------------------------------------------------------------------------------------------
  for (const group of all("[data-tabs]")) {
    const tabs = all(":scope > [role=tablist] > [role=tab]", group);
    const panels = all(":scope > [role=tabpanel]", group);
    const select = (chosen, focus) => {
      tabs.forEach((tab, i) => {
        tab.setAttribute("aria-selected", String(i === chosen));
        tab.tabIndex = i === chosen ? 0 : -1;
        panels[i].classList.toggle("later", i !== chosen);
      });
      if (focus) tabs[chosen].focus();
      const strip = tabs[chosen].parentNode;
      if (strip.scrollWidth > strip.clientWidth) strip.scrollLeft = tabs[chosen].offsetLeft - strip.clientWidth / 3;
    };
    select(Number(group.dataset.tabs), false);
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => select(i, false));
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        select((to + tabs.length) % tabs.length, true);
      });
    });
  }

  // --- sortable tables ---------------------------------------------------------------------------------------
  const sortKey = (cell) => (cell.dataset.value === undefined ? NaN : parseFloat(cell.dataset.value));
  for (const table of all("table.sortable")) {
    for (const sorter of all("button.sort", table)) {
      const header = sorter.closest("th");
      sorter.addEventListener("click", () => {
        const first = header.classList.contains("n") ? "descending" : "ascending";
        const other = first === "descending" ? "ascending" : "descending";
        const order = header.getAttribute("aria-sort") === first ? other : first;
        all("th", header.parentNode).forEach((th) => th.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [sortKey(row.cells[header.cellIndex]), row]);
        rows.sort(([a], [b]) => (isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) : sign * (a - b)));
        body.append(...rows.map(([, row]) => row));
      });
    }
  }

  // --- section links: mark the one being read ------------------------------------------------------------------
  const links = new Map(all("nav a[href^='#']").map((a) => [a.hash.slice(1), a]));
  const reading = new IntersectionObserver(
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
  links.forEach((_, id) => reading.observe(document.getElementById(id)));
})();
