"""The page: self-contained, well formed, honest about gaps, closed to hostile labels."""

import re
import shutil
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import pytest

from robustloss.reports.page import build
from robustloss.reports.page.build import draw_figure
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
    return build_report(run, figures="laid out").read_text(encoding="utf-8")


def test_nothing_is_fetched(html: str, hostile: str) -> None:
    for text in (html, hostile):
        addresses = Page(text).addresses()
        assert len(addresses) > 20
        links = {a[:60] for a in addresses if not a.startswith(("data:", "#"))}
        assert links <= {"details.html"}  # beside the page; opened by a reader alone
        style = "".join(re.findall(r"<style>(.*?)</style>", text, re.S))
        assert "url(" not in style
        assert "@import" not in style
        assert "default-src 'none'" in text


def test_page_is_well_formed(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("h1") == 1
    assert tags.count("script") == 1
    for target in re.findall(r'href="#([^"]+)"', html):
        assert target in page.ids
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) >= 8
    assert all(len(attrs.get("alt") or "") > 40 for attrs in pictures)
    viewport = [
        a.get("content") for t, a in page.tags if t == "meta" and a.get("name") == "viewport"
    ]
    assert viewport == ["width=device-width, initial-scale=1"]


def test_every_wide_thing_scrolls_in_its_own_box(html: str) -> None:
    boxes = len(re.findall(r'<div class="scroll[^"]*" tabindex="0" role="region"', html))
    assert boxes == html.count("<table ") + html.count("<img ")


def test_hostile_labels_stay_text(hostile: str) -> None:
    page = Page(hostile)
    tags = {tag for tag, _ in page.tags}
    assert "svg" not in tags
    ours = (files("robustloss.reports") / "templates/script.js").read_text(encoding="utf-8")
    assert re.findall(r"<script.*?</script>", hostile, re.S) == [f"<script>{ours}</script>"]
    digest = b64encode(sha256(ours.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in hostile  # no other script runs
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert len(EVIL) <= 80  # the longest label that a spec allows, so nothing was cut off
    assert EVIL in page.text
    assert EVIL_ATTACK in page.text


def test_hostile_labels_reach_every_part(hostile: str) -> None:
    page = Page(hostile)
    assert {"overview-linf", "radius-linf", "adaptive-auroc-linf", "attack-cost",
            "adaptive-fall-linf", "flags"} <= set(page.ids)  # fmt: skip
    assert f"Error under D{EVIL_ATTACK}" in page.text


def test_chapters_come_in_the_order_of_a_readers_questions(html: str) -> None:
    order = [html.index(part) for part in (
        "<h1>", 'id="result"', 'class="verdict"', "A stronger attack may find more errors",
        'id="error-vs-eps"', 'id="paper"', 'id="error-fgsm"', 'id="posterior-fgsm"',
        'id="likelihood-fgsm"', 'id="detection"', 'id="detection-vs-eps-fgsm"',
        'id="confidence"', 'id="space"', 'id="embedding"', 'id="images"', 'id="images-fgsm"',
        'id="trust"', "What these numbers cannot show", 'id="run"', "<summary>The spec<",
        'id="details"', 'id="seeds"',
    )]  # fmt: skip
    assert order == sorted(order)


def test_contents_name_every_chapter_figure_and_what_the_paper_has(html: str) -> None:
    nav = html[html.index("<nav") : html.index("</nav>")]
    links = re.findall(r'href="#([^"]+)"', nav)
    assert "differences" not in links  # this run has none, and an empty chapter is not shown
    assert {"result", "paper", "detection", "confidence", "space", "images",
            "trust", "run", "details"} <= set(links)  # fmt: skip
    figures = re.findall(r'<div class="block" id="([^"]+)"', html)
    assert set(figures) <= set(links)
    assert links.count("paper-error-table") == links.count("paper-likelihood-figure") == 2
    for name in ("Table 6: error", "Figure 3: confidence", "Figure 4: likelihood"):
        assert nav.count(name) == 2


def test_failures_marks_and_provenance_are_told(html: str) -> None:
    text = Page(html).text
    assert "GM, seed 1, stage train: the loss became NaN" in text
    assert "1 cell of this run did not finish" in text
    assert "† zero gradient, fired 6 times" in text
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


def test_of_many_attacks_a_reader_chooses_among_the_worst_cases_and_three(many: str) -> None:
    choices = re.findall(
        r'<input type="radio" name="attack" id="choose-([^"]+)"[^>]*?( checked)?>', many
    )
    keys = [key for key, _ in choices]
    assert keys[:2] == ["worst-case-linf", "worst-case-l2"]
    assert len(keys) == 5
    assert [key for key, checked in choices if checked] == ["worst-case-linf"]
    # each choice hides what belongs to others, and every chapter has something for each of them
    for key in keys:
        assert f"body:has(#choose-{key}:checked) .variant:not(.of-{key})" in many
    for block in ("paper-likelihood-figure", "detection-detection-table", "images-images-figure"):
        own = many[many.index(f'id="{block}"') :]
        own = own[: own.index('<div class="block"')] if '<div class="block"' in own else own
        for key in keys:
            assert re.search(rf'class="variant[^"]* of-{key}[ "]', own), (block, key)


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


def test_tables_of_the_other_attacks_are_details(many: str) -> None:
    details = many[many.index('<section id="details">') :]
    assert {"error-cw", "detection-cw", "overview-linf", "adaptive-every-linf", "seeds"} <= set(
        re.findall(r'<div class="table" id="([^"]+)"', details)
    )


def test_checks_are_told_on_the_page(many: str) -> None:
    section = many[many.index('<section id="trust">') : many.index('<section id="run">')]
    text = Page(section).text
    assert "† margin beats cross entropy, fired 5 times" in text
    assert "softmax: PGD at eps" in text
    assert "Did not fire: " in text
    assert "Could not be made: " in text


def test_figures_under_details_are_drawn_on_demand(rendered: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(rendered, run, ignore=shutil.ignore_patterns("report"))
    html = build_report(run, everything=False).read_text(encoding="utf-8")
    figures = {path.stem for path in (run / "report/figures").glob("*.png")}
    assert {"error-vs-eps", "likelihood-fgsm", "posterior-fgsm", "embedding"} <= figures
    assert not [name for name in figures if name.startswith(("roc-", "scores-vs-eps"))]
    assert not (run / "report/details.html").exists()
    assert "roc-fgsm" in html[html.index("more figures") :]
    drawn = draw_figure(run, "roc-fgsm.svg", dpi=30)
    assert drawn == run / "report/figures/roc-fgsm.svg"
    assert b"<svg" in drawn.read_bytes()
    assert draw_figure(run, "roc-fgsm.pdf", dpi=30).read_bytes().startswith(b"%PDF")
    assert not [path for path in (run / "report").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("roc-fgsm", "must end in png, svg, pdf"),
        ("roc-other.png", "is none of this run. Its figures are .*roc-fgsm"),
        ("../../roc-fgsm.png", "is none of this run"),
    ],
)
def test_refuses_a_figure_that_is_none(rendered: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_figure(rendered, name)


def test_details_hold_the_figures_that_the_page_leaves_out(strong_report: Path, many: str) -> None:
    details = (strong_report / "details.html").read_text(encoding="utf-8")
    page, own = (set(re.findall(r'<figure id="([^"]+)"', text)) for text in (many, details))
    assert page.isdisjoint(own)
    drawn = {path.stem for path in (strong_report / "figures").glob("*.png")}
    assert page | own == drawn
    assert Page(details).ids


def test_every_number_is_text_without_script_and_style(strong_report: Path, many: str) -> None:
    bare = re.sub(r"<(script|style)>.*?</\1>", "", many, flags=re.S)
    page = Page(bare)
    text = page.text
    for file in (strong_report / "tables").glob("*.md"):
        rows = [line for line in file.read_text().splitlines() if line.startswith("|")]
        for number in re.findall(r"\d+\.\d+", " ".join(rows)):
            assert number in text, (file.name, number)
    unshown = {file.stem for file in (strong_report / "tables").glob("*.md")} - set(page.ids)
    assert unshown == {"worst-case-l2", "worst-case-linf"}  # their numbers stand in the result
    told = ("title", "aria-label", "data-title", "data-name")
    for tag, attrs in page.tags:
        for name in told:
            assert tag == "nav" or (attrs.get(name) or "") in text, (tag, name)
    assert [tag for tag, _ in page.tags].count("figure") == bare.count("<img ")


def test_each_choice_leaves_every_chapter_its_content(many: str) -> None:
    keys = re.findall(r'id="choose-([^"]+)"', many)
    sections = many.split('<section id="')[1:]
    with_blocks = [section for section in sections if '<div class="block"' in section]
    assert {"result", "paper", "detection", "confidence", "images"} <= {
        section.split('"')[0] for section in with_blocks
    }
    for section in with_blocks:
        variants = re.findall(r'<div(?: class="(variant[^"]*)")?>', section)
        for key in keys:
            assert any(not v or f"of-{key}" in v.split() for v in variants), (section[:20], key)


def test_a_mark_is_explained_once_and_named_with_a_link_elsewhere(many: str) -> None:
    trust = re.findall(r'<div class="check" id="([^"]+)"', many)
    assert "check-margin-beats-cross-entropy" in trust
    body = many[many.index('<section id="paper">') :]
    assert '†1 <a href="#check-' in body
    assert not re.search(r'<p class="note">†\d', body.replace('<p class="note">†1 <a', ""))


def test_the_paper_is_listed_in_its_order(html: str) -> None:
    listed = html[html.index("<h2>The paper</h2>") : html.index("</nav>")]
    titles = [title.split(":")[0] for title in re.findall(r'">([^<]+)</a>', listed)]
    assert titles == ["Table 6", "Figure 1", "Figure 2", "Figure 3", "Figure 4"]
