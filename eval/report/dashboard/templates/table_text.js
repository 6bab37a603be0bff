// The leaderboard as CSV and Markdown: what is shown, to take away.
function tableCells({ columns, rows: shown, controls }) {
  const percent = (x) => (x === null || x === undefined ? "" : String(Number(x.toPrecision(8))));
  const head = ["arm", ...(state.rows === "seeds" ? ["seed"] : []), ...columns.flatMap((c) => [c.label, `${c.label} low`, `${c.label} high`])];
  const lines = shown.map((row) => [
    data.arms[row.arm].name,
    ...(state.rows === "seeds" ? [row.seed] : []),
    ...columns.flatMap((c) => {
      const cell = state.view === "differences" && !["rank", "win"].includes(c.key) ? (c.of(row)?.value == null ? null : c.versus(row, controls.get(row))) : c.of(row);
      return [percent(cell?.value), percent(cell?.low), percent(cell?.high)];
    }),
  ]);
  return [head, ...lines];
}

// A text that a spreadsheet would run as a formula is made a text; numbers are ours.
const csvCell = (text, number) => {
  const safe = !number && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
const asCsv = (cells) => cells.map((line, i) => line.map((t, j) => csvCell(t, i > 0 && j > 0)).join(",")).join("\n") + "\n";

function asMarkdown({ columns, rows: shown, controls }) {
  const safe = (text) => text.replace(/[\\`*_[\]<>|&]/g, (c) => `\\${c}`);
  const line = (cells) => `| ${cells.join(" | ")} |`;
  const cellText = (c, row) => {
    const differs = state.view === "differences" && !["rank", "win"].includes(c.key);
    const cell = differs ? c.versus(row, controls.get(row)) : c.of(row);
    if (!cell || cell.value === null) return NONE;
    return differs ? `${change(cell.value, c.unit)} ${changes(cell.low, cell.high, c.unit)}`.trim() : `${reading(cell.value, c.unit)} ${interval(cell.low, cell.high, c.unit)}`.trim();
  };
  return [
    line(["arm", ...columns.map((c) => safe(c.label))]),
    line(["---", ...columns.map(() => "---:")]),
    ...shown.map((row) => line([safe(rowName(row)), ...columns.map((c) => cellText(c, row))])),
    "",
  ].join("\n");
}

function tableTools(current) {
  const text = el("textarea", { rows: 8, readonly: true, spellcheck: "false", "aria-label": "The table as text" });
  const show = (made) => () => {
    text.value = made(current());
    text.focus();
    text.select();
  };
  const csv = (b) => asCsv(tableCells(b));
  return el("div", { class: "take" },
    el("div", { class: "tools" },
      button("Download CSV", () => download("leaderboard.csv", "text/csv", csv(current()))),
      button("Download Markdown", () => download("leaderboard.md", "text/markdown", asMarkdown(current())))),
    el("details", {}, el("summary", {}, "Table as text"),
      el("div", { class: "tools" }, button("CSV", show(csv)), button("Markdown", show(asMarkdown))), text));
}
