"""The page in a browser: quiet, and its tables can be sorted and copied. Needs Chromium."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drawing import build_report
from tests.reports.synthetic import write_run
from tests.reports.world import Layout, Mock, MockAttack

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

LABELS = (
    "=1+1|`*_[x](http://a.b)",
    "[*\\{a}%&$#^~_ <b>&amp;",
    "\u05d0\u05d1\u05d2 right to left",
    "x" * 80,
)
HEARD = (
    """window.copied = []; navigator.clipboard.writeText = async (words) => copied.push(words)"""
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page of losses with hostile names, opened; `page.heard` has messages and requests."""
    run = tmp_path_factory.mktemp("browser") / "hostile"
    mocks = tuple(
        Mock(name, label, 0.1, 0.2, 0.3)
        for name, label in zip(("softmax", "center", "gm", "lgm"), LABELS, strict=True)
    )
    attacks = (MockAttack("fgsm", "FGSM", eps=(0.1, 0.3)), MockAttack("pgd", "PGD", eps=(0.3,)))
    write_run(run, Layout(mocks=mocks, attacks=attacks, seeds=(0, 1), n=60, dim=20))
    build_report(run, dpi=30, figures="drawn")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("request", lambda request: page.heard.append(request.url[:80]))
        page.goto((run / "report/index.html").as_uri())
        page.evaluate(HEARD)
        yield page
        browser.close()


def test_nothing_is_logged_or_asked_for_whatever_is_clicked(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    for choice in page.locator("nav input").all():
        choice.check()
        page.evaluate("document.querySelectorAll('button').forEach((b) => b.click())")
    assert page.evaluate("copied.length") > 30
    assert not [w for w in page.heard if not w.startswith(("data:", "file:"))]
    assert len([w for w in page.heard if w.startswith("file:")]) == 1
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def copied(page: Any, name: str, kind: str) -> str:
    """Return what a button of a table copies."""
    page.evaluate("copied.length = 0")
    page.locator(f"[id='{name}'] button.copy", has_text=kind).first.click()
    page.wait_for_function("copied.length")
    return str(page.evaluate("copied[0]"))


def test_copied_csv_holds_no_formula(page: Any) -> None:
    lines = copied(page, "losses", "CSV").splitlines()
    assert len(lines) == 5
    assert not [line for line in lines if line.startswith(('"=', '"+', '"-', '"@', "="))]
    assert [line for line in lines if line.startswith("\"'=1+1|")]
    assert "error, worst case" in lines[0]  # the heading of the group goes with each column


def test_copied_markdown_has_a_cell_for_each_column(page: Any) -> None:
    lines = copied(page, "losses", "Markdown").splitlines()
    assert len(lines) == 6
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    assert r"\=" not in lines[2]
    assert r"=1+1\|\`\*\_\[x\](http://a.b)" in "".join(lines)


def test_copied_latex_is_balanced_and_has_the_right_columns(page: Any) -> None:
    latex = copied(page, "losses", "LaTeX")
    plain = latex.replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    columns = len(latex.split(r"\begin{tabular}{")[1].split("}")[0])
    body = latex[latex.index(r"\midrule") :].replace(r"\&", "")
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {row.count("&") + 1 for row in rows} == {columns}
    assert [row for row in rows if row.startswith("{}[*\\textbackslash{}\\{a\\}\\%\\&"[:6])]
    spans = [int(part[0]) for part in latex.split(r"\multicolumn{")[1:]]
    assert sum(spans) == columns
    assert r"\cmidrule(lr){2-2}\cmidrule(lr){3-" in latex
    (caption,) = re.findall(r"\\caption\{(.*)\}", latex)
    assert caption.startswith("Errors and detection. Data: mnist, 60 test images. Errors in ")
    assert r"is a 95 \% interval over training seeds" in caption


def test_a_column_is_sorted_up_and_down(page: Any) -> None:
    def errors() -> list[float]:
        cells = page.locator("#losses tbody tr td:nth-child(2)").all_inner_texts()
        return [float(cell.split()[0]) for cell in cells]

    page.reload()
    button = page.locator("#losses thead tr:last-child th:nth-child(2) button")
    button.click()
    assert errors() == sorted(errors())
    button.click()
    assert errors() == sorted(errors(), reverse=True)
    assert len(errors()) == 4


def test_a_link_opens_what_is_folded_and_the_choice_stays_in_sight(
    page: Any, tmp_path: Path
) -> None:
    page.evaluate("location.hash = '#seeds'")
    page.wait_for_function("document.querySelector('#seeds').closest('details').open")
    box = page.locator(".picker").bounding_box()
    assert box["y"] >= 0
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator(".picker").bounding_box()["y"] >= 0
    assert not page.locator(".contents ul").first.is_visible()
    heads = page.locator("#losses thead").bounding_box()
    assert heads["height"] < 60  # two lines: heads out of sight do not push those in sight down
    page.locator(".contents summary").click()
    assert page.locator(".contents ul ul a").first.is_visible()
