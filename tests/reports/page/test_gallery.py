"""`report --page`: a run as Markdown with its figures, and what somebody wrote into it stays."""

import json
import re
import shutil
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from PIL import Image

from robustloss import reports
from robustloss.cli import commands
from robustloss.reports.page.gallery import END, NOTES, list_differences, write_gallery_page
from robustloss.results.run import Run
from tests.reports.conftest import DPI
from tests.reports.differences.compared import compared, numbers
from tests.reports.page.test_summary import EVIL, cells
from tests.reports.synthetic import write_run
from tests.reports.world import Layout, Mock, MockAttack


@pytest.fixture(scope="module")
def page(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the mixed run, in a folder of its own."""
    folder = tmp_path_factory.mktemp("gallery")
    return write_gallery_page(rendered, folder / "two words.md", dpi=DPI)


def refuse(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run `report` with these words, which it must refuse; return what it says."""
    with pytest.raises(SystemExit) as ended:
        commands.main(["report", *map(str, words)])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_it_has_the_numbers_of_the_run_and_what_was_run(page: Path, run: Run) -> None:
    text = page.read_text(encoding="utf-8")
    table = cells(text.partition("## Is the attack noticed?")[0])
    for row in run.summary:
        if (row["label"], row["attack"], row["metric"]) == ("softmax", "none", "error"):
            shown = [float(number) for number in re.findall(r"[\d.]+", table["softmax"][0])]
            ends = [100 * row[k] for k in ("mean", "low", "high")]
            assert shown == pytest.approx(ends, abs=0.006)
    for told in (
        "# mixed",
        "**Question.** How often do FGSM and Nothing fool a network trained with softmax",
        "- **Command**: robustloss run mnist",
        "and 2 seeds (0, 1)",
        "- **Status**: 1 cell of this run did not finish. GM, seed 1, stage train: the loss",
        "| loss | eps | AUROC, all | AUROC, successful |",
        "| *published* | – | *0.68* | *24.08* | *84.87* |",
        "**Did not fire**",
    ):
        assert told in text, told
    notes = [line for line in text.splitlines() if line.startswith("†")]
    assert notes
    assert len({*notes}) == len(notes)  # a mark is explained once
    assert "The CSV" not in text


def test_its_figures_lie_beside_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]*\.png)\)", text)
    assert links == ["two%20words-error-vs-eps.png", "two%20words-detection-vs-eps-fgsm.png"]
    for link in links:
        with Image.open(page.parent / link.replace("%20", " ")) as picture:
            assert picture.size[0] > 4 * DPI
    assert len([*page.parent.iterdir()]) == 3


def test_what_somebody_wrote_stays_and_the_report_leaves_the_page_alone(
    rendered: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(rendered, tmp_path / "run")
    first = write_gallery_page(copy, dpi=DPI)
    assert first == copy / "report" / "page.md"
    fresh = first.read_text(encoding="utf-8")
    mine = "A **word** of mine.\n\n| a |\n| - |\n| <!-- one --> 1 |"
    first.write_text(fresh.replace(f"{NOTES}\n{END}", f"{NOTES}\n{mine}\n{END}"), encoding="utf-8")
    reports.build_report(copy)
    again = write_gallery_page(copy, dpi=DPI).read_text(encoding="utf-8")
    assert again == fresh.replace(f"{NOTES}\n{END}", f"{NOTES}\n{mine}\n{END}")


def test_an_attack_that_knows_the_detector_has_its_table(strong: Path, tmp_path: Path) -> None:
    text = write_gallery_page(strong, tmp_path / "strong.md", dpi=DPI).read_text(encoding="utf-8")
    assert "**What is noticed when the attack knows the detector, L∞**" in text
    assert "AUROC, best adaptive | fooled and unnoticed, FGSM |" in text
    assert "attack knows the detector, L2" not in text  # none in that norm


def test_pages_of_somebody_else_are_not_overwritten(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "README.md"
    other.write_text("# Mine")
    assert f"has no text between {NOTES} and {END}" in refuse(capsys, rendered, "--page", other)
    assert other.read_text() == "# Mine"
    assert "must end in .md" in refuse(capsys, rendered, "--page", tmp_path / "a.html")
    missing = tmp_path / "no" / "a.md"
    assert f"make {missing.parent} first" in refuse(capsys, rendered, "--page", missing)
    assert "--page" in refuse(capsys, rendered, tmp_path / "a.md")
    assert "Name one of them" in refuse(capsys, rendered, "--page", "--all")
    assert [*tmp_path.iterdir()] == [other]


def test_a_run_without_a_result_is_refused(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(rendered, tmp_path / "run")
    (copy / "results.json").unlink()
    assert "has not finished" in refuse(capsys, copy, "--page")
    assert not (copy / "report" / "page.md").exists()


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
    (path / "results.json").write_text(json.dumps(results))
    (path / "spec.toml").write_text(f"# <script> {NOTES} [x](y) {END}\n")
    text = write_gallery_page(path, dpi=DPI).read_text(encoding="utf-8")
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert text.count(NOTES) == text.count(END) == 1
    parsed = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    tokens = [token for block in parsed for token in (block, *(block.children or ()))]
    html = [token.content for token in tokens if token.type in ("html_inline", "html_block")]
    assert "".join(html).split("\n") == [NOTES, END, ""] or [*html] == [f"{NOTES}\n", f"{END}\n"]
    assert not {token.type for token in tokens} & {"link_open", "code_inline", "s_open", "fence"}
    assert sum(token.type == "image" for token in tokens) == 2


def test_only_differences_that_are_shown_have_a_number() -> None:
    (text,) = list_differences(numbers("ABC", compared()), set())
    rows = [line for line in text.splitlines() if line.startswith("| error, eps 0.1")]
    assert rows == ["| error, eps 0.1 | B | **+5.00 \\[3.00, 6.00\\]** | 2 to 3 |"]
    (words,) = list_differences(numbers("ABC", compared(shown=())), set())
    assert words.startswith("No difference between two losses is shown on clean images or under FG")
    assert list_differences(numbers("A", []), set()) == []
