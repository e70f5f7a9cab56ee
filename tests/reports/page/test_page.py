"""The page: self-contained, well formed, honest about gaps, closed to hostile labels."""

import re
import shutil
from pathlib import Path

import pytest

from robustloss.reports.page import build
from robustloss.storage import read_json, write_json
from tests.drawing import build_report
from tests.reports.markup import Page
from tests.reports.page.test_build import SMALL
from tests.reports.synthetic import write_run
from tests.reports.world import Layout, Mock, MockAttack

EVIL = '</td><script>alert(1)</script><img src=x onerror="alert(1)">&amp; {{ 7 * 7 }}'
EVIL_ATTACK = '"><svg onload=alert(2)> https://example.org/a.png'


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("runs") / "hostile"
    mocks = (Mock("lgm", EVIL, 0.1, 0.2, 0.3), Mock("gm", "plain", 0.1, 0.2, 0.3, stuck=0.1))
    attacks = (
        MockAttack("fgsm", EVIL_ATTACK, eps=(0.3,)),
        MockAttack("pgd", f"P{EVIL_ATTACK}", eps=(0.3,)),
        MockAttack("deepfool", f"D{EVIL_ATTACK}", eps=(0.3,)),
        MockAttack("adaptive_joint", f"A{EVIL_ATTACK}", eps=(0.3,)),
    )
    write_run(run, Layout(mocks=mocks, attacks=attacks, seeds=(0,), n=60, dim=20, strong=True,
                          failed=(("plain", 1),)))  # fmt: skip
    return build_report(run, dpi=30).read_text(encoding="utf-8")


def test_nothing_is_fetched(html: str, hostile: str) -> None:
    for text in (html, hostile):
        addresses = Page(text).addresses()
        assert len(addresses) > 20
        assert [a[:60] for a in addresses if not a.startswith(("data:", "#"))] == []
        style = "".join(re.findall(r"<style>(.*?)</style>", text, re.S))
        assert "url(" not in style
        assert "@import" not in style
        assert "default-src 'none'" in text


def test_page_is_well_formed(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("h1") == 1
    assert "script" not in tags
    for target in re.findall(r'href="#([^"]+)"', html):
        assert target in page.ids
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) >= 12
    assert all(len(attrs.get("alt") or "") > 40 for attrs in pictures)
    viewport = [
        a.get("content") for t, a in page.tags if t == "meta" and a.get("name") == "viewport"
    ]
    assert viewport == ["width=device-width, initial-scale=1"]


def test_every_wide_thing_scrolls_in_its_own_box(html: str) -> None:
    boxes = len(re.findall(r'<div class="scroll[^"]*" tabindex="0" role="region"', html))
    assert boxes == html.count("<table>") + html.count("<img ")


def test_hostile_labels_stay_text(hostile: str) -> None:
    page = Page(hostile)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "svg"}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert len(EVIL) <= 80  # the longest label that a spec allows, so nothing was cut off
    assert EVIL in page.text
    assert EVIL_ATTACK in page.text


def test_hostile_labels_reach_every_new_part(hostile: str) -> None:
    page = Page(hostile)
    assert {"worst-case-linf", "overview-linf", "radius-linf", "adaptive-auroc-linf", "attack-cost",
            "error-vs-radius", "adaptive-fall-linf", "flags"} <= set(page.ids)  # fmt: skip
    assert f"Tables of D{EVIL_ATTACK}" in page.text
    assert f"{EVIL}: A{EVIL_ATTACK}" in page.text or f"P{EVIL_ATTACK}" in page.text


def test_answer_comes_first_and_warns(html: str) -> None:
    order = [html.index(part) for part in (
        'id="answer"', "Errors are those that 2 attacks found", 'id="run"', 'id="error-fgsm"',
        'id="error-vs-eps"', 'id="checks"', 'id="failures"', 'id="provenance"',
        "The spec, verbatim",
    )]  # fmt: skip
    assert order == sorted(order)


def test_failures_marks_and_provenance_are_told(html: str) -> None:
    text = Page(html).text
    assert "GM, seed 1, stage train: the loss became NaN" in text
    assert "1 cell of this run did not finish" in text
    assert "† zero gradient fired 6 times" in text
    assert "softmax: FGSM at eps 0.1, 0.3 and Nothing at eps 0.2, seeds 0, 1 (value" in text
    for known in ("torch 2.15.0+cpu", "checksum", "0, 1", "700.4", "cpu (Mock CPU, 2 cores)"):
        assert known.replace("700.4", "11.7 min") in text


def test_an_attack_without_success_has_no_column_of_successes(html: str) -> None:
    text = Page(html).text
    nothing, fgsm = (text[text.index(f"Detection of {name} by likelihood") :][:120]
                     for name in ("Nothing", "FGSM"))  # fmt: skip
    assert "AUROC, all" in nothing
    assert "AUROC, successful" not in nothing
    assert "AUROC, successful" in fgsm


def test_page_does_not_depend_on_where_the_run_lies(rendered: Path, html: str) -> None:
    assert str(rendered.parent) not in html


@pytest.fixture(scope="module")
def many(strong_report: Path) -> str:
    """The page of a run with ten attacks."""
    return (strong_report / "index.html").read_text(encoding="utf-8")


def folded(html: str) -> str:
    """What a reader sees only after opening it."""
    return "".join(re.findall(r"<details>.*?</details>", html, re.S))


def test_of_many_attacks_only_what_sums_up_and_the_first_stand_open(many: str) -> None:
    tables = set(re.findall(r'<h3 id="([^"]+)"', many))
    shut = set(re.findall(r'<h3 id="([^"]+)"', folded(many)))
    assert tables - shut == {
        *(f"{kind}-{norm}" for kind in ("worst-case", "overview", "radius")
          for norm in ("linf", "l2")),
        "adaptive-auroc-linf", "transfer-pgd", "attack-cost", "training",
        "geometry-test",
        *(f"{kind}-fgsm" for kind in ("error", "detection", "attack")),
    }  # fmt: skip
    assert {"error-pgd", "scores-fgsm", "scores-cw", "adaptive-every-linf", "seeds"} <= shut
    assert many.index('id="worst-case-linf"') < many.index('id="error-fgsm"')


def test_of_many_attacks_three_have_their_own_figures(many: str) -> None:
    figures = set(re.findall(r'<figure id="([^"]+)"', many))
    own = {name.removeprefix("roc-") for name in figures if name.startswith("roc-")}
    assert len(own) == 3
    assert "fgsm" in own
    assert any(name.startswith("adaptive-") for name in own)
    assert "error-vs-eps-others" in re.findall(r'<figure id="([^"]+)"', folded(many))
    assert {"error-vs-radius", "adaptive-fall-linf", "transfer-pgd", "error-vs-eps"} <= figures


def test_checks_are_told_on_the_page(many: str) -> None:
    page = Page(many)
    section = many[many.index('<section id="checks">') : many.index('<section id="failures">')]
    assert section.count("<dt ") == 16
    assert "† margin beats cross entropy fired 5 times" in page.text
    assert "softmax: PGD at eps" in Page(section).text


def test_a_page_names_no_folder_of_the_machine_and_is_the_same_wherever_the_run_lies(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path / "one" / "run", SMALL)
    results = read_json(run / "results.json")
    provenance = results["provenance"]
    provenance["command"] = [
        "robustloss",
        "run",
        "/gone/a b/my.toml",
        "--data",
        "/gone/data",
        "--out=/gone/x",
    ]
    provenance["notes"] = ["/gone/runs/first: results.json was altered"]
    provenance["spec"]["losses"][0] |= {
        "weights": "gone/softmax.pt",
        "model": "gone/nets.py:make",
        "params": {"at": "/gone/centers"},
    }
    results["failures"] = [
        {"loss": "x", "label": "X", "seed": 0, "stage": "build",
         "reason": "/gone/losses/mine.py: No such file"}
    ]  # fmt: skip
    write_json(run / "results.json", results, sort_keys=False)
    next(run.glob("cells/*/seed-0/cell.json")).write_text("{")
    pages = []
    for place in ("one", "other"):
        (tmp_path / place).mkdir(exist_ok=True)
        copy = run if place == "one" else Path(shutil.copytree(run, tmp_path / place / "run"))
        build.build_report(copy)
        pages.append((copy / "report/index.html").read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    assert "gone" not in pages[0]
    assert str(tmp_path) not in pages[0]
    for told in ("run my.toml", "--out=x", "weights softmax.pt", "model nets.py:make", "at centers",
                 "first: results.json was altered", "mine.py: No such file"):  # fmt: skip
        assert told in pages[0], told
