"""Tables say what results.json says, in four formats."""

import csv
import io
import json
import re
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import pytest

import robustloss.reports
from robustloss.reports.drawing.album import write_text
from robustloss.reports.drawing.table import (
    Entry,
    Table,
    latex,
    latex_text,
    markdown,
    markdown_text,
    write_table,
)
from robustloss.reports.words import Estimate, duration, estimate, listed, percent, span
from robustloss.results.run import Run

EVIL = "<b>|a_b|</b> $x$ \\input{y} & 50 % #1 ~^ [l](u) `c` *d* !e"


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def summary(run: Run, metric: str) -> dict[tuple[str, str, float], dict]:
    return {
        (s["label"], "worst case, L∞" if s["attack"] == "worst_case" else s["attack_label"],
         s["eps"]): s
        for s in run.summary
        if s["metric"] == metric
    }  # fmt: skip


def test_error_csv_is_the_summary(run: Run, rendered: Path) -> None:
    known = summary(run, "error")
    rows = read(rendered / "report/tables/error-fgsm.csv")
    assert len(rows) == 3 * 3
    for row in rows:
        entry = known[row["label"], "FGSM", float(row["eps"])]
        assert float(row["error"]) == entry["mean"]
        assert float(row["low"]) == entry["low"]
        assert float(row["high"]) == entry["high"]
        assert int(row["n_seeds"]) == entry["n_seeds"] == (1 if row["label"] == "GM" else 2)
        assert row["interval"] == entry["interval"]


def test_error_of_an_attack_without_eps_0_starts_at_the_clean_pass(
    run: Run, rendered: Path
) -> None:
    known = summary(run, "error")
    rows = read(rendered / "report/tables/error-nothing.csv")
    clean = {row["label"]: float(row["error"]) for row in rows if float(row["eps"]) == 0}
    assert clean == {label: known[label, "none", 0.0]["mean"] for label in clean}
    assert len(clean) == 3


def test_display_is_the_csv_rounded(rendered: Path) -> None:
    rows = read(rendered / "report/tables/error-fgsm.csv")
    text = (rendered / "report/tables/error-fgsm.md").read_text(encoding="utf-8")
    tex = (rendered / "report/tables/error-fgsm.tex").read_text(encoding="utf-8")
    for row in rows:
        mean, low, high = (100 * float(row[k]) for k in ("error", "low", "high"))
        digits = 1 if mean >= 10 else 2
        first, *ends = (f"{value:.{digits}f}" for value in (mean, low, high))
        assert rf"{first} \[{', '.join(ends)}\]" in text
        under = re.escape(f"[{', '.join(ends)}]")  # the interval stands under its number
        assert re.search(rf" & {re.escape(first)}\b.*\n.*{under}", tex)


def test_marks_stand_where_a_flag_fires_and_only_there(run: Run, rendered: Path) -> None:
    flagged = {(f["label"], f["eps"]) for f in run.flags if f["attack_label"] == "FGSM"}
    rows = read(rendered / "report/tables/error-fgsm.csv")
    assert flagged
    assert {(r["label"], float(r["eps"])) for r in rows if r["marks"]} == flagged
    lines = (rendered / "report/tables/error-fgsm.md").read_text(encoding="utf-8").splitlines()
    by_label = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert by_label["softmax"].count("†1") == 2
    assert by_label["GM"].count("†") == 0
    assert any(line.startswith("†1 zero gradient: softmax") for line in lines)


def test_published_numbers_stand_beside_ours_and_are_named(rendered: Path) -> None:
    rows = read(rendered / "report/tables/error-fgsm.csv")
    published = {(r["label"], float(r["eps"])): r["published_error"] for r in rows}
    assert published["softmax", 0.1] == "0.2408"
    assert published["L-GM (alpha 1)", 0.3] == "0.8162"
    assert published["GM", 0.1] == ""
    text = (rendered / "report/tables/error-fgsm.md").read_text(encoding="utf-8")
    ours = next(line for line in text.splitlines() if line.startswith("| softmax |"))
    assert "| *published* | – | *0.68* | *24.08* | *84.87* |" in text
    assert text.index(ours) < text.index("| *published* |") < text.index("| difference |")
    assert text.count("CVPR 2018") == 1  # the source
    # another attack than FGSM has no published row
    other = (rendered / "report/tables/error-nothing.md").read_text(encoding="utf-8")
    assert "published" not in other.lower()


def test_detection_csv_is_the_summary(run: Run, rendered: Path) -> None:
    rows = read(rendered / "report/tables/detection-fgsm.csv")
    assert len(rows) == 3 * 2
    for metric in ("auroc_all", "auroc_successful", "tpr_at_1fpr", "undetected_success_at_5fpr"):
        known = summary(run, metric)
        for row in rows:
            entry = known[row["label"], "FGSM", float(row["eps"])]
            assert (float(row[metric]) if row[metric] else None) == entry["mean"]
    for row in rows:
        successes = [
            r["n_successful"]
            for r in run.rows
            if (r["label"], r["attack_label"], r["eps"])
            == (row["label"], "FGSM", float(row["eps"]))
        ]
        assert int(row["n_successful"]) == sum(successes)


def test_seed_csv_holds_every_row(run: Run, rendered: Path) -> None:
    rows = read(rendered / "report/tables/seeds.csv")
    assert len(rows) == len(run.rows)
    assert set(rows[0]) == set(run.rows[0])
    found = sorted((r["label"], r["seed"], r["attack_label"], r["eps"], r["error"]) for r in rows)
    known = sorted(
        (r["label"], str(r["seed"]), r["attack_label"], repr(r["eps"]), repr(r["error"]))
        for r in run.rows
    )
    assert found == known


def test_error_figure_has_the_numbers_of_the_table(run: Run, rendered: Path) -> None:
    known = summary(run, "error")
    rows = read(rendered / "report/figures/error-vs-eps.csv")
    for row in rows:
        eps = float(row["x"])
        attack = row["panel"] if eps else "none"
        assert float(row["y"]) == pytest.approx(100 * known[row["label"], attack, eps]["mean"])


def simple(text: str) -> Table:
    return Table("t", text, text, ["loss", text], [[Entry(text), Entry("1", "†1")]], [{"a": text}])


def test_markdown_keeps_hostile_text_in_its_cell() -> None:
    lines = markdown(simple(EVIL)).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 3
    for line in table:
        assert len(re.findall(r"(?<!\\)\|", line)) == 3
    assert not re.search(r"(?<!\\)[*`\[\]$]", markdown_text(EVIL))
    assert "<" not in markdown_text(EVIL)


def test_latex_text_has_no_live_command() -> None:
    tame = latex_text(EVIL)
    left = re.sub(r"\\(text[a-z]+\{\}|[&%$#_{}])", "", tame)
    assert not re.search(r"[\\&%$#_{}~^<>|]", left)
    assert tame.startswith(r"\textless{}b\textgreater{}\textbar{}a\_b")


def check_latex(text: str) -> int:
    """Check structure as LaTeX reads it, and return the number of columns."""
    bare = re.sub(r"(?m)^%.*\n", "", text)
    bare = re.sub(r"\\([\\{}&%])", lambda found: found[0] if found[1] == "\\" else "", bare)
    assert "%" not in bare
    depth = 0
    for brace in re.findall("[{}]", bare):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    open_ones = []
    for what, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", bare):
        if what == "begin":
            open_ones.append(name)
        else:
            assert open_ones.pop() == name
    assert not open_ones
    (columns,) = re.findall(r"(?m)^\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}$", bare)
    body = bare.split("\\toprule\n")[1].split("\\bottomrule")[0]
    rule = r"\\[a-z]+(\[1pt\])?|(\\cmidrule\(lr\)\{\d+-\d+\})+"
    rows = [row for row in body.splitlines() if not re.fullmatch(rule, row)]
    for row in rows:
        outer = re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}", "", row)
        assert outer.endswith(r" \\")
        assert outer.count("\\\\") == 1
        spanned = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", outer)]
        assert outer.count("&") + sum(spanned) - len(spanned) == len(columns) - 1
        assert not outer.startswith(("[", "*"))
    assert len(rows) > 1
    return len(columns)


def test_every_latex_table_of_a_run_holds_together(rendered: Path, strong_report: Path) -> None:
    files = [*rendered.glob("report/tables/*.tex"), *strong_report.glob("tables/*.tex")]
    assert len(files) > 30
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert check_latex(text) > 1
        assert re.sub(r"(?m)^%.*\n", "", text).isascii()  # no font lacks anything of ours
        assert rf"\label{{tab:{path.stem}}}" in text
        (caption,) = re.findall(r"\\caption\{(.*)\}", text)
        # The title alone; of the two tables to quote, what they rest on. The rest is a comment.
        assert len(caption) < (300 if path.stem in ("losses", "order") else 120)
        assert caption.endswith((".", "?"))
        assert "?." not in caption
        assert max(map(len, re.findall(r"(?m)^%.*", text))) <= 100


def test_the_result_in_latex_and_markdown_names_its_groups_and_what_it_rests_on(
    run: Run, rendered: Path, strong_report: Path
) -> None:
    text = (rendered / "report/tables/losses.tex").read_text(encoding="utf-8")
    above, rules, heads = text.split("\\toprule\n")[1].splitlines()[:3]
    columns = run.table().columns
    spans = [(group, len([*own])) for group, own in groupby(columns, lambda c: c.group)]
    said = re.findall(r"\\multicolumn\{(\d+)\}\{c(?:@\{\})?\}\{(.*?)\}(?= [&\\])", above)
    said = [(re.sub(r"\\(begin|end)\{tabular\}(\[b\]\{@\{\}c@\{\}\})?", "", words)
             .replace("\\\\", " "), int(span)) for span, words in said]  # fmt: skip
    assert said == [("", 1), *((latex_text(group), span) for group, span in spans)]
    ends = [2 + sum(span for _, span in spans[:i]) for i in range(len(spans) + 1)]
    assert rules == "".join(rf"\cmidrule(lr){{{a}-{b - 1}}}" for a, b in pairwise(ends))
    assert heads.startswith("loss & clean & ")
    (caption,) = re.findall(r"\\caption\{(.*)\}", text)
    assert caption == latex_text(
        f"Errors and detection. Data: mnist, {run.rows[0]['n']} test images. {run.table().caption}"
    )
    lines = (rendered / "report/tables/losses.md").read_text(encoding="utf-8").splitlines()
    assert "| error: clean | " in lines[2]
    assert "AUROC, all images, eps " in lines[2]
    strong = (strong_report / "tables/losses.tex").read_text(encoding="utf-8")
    assert re.search(r"\\multicolumn\{2\}\{c\}\{.*AUROC, all images", strong)


def test_a_table_with_wide_groups_is_as_wide_as_these() -> None:
    rows = [[Entry("softmax"), Entry("1"), Entry("2")]]
    narrow = Table("t", "t", "", ["loss", "a", "b"], rows, [], groups=[("", 1), ("short", 2)])
    assert r"\multicolumn{2}{c@{}}{short} \\" in latex(narrow)
    assert r"\begin{table}" in latex(narrow)
    wide = replace(narrow, groups=[("", 1), ("w" * 60, 2)])
    assert r"\begin{table*}" in latex(wide)
    for table in (narrow, wide):
        assert check_latex(latex(table)) == 3


def test_latex_of_hostile_text_is_balanced() -> None:
    text = latex(simple(EVIL))
    assert check_latex(text) == 2
    assert "% " + " ".join(EVIL.split()[:3]) in text  # as it is, in a comment
    cells = [[Entry("*x"), Entry("1")], [Entry("[y"), Entry("2")]]
    starred = Table("t", "t", "", ["[a", "b"], cells, [])
    rows = [row for row in latex(starred).splitlines() if row.endswith(r"\\")]
    assert rows == [r"{}[a & b \\", r"{}*x & 1 \\", r"{}[y & 2 \\"]


def intervals(count: int) -> Table:
    row = [Entry("softmax"), *[Entry("12.3 [11.1, 13.3]", "†1")] * count]
    texts = ("published", "–", *["9.87"] * (count - 1))
    theirs = [Entry(text, kind="published") for text in texts]
    heads = [f"eps {i / 255:.3f}" for i in range(count)]
    return Table("t", "Error", "How to read it.", ["loss", *heads], [row, theirs], [])


def test_a_latex_table_fits_its_column_or_stands_across_both() -> None:
    narrow, stacked, wide = (latex(intervals(count)) for count in (2, 4, 6))
    assert r"\begin{table}" in narrow
    assert r"softmax & 12.3 [11.1, 13.3]\textsuperscript{$\dagger$1} &" in narrow
    assert r"\begin{table}" in stacked
    assert r"softmax & 12.3\textsuperscript{$\dagger$1} &" in stacked
    assert r" & {\scriptsize [11.1, 13.3]} & {\scriptsize [11.1, 13.3]} &" in stacked
    assert r"\begin{table*}" in wide
    for text in (narrow, stacked, wide):
        check_latex(text)
        assert r"\textit{published} & \textit{--} & \textit{9.87}" in text
        assert r"\addlinespace" not in text  # it belongs to the row above it
        assert "\n% How to read it.\n" in text


def test_a_table_of_many_losses_fits_a_page() -> None:
    table = intervals(8)
    rows = [[Entry(f"loss {number}"), *table.rows[0][1:]] for number in range(23)]
    text = latex(replace(table, rows=rows))
    assert r"\begin{table*}" in text
    assert r"\scriptsize\setlength" in text
    assert text.count(r"\addlinespace[1pt]") == 22
    check_latex(text)
    assert r"\footnotesize\setlength" in latex(replace(table, rows=rows[:15]))


def test_no_face_of_a_table_holds_what_a_terminal_obeys(tmp_path: Path) -> None:
    text = "a\x1b[2J\x1b]0;x\x07\x00\x9b31m\u202eb\u2066\ud800 größer"
    texts = write_table(tmp_path, simple(text))
    write_text(tmp_path / "index.html", text)
    files = [path.read_text("utf-8") for path in tmp_path.iterdir()]
    assert len(files) == 4
    for found in (*texts.values(), *files):
        assert all(char.isprintable() or char == "\n" for char in found)
        assert "größer" in found


def test_csv_is_no_formula() -> None:
    from robustloss.reports.drawing.album import csv_text

    text = csv_text([{"label": "=1+2", "value": -0.1, "gap": float("nan"), "none": None}])
    assert text == "label,value,gap,none\n'=1+2,-0.1,,\n"


SIGNS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
BEFORE = (
    "",
    "\r",
    "\n",
    "\t",
    "\r\n",
    " ",
    "\x00",
    "\x0b",
    "\u2028",
    "\u200b",
    "\ufeff",
    "a;",
    "a; ",
)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("before", BEFORE)
def test_no_text_of_a_csv_file_is_a_formula_or_a_row(sign: str, before: str) -> None:
    from robustloss.reports.drawing.album import csv_text

    evil = f"{before}{sign}cmd|' /C calc'!A1"
    text = csv_text([{evil: evil, "n": -1, "x": -0.5, "many": [evil]}])
    assert len(re.split(r"[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text)) == 3  # as any reader
    for row in csv.reader(io.StringIO(text)):
        for field in re.split(";", row[0]):
            bare = re.sub(r"^[\s\u200b\ufeff]*", "", field)
            assert bare[:1] in ("'", "a"), field
    assert text.splitlines()[1].count(",-1,-0.5,") == 1  # numbers are left alone


def test_every_table_and_every_list_of_numbers_is_written_by_one_function() -> None:
    root = Path(robustloss.reports.__file__).parent
    users = [path.name for path in root.rglob("*.py") if re.search(r"\bcsv\.", path.read_text())]
    assert users == ["album.py"]


def make(mean: float, low: float | None, high: float | None, interval: str | None) -> Estimate:
    return Estimate(mean, low, high, 3, (), interval)


def test_words() -> None:
    seeds = make(0.2408, 0.2308, 0.2508, "t over seeds")
    wilson = make(0.2408, 0.2325, 0.2493, "Wilson over images")
    assert estimate(seeds, unit=100, digits=2) == "24.1 [23.1, 25.1]"
    assert estimate(wilson, unit=100, digits=2) == "24.1 [23.2, 24.9]"
    assert estimate(make(0.5, None, None, None)) == "0.500"
    assert estimate(None) == "n/a"
    assert percent(seeds) == "24.1 [23.1, 25.1] %"
    assert (span([]), span([3.0]), span([3.0, 1200.0])) == ("n/a", "3", "3–1,200")
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert (duration(9), duration(700), duration(7200)) == ("9.0 s", "11.7 min", "2.0 h")


def test_published_file_is_table_6() -> None:
    from robustloss.reports.reading.published import FOLDER

    table = json.loads((FOLDER / "wan2018-table6.json").read_text(encoding="utf-8"))
    percents = [[round(100 * v, 2) for v in row["error"].values()] for row in table["rows"]]
    assert percents == [
        [0.68, 24.08, 75.56, 84.87],
        [0.47, 43.13, 67.17, 85.49],
        [0.39, 23.63, 64.40, 81.62],
    ]
