"use strict";
// Without this script every number is there; it adds sorting, and copying a table as text.
const text = (cell) => cell.innerText.replace(/\s+/g, " ").trim();
const grid = (table) => [...table.rows].filter((row) => !row.classList.contains("groups"))
  .map((row) => [...row.cells].map(text));

function csv(table) {
  const field = (t) => (/^[=+\-@]/.test(t) ? "'" + t : t);
  return grid(table).map((row) => row.map((t) => '"' + field(t).replaceAll('"', '""') + '"').join(",")).join("\n");
}

function markdown(table) {
  const safe = (t) => t.replace(/[\\`*_{}[\]#|~!$<>]/g, "\\$&");
  const lines = grid(table).map((row) => "| " + row.map(safe).join(" | ") + " |");
  lines.splice(1, 0, "|" + [...table.rows].at(-1).innerHTML.match(/<t[hd]/g).map((_, i) => (i ? " --: |" : " :-- |")).join(""));
  return lines.join("\n");
}

function latex(table) {
  const signs = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
    "†": "$\\dagger$", "−": "$-$", "∞": "$\\infty$", "<": "\\textless{}", ">": "\\textgreater{}" };
  const safe = (t) => t.replace(/[&%$#_{}]/g, "\\$&").replace(/[\\~^†−∞<>](?![&%$#_{}])/g, (c) => signs[c]);
  const rows = grid(table).map((row) => row.map(safe).map((t) => (t.startsWith("[") ? "{}" + t : t)).join(" & ") + " \\\\");
  const columns = "l" + "r".repeat(grid(table)[0].length - 1);
  return ["% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering",
    "\\caption{" + safe(table.dataset.title) + "}", "\\label{tab:" + table.dataset.name + "}",
    "\\begin{tabular}{" + columns + "}", "\\toprule", rows[0], "\\midrule", ...rows.slice(1),
    "\\bottomrule", "\\end{tabular}", "\\end{table}"].join("\n");
}

function sort(table, column, button) {
  const down = button.getAttribute("aria-sort") === "ascending";
  const key = (row) => parseFloat(text(row.cells[column]).replace("−", "-").replaceAll(",", ""));
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y) || text(a.cells[column]).localeCompare(text(b.cells[column]));
    return down ? y - x : x - y;
  });
  for (const each of table.querySelectorAll("th[aria-sort]")) each.removeAttribute("aria-sort");
  button.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table")) {
  const body = [...table.tBodies[0].rows];
  if (body.length > 2 && !body.some((row) => row.classList.contains("below"))) {
    [...table.tHead.rows].at(-1).querySelectorAll("th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort by this column";
      button.append(...head.childNodes);
      button.onclick = () => sort(table, column, head);
      head.append(button);
    });
  }
  const files = table.closest(".table").querySelector(".files");
  const kinds = { CSV: csv, Markdown: markdown, LaTeX: latex };
  files.append(" Copy as");
  for (const [name, write] of Object.entries(kinds)) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = name;
    button.onclick = async () => {
      await navigator.clipboard.writeText(write(table));
      button.textContent = "copied";
      setTimeout(() => (button.textContent = name), 1500);
    };
    files.append(" ", button);
  }
}

// A link to what stands in a closed part opens it.
function open() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
}
addEventListener("hashchange", open);
open();
