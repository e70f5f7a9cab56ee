"use strict";
// Without this script every number is there; it adds sorting, and copying a table as text.
const text = (cell) => cell.innerText.replace(/\s+/g, " ").trim();
const grid = (table) => [...table.tBodies[0].rows].map((row) => [...row.cells].map(text));
const heads = (table) => [...table.tHead.rows].at(-1).cells;
const groups = (table) => table.tHead.rows.length < 2 ? [] :
  [...table.tHead.rows[0].cells].map((cell) => [text(cell), cell.colSpan]);

// A header of its own for each column: that of its group, then its own.
function header(table) {
  const above = groups(table).flatMap(([name, span]) => Array(span).fill(name));
  return [...heads(table)].map(text).map((own, i) => (above[i] ? above[i] + ": " + own : own));
}

function csv(table) {
  const field = (t) => (/^[=+\-@]/.test(t) ? "'" + t : t);
  const line = (row) => row.map((t) => '"' + field(t).replaceAll('"', '""') + '"').join(",");
  return [header(table), ...grid(table)].map(line).join("\n");
}

function markdown(table) {
  const safe = (t) => t.replace(/[\\`*_{}[\]#|~!$<>&]/g, "\\$&");
  const line = (row) => "| " + row.map(safe).join(" | ") + " |";
  const rule = [...heads(table)].map((cell) => (cell.className.includes("text") ? ":--" : "--:"));
  return [line(header(table)), "| " + rule.join(" | ") + " |", ...grid(table).map(line)].join("\n");
}

const SIGNS = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "†": "$\\dagger$",
  "−": "$-$", "∞": "$\\infty$", "<": "\\textless{}", ">": "\\textgreater{}", "÷": "$\\div$", "≤": "$\\le$", "≥": "$\\ge$" };

function latex(table) {
  const safe = (t) => t.replace(/[&%$#_{}\\~^†−∞<>÷≤≥]/g, (c) => SIGNS[c] || "\\" + c);
  // a row that begins with [ or * would be read as an option of the line break before it
  const line = (row) => row.map(safe).join(" & ").replace(/^[[*]/, "{}$&") + " \\\\";
  const columns = [...heads(table)].map((cell) => (cell.className.includes("text") ? "l" : "r")).join("");
  const above = groups(table).map(([name, span]) => `\\multicolumn{${span}}{c}{${safe(name)}}`);
  let end = 0;
  const rule = ([name, span]) => { end += span; return name && `\\cmidrule(lr){${end - span + 1}-${end}}`; };
  const rules = groups(table).map(rule).join("");
  return ["% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering",
    `\\caption{${safe(table.dataset.caption)}}`, `\\label{tab:${table.dataset.name}}`,
    `\\begin{tabular}{${columns}}`, "\\toprule", ...(above.length ? [above.join(" & ") + " \\\\", rules] : []),
    line([...heads(table)].map(text)), "\\midrule", ...grid(table).map(line),
    "\\bottomrule", "\\end{tabular}", "\\end{table}"].join("\n");
}

// The first number of a cell; "8/255" is a number.
function value(cell) {
  const [over, under] = text(cell).replaceAll("−", "-").replaceAll(",", "").split("/");
  return parseFloat(over) / (parseFloat(under) || 1);
}

function sort(table, column) {
  const head = heads(table)[column];
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const words = head.className.includes("text");
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [a.cells[column], b.cells[column]];
    if (words) return sign * text(x).localeCompare(text(y), "en", { numeric: true });
    const [p, q] = [value(x), value(y)];
    return isNaN(p) || isNaN(q) ? isNaN(p) - isNaN(q) : sign * (p - q);
  });
  for (const each of heads(table)) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  table.tBodies[0].append(...rows);
}

async function copy(button, words) {
  const name = button.textContent;
  try {
    await navigator.clipboard.writeText(words);
    button.textContent = "copied";
  } catch {
    button.textContent = "not allowed here";
  }
  setTimeout(() => (button.textContent = name), 1500);
}

function makeButton(words, action) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...words);
  button.onclick = () => action(button);
  return button;
}

for (const table of document.querySelectorAll("table")) {
  const body = [...table.tBodies[0].rows];
  if (body.length > 2 && !body.some((row) => row.classList.contains("below"))) {
    [...heads(table)].forEach((head, column) => {
      const button = makeButton(head.childNodes, () => sort(table, column));
      button.title = "Sort by this column";
      head.append(button);
    });
  }
  const line = document.createElement("span");
  line.className = "copies";
  line.append("Copy as");
  for (const [name, write] of [["CSV", csv], ["Markdown", markdown], ["LaTeX", latex]]) {
    const button = makeButton([name], () => copy(button, write(table)));
    button.className = "copy";
    line.append(" ", button);
  }
  table.closest(".table").querySelector(".caption").prepend(line);
}

// A link to what stands in a closed part opens it.
function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();

// In a narrow window the contents are folded, and again when one was chosen.
const contents = document.querySelector(".contents");
const narrow = matchMedia("(max-width: 68rem)");
const fold = () => (contents.open = !narrow.matches);
narrow.addEventListener("change", fold);
contents.addEventListener("click", (event) => event.target.tagName === "A" && fold());
fold();
