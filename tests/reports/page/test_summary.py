"""summary.md: short whatever was run, the numbers of results.json, no markup of anybody else's."""

import json
import re
import shutil
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from robustloss.reports.page import build, summary
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run, load_run
from robustloss.storage import read_json, write_json
from tests.reports.page.test_build import SMALL
from tests.reports.page.test_given_report import given
from tests.reports.synthetic import write_run
from tests.reports.world import ALL_KINDS, MANY, Layout, Mock, MockAttack

__all__ = ["given"]  # a fixture

EVIL = (
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![i](https://example.org/a.png) | `b` **c**",
    "<!-- x --> &lt; $y$ ~~z~~ {{ 7 }}",
    "=HYPERLINK(1) \u05d0\u05d1 " + "w" * 60,
)

VERDICT = "Fewest errors: <b>L-GM</b>."


def summarise(run: Run) -> str:
    text = summary.summarise_run(Numbers(run), VERDICT, run.readable_cells[1])
    assert len(text.splitlines()) <= 60
    return text


def cells(text: str) -> dict[str, list[str]]:
    """The table, as a reader sees it: the other cells of a row by the first one."""
    rows = [line.replace("\\", "") for line in text.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {row[0]: row[1:] for row in split}


def test_a_report_brings_a_summary_with_the_numbers_of_the_run(rendered: Path, run: Run) -> None:
    text = (rendered / "report/summary.md").read_text(encoding="utf-8")
    assert text.splitlines()[7:] == summarise(run).splitlines()[7:]  # the verdict stands before
    table = cells(text)
    assert next(iter(table)) == "loss"
    assert [*table][2:] == ["softmax", "GM (1 seed)", "L-GM (alpha 1)"]
    for row in run.summary:
        if (row["label"], row["attack"], row["metric"]) == ("softmax", "none", "error"):
            shown = [float(number) for number in re.findall(r"[\d.]+", table["softmax"][0])]
            assert shown == pytest.approx(
                [100 * row[k] for k in ("mean", "low", "high")], abs=0.006
            )
    assert (
        "**Status:** 1 cell of this run did not finish. GM, seed 1, stage train: the loss" in text
    )
    checksum = run.provenance["data"]["checksum"]
    for told in (f"- Checksum: {checksum}", "- Seeds: 0, 1", "- Command: robustloss run mnist",
                 "torch 2.15.0+cpu", "device cpu", "FGSM"):  # fmt: skip
        assert told in text, told


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """19 losses under three attacks, one of which knows the detector."""
    path = tmp_path_factory.mktemp("runs") / "crowd"
    attacks = [
        attack for attack in ALL_KINDS if attack.name in ("fgsm", "apgd_ce", "adaptive_joint")
    ]
    layout = Layout(mocks=MANY, seeds=(0,), attacks=attacks, n=40, dim=8, strong=True)
    return load_run(write_run(path, layout))


def test_a_crowd_of_losses_has_its_rows_and_the_rest_is_counted(crowd: Run) -> None:
    text = summarise(crowd)
    assert len(cells(text)) == 2 + len(MANY)
    lists = [part.splitlines() for part in text.split("## ")[1:3]]
    heads = ["Detection under attacks that know the detector", "Checks that fired"]
    assert [part[0] for part in lists] == heads
    spared, *detection = [line for line in lists[0] if line.startswith("- ")]
    assert spared.startswith("- Not attacked: ")
    assert detection[-1] == f"- and {len(MANY) - len(detection) + 1} more in index.html"
    assert all(line.startswith("- ") for line in lists[1][2:-1])
    assert len(lists[1]) > 3
    assert "## What was not tested\n\nThe errors are those that 3 attacks found" in text
    assert "- Versions: " in text


def test_more_losses_than_fit_are_counted(crowd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "MOST_LOSSES", 4)
    text = summarise(crowd)
    assert len(cells(text)) == 2 + 4
    assert "\nAnd 15 more in index.html.\n" in text


def test_given_models_are_no_losses_with_seeds(given) -> None:
    numbers, labels = given(*range(len(given()[1])))
    text = summarise(numbers.run)
    assert f"\n{len(labels)} models · mnist · 60 test images · FGSM · " in text


def test_without_a_finished_cell_it_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SMALL)
    content = read_json(run / "results.json")
    kept = {key: [] if isinstance(value, list) else value for key, value in content.items()}
    write_json(run / "results.json", kept, sort_keys=False)
    shutil.rmtree(run / "cells")
    build.build_report(run)
    text = (run / "report/summary.md").read_text(encoding="utf-8")
    assert text.splitlines()[7:] == summarise(load_run(run)).splitlines()[7:]
    assert "No cell finished" in text
    assert "|" not in text
    assert "Detection" not in text
    assert "0 models" not in text


def test_no_text_of_the_users_becomes_markup(tmp_path: Path) -> None:
    mocks = [Mock("lgm", label, 0.1, 0.2, 0.3, stuck=0.2) for label in EVIL]
    attacks = [
        MockAttack("fgsm", f"{EVIL[0]} *F*", eps=(0.1, 0.3)),
        MockAttack("pgd", EVIL[3], eps=(0.3,)),
        MockAttack("adaptive_joint", f"{EVIL[1]} _A_", eps=(0.3,)),
    ]
    layout = Layout(mocks=mocks, attacks=attacks, seeds=(0,), n=60, dim=8, strong=True)
    path = write_run(tmp_path / "run", layout)
    results = json.loads((path / "results.json").read_text())
    results["name"] = "run\n# <b>x</b>"
    results["provenance"]["data"] |= {"label": "d\n- [l](u)\x1b[31m\u202e", "checksum": "<i>"}
    results["provenance"]["command"] = ["robustloss\n\n# h", "<u>", "`x`"]
    results["failures"] = [
        {"loss": "x", "label": "X | y", "seed": 0, "stage": "train", "reason": "a\n\n<hr>"}
    ]
    (path / "results.json").write_text(json.dumps(results))
    build.build_report(path)
    text = (path / "report/summary.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    parsed = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    tokens = [token for block in parsed for token in (block, *(block.children or ()))]
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "code_inline", "s_open",
                        "em_open", "fence"}  # fmt: skip
    assert [token.content for token in tokens if token.type == "text"].count("Status:") == 1
    assert sum(token.type == "heading_open" for token in tokens) == 5
    assert sum(token.type == "tr_open" for token in tokens) == 1 + 1 + len(EVIL)
