"""The commands guide and cite; every page of the guide and the README as the code has it."""

import importlib.util
import re
from pathlib import Path

import pytest

from robustloss.cli.guide import FOLDER, TOPICS, list_topics, read_page

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "robustloss" / "guide").glob("*.md"))]


@pytest.fixture(scope="module")
def script():
    """The script that writes the lists of the pages."""
    spec = importlib.util.spec_from_file_location("guide_script", ROOT / "scripts" / "guide.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_lists_of_a_page_are_those_of_the_code(script, page):
    text = page.read_text("utf-8")
    assert script.fill(text) == text, "run: python scripts/guide.py"


def test_a_list_is_written_between_its_marks_and_nothing_else_changes(script):
    page = "before\n<!-- generated: scores -->\nold\n<!-- end -->\nafter\n"
    filled = script.fill(page)
    assert filled.startswith("before\n<!-- generated: scores -->\n- `class_log_likelihood`: Log-")
    assert filled.endswith("\n<!-- end -->\nafter\n")
    assert "old" not in filled
    assert "`train.adversarial.eps` (required; number or fraction" in script.fill(
        "<!-- generated: keys train.adversarial -->\n<!-- end -->"
    )
    with pytest.raises(KeyError):
        script.fill("<!-- generated: sores -->\n<!-- end -->")
    with pytest.raises(KeyError):
        script.fill("<!-- generated: keys trian -->\n<!-- end -->")


def test_a_loss_is_told_with_formula_parameters_and_source(script):
    text = "\n".join(script.list_losses())
    lgm = text.split("### lgm\n")[1].split("\n### ")[0]
    assert "GM with margin alpha·d_y" in lgm
    assert "- `alpha` (1.0): margin, at least 0; 0 is GM. Paper: 1 on MNIST" in lgm
    assert "Source: Wan et al. 2018, equations 17 and 18." in lgm
    assert "\n\n    logits_k       = log p(k)" in text  # shown as it is


def test_guide_without_a_topic_lists_every_page_with_its_title(command):
    status, out, _ = command("guide")
    assert status == 0
    listed = dict(line.split(maxsplit=1) for line in out.splitlines()[:-2])
    assert listed == list_topics()
    assert sorted(listed) == sorted(path.stem for path in FOLDER.glob("*.md"))
    assert all(title and not title.startswith("#") for title in listed.values())


def test_the_site_has_the_pages_in_the_order_of_the_list():
    site = (ROOT / "scripts/docs/mkdocs.yml").read_text("utf-8")
    assert tuple(re.findall(r"- robustloss/guide/(\w+)\.md", site)) == TOPICS


def test_guide_prints_a_page_without_the_marks(command):
    status, out, _ = command("guide", "Safety")
    assert status == 0
    assert out.startswith("# Safety")
    assert all("<!--" not in read_page(topic) for topic in list_topics())


def test_guide_names_the_pages_where_there_is_none(command):
    status, out, err = command("guide", "savety")
    assert (status, out) == (2, "")
    assert f"guide (=savety) must be one of {', '.join(list_topics())}" in err
    assert "did you mean 'safety'?" in err


def test_cite(command):
    status, out, _ = command("cite")
    assert status == 0
    assert out.count("@") == 2
    assert out.count("{") == out.count("}")
    assert "Wan, Weitao" in out
