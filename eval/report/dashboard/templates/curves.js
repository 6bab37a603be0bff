// Learning and scaling curves: a measure against samples seen, one line per arm (and seed).
const curveName = (c) => `${c.kind}: ${c.label}`;

function makeCurves(section) {
  const names = [...new Set(data.curves.map(curveName))];
  const hidden = new Set();
  const tools = el("div", { class: "picks" });
  const keys = el("div", { class: "keys", role: "group", "aria-label": "Arms shown in the plot" });
  const place = el("div", { class: "plot-place" });
  section.append(el("p", { class: "lede" }, "How a measure grew. Lines of one arm are its seeds; a key shows and hides its arm."), tools, el("div", { class: "card" }, keys, place));
  const light = (arm) => {
    place.classList.toggle("dim", arm !== null);
    all(".curve", place).forEach((line) => line.classList.toggle("lit", line.dataset.arm === String(arm)));
  };
  const draw = () => {
    const name = names.includes(state.curve) ? state.curve : names[0];
    const lines = data.curves.filter((c) => curveName(c) === name);
    const arms = [...new Set(lines.map((c) => c.arm))].sort((a, b) => a - b);
    tools.replaceChildren(select("curve", names.map((n) => [n, n]), name, (v) => choose({ curve: v }), "pick-curve"), toggle("log", state.curvelog, (on) => choose({ curvelog: on }), "log-curve"));
    keys.replaceChildren(...arms.map((arm) => el("button", { type: "button", "aria-pressed": String(!hidden.has(arm)), click: () => {
      if (!hidden.delete(arm)) hidden.add(arm);
      draw();
      keys.children[arms.indexOf(arm)].focus();
    }, pointerenter: () => light(arm), focus: () => light(arm), pointerleave: () => light(null), blur: () => light(null) }, lineKey(arm), said(data.arms[arm].name))));
    if (arms.length > 2) {
      const none = lines.every((c) => hidden.has(c.arm));
      tools.append(button(none ? "all arms" : "no arm", () => {
        arms.forEach((arm) => (none ? hidden.delete(arm) : hidden.add(arm)));
        draw();
      }));
    }
    drawCurves(place, lines.filter((c) => !hidden.has(c.arm)), name);
  };
  whenChanged(["curve", "curvelog", "control"], draw);
  drawnIn(place, draw);
}

const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const dashed = (arm) => DASHES[Math.floor(arm / COLOURS) % DASHES.length];
const lineKey = (arm) => svg("svg", { width: 22, height: 12, "aria-hidden": "true", class: colour(arm) }, svg("line", { class: "curve", x2: 22, y1: 6, y2: 6, "stroke-dasharray": dashed(arm) }));

function drawCurves(place, lines, name) {
  const points = lines.flatMap((c) => c.x.map((x, i) => [x, c.y[i]]).filter(([x, y]) => y !== null && (!state.curvelog || x > 0)));
  if (!points.length) {
    place.replaceChildren(el("p", { class: "faint" }, "No arm is shown."));
    return;
  }
  const [{ unit, x_label: across, label }] = lines;
  const f = frame(place, points.map((p) => p[0]), points.map((p) => p[1]), { xlog: state.curvelog, yunit: unit, xtitle: across, ytitle: unitTitle(label, unit), says: `${name}, ${lines.length} lines`, height: 380 });
  for (const c of lines) {
    let path = "";
    let open = false;
    c.x.forEach((x, i) => {
      if (c.y[i] === null || (state.curvelog && x <= 0)) {
        open = false;
        return;
      }
      path += `${open ? "L" : "M"}${f.x.at(x).toFixed(1)} ${f.y.at(c.y[i]).toFixed(1)}`;
      open = true;
    });
    f.inside.append(svg("path", { class: `curve ${colour(c.arm)}`, "data-arm": c.arm, d: path, "stroke-dasharray": dashed(c.arm) }, svg("title", {}, `${data.arms[c.arm].name}${c.seed ? `, seed ${c.seed}` : ""}`)));
  }
  place.replaceChildren(f.node);
}
