// Axes and frames of the plots, drawn in SVG at the size they are shown; colours come from the style sheet.
function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * (1 - 1e-9));
}

// A scale over [low, high] onto [from, to] pixels, with ticks; log only over positive numbers.
function makeScale(values, log, from, to, most) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const place = log ? Math.log10 : (v) => v;
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - (Math.abs(low) * 0.1 || 0.01), high + (Math.abs(high) * 0.1 || 0.01)];
  const room = 0.06 * (place(high) - place(low));
  const [a, b] = [place(low) - room, place(high) + room];
  const at = (v) => from + ((place(v) - a) / (b - a)) * (to - from);
  return { at, ticks: log ? logTicks(a, b, most) : linearTicks(a, b, most), back: (px) => (log ? 10 ** (a + ((px - from) / (to - from)) * (b - a)) : a + ((px - from) / (to - from)) * (b - a)) };
}

function linearTicks(a, b, most) {
  const step = niceStep((b - a) / most);
  const ticks = [];
  for (let i = Math.ceil(a / step - 1e-9); i * step <= b + 1e-12; i += 1) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(a, b, most) {
  const [first, last] = [Math.ceil(a - 1e-9), Math.floor(b + 1e-9)];
  if (last - first >= 2) {
    const every = Math.max(1, Math.ceil((last - first) / most));
    return Array.from({ length: last - first + 1 }, (_, i) => first + i).filter((e) => e % every === 0).map((e) => 10 ** e);
  }
  const ticks = [];
  for (let e = Math.floor(a); e <= last + 1; e += 1) for (const m of b - a < 0.8 ? [1, 1.5, 2, 3, 4, 5, 7] : [1, 2, 5]) if (Math.log10(m * 10 ** e) >= a && Math.log10(m * 10 ** e) <= b) ticks.push(m * 10 ** e);
  return ticks.length > 1 ? ticks : linearTicks(10 ** a, 10 ** b, most).filter((t) => t > 0);
}

const axisText = (v, unit) => (unit === "percent" ? `${Number((100 * v).toPrecision(4))}`.replace("-", MINUS) : brief(v));

// The frame of a plot: grid, ticks, titles. Returns {node, x, y, inside}.
function frame(box, xs, ys, { xlog = false, ylog = false, xunit = "", yunit = "", xtitle = "", ytitle = "", height = 440, says = "" }) {
  const width = Math.max(260, box.clientWidth);
  const [left, right, top, bottom] = [52, 14, 14, 46];
  const x = makeScale(xs, xlog, left, width - right, Math.max(3, Math.floor(width / 110)));
  const y = makeScale(ys, ylog, height - bottom, top, 6);
  const inside = svg("g");
  const node = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, class: "drawn", role: "group", "aria-label": says },
    y.ticks.map((t) => svg("line", { class: "grid", x1: left, x2: width - right, y1: y.at(t), y2: y.at(t) })),
    svg("line", { class: "base", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    x.ticks.map((t) => svg("line", { class: "base", x1: x.at(t), x2: x.at(t), y1: height - bottom, y2: height - bottom + 4 })),
    x.ticks.map((t) => svg("text", { class: "tick", x: x.at(t), y: height - bottom + 18, "text-anchor": "middle" }, axisText(t, xunit))),
    y.ticks.map((t) => svg("text", { class: "tick", x: left - 8, y: y.at(t) + 4, "text-anchor": "end" }, axisText(t, yunit))),
    svg("text", { class: "title", x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, xtitle),
    svg("text", { class: "title", transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, ytitle),
    inside);
  return { node, x, y, inside, width, height, left, right, top, bottom };
}

const unitTitle = (label, unit) => (unit === "percent" ? `${label} (%)` : unit ? `${label} (${unit})` : label);

// Draws again when the place it stands in changes its width.
function drawnIn(box, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth && Math.abs(box.clientWidth - width) > 1) {
      width = box.clientWidth;
      draw();
    }
  }).observe(box);
}

// Seven shapes go with the seven colours, so that neither alone has to be read.
const SHAPES = [
  "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0", "M-4.5 -4.5h9v9h-9z", "M0 -6l5.5 10h-11z", "M0 -6.3l6.3 6.3l-6.3 6.3l-6.3 -6.3z",
  "M0 6l5.5 -10h-11z", "M-1.8 -6h3.6v4.2h4.2v3.6h-4.2v4.2h-3.6v-4.2h-4.2v-3.6h4.2z", "M0 -6l6 4.4l-2.3 7h-7.4l-2.3 -7z",
];
const marker = (arm) => svg("path", { class: "marker", d: arm === data.control ? "M-5.5 -1.6h11v3.2h-11z" : SHAPES[(shade(arm) + Math.floor(arm / COLOURS)) % COLOURS] });
