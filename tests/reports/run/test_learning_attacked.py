"""What the report says of losses that were trained on attacked images."""

import pytest

from robustloss.reports.chapters.run.learning import (
    ROBUST,
    Lesson,
    attacked_words,
    draw_lessons,
    plot_learning_curves,
)
from robustloss.reports.chapters.run.table import training_table
from robustloss.reports.page.run_facts import list_facts
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run
from tests.reports import synthetic_geometry_tables as hand

WORDS = "trained with PGD images (L-inf eps 0.3, 7 steps of 0.107 on cross-entropy)"


def curve(robust: list[float]) -> list[dict]:
    return [
        {
            "epoch": i + 1, "loss": 1.0 / (i + 1), "train_error": 0.5, "validation_error": 0.01 * i,
            "validation_robust_error": error, "zero_gradient_fraction": 0.0,
        }
        for i, error in enumerate(robust)
    ]  # fmt: skip


def defended(label: str = "gm", chosen: int | None = 2, **keys: object) -> dict:
    more = {"epochs": 3, "curve": curve([0.9, 0.2, 0.4]), "adversarial": WORDS}
    return hand.log(label, **more, chosen_epoch=chosen, **keys)


@pytest.fixture
def run() -> Run:
    plain = hand.log("softmax")
    return hand.run(("softmax", "gm"), training=[plain, defended()])


def numbers(run: Run) -> Numbers:
    return Numbers(run, 10)


def test_curves_under_attack_stand_beside_the_clean_ones(run: Run) -> None:
    (plot,) = plot_learning_curves(numbers(run))
    assert plot.name == "learning-curves"
    found = [row for row in plot.numbers if row["panel"] == "Validation error under attack"]
    assert [(row["label"], row["x"], row["y"]) for row in found] == [
        ("GM", 1.0, 90.0), ("GM", 2.0, 20.0), ("GM", 3.0, 40.0),
    ]  # fmt: skip
    assert "weights of the epoch with the fewest of these errors" in plot.caption
    assert plot.caption.endswith("for having been chosen: GM: 2.")
    assert "validation error under attack ends at 40 for GM" in plot.alt


def test_a_run_without_says_nothing_of_it(run: Run) -> None:
    del run.results["training"][1]
    assert attacked_words(numbers(run)) == ""
    table = training_table(numbers(run))
    assert "epoch kept" not in table.header
    assert "adversarial" not in table.data[0]


def test_the_training_table_has_the_errors_of_the_kept_epoch(run: Run) -> None:
    table = training_table(numbers(run))
    place = {name: i for i, name in enumerate(table.header)}
    row = [entry.text for entry in table.rows[1]]
    assert row[place["validation error under attack"]] == "20.00"
    assert row[place["validation error"]] == "1.00"
    assert row[place["epoch kept"]] == "2"
    assert [entry.text for entry in table.rows[0]][place["epoch kept"]] == "n/a"
    assert table.data[1]["validation_robust_error"] == 0.2
    run.results["training"][1]["chosen_epoch"] = None
    row = [entry.text for entry in training_table(numbers(run)).rows[1]]
    assert row[place["validation error under attack"]] == "40.00"
    assert row[place["epoch kept"]] == "3"


def test_what_was_run_says_which_images_were_learnt(run: Run) -> None:
    spec = run.provenance["spec"]
    assert "Attacked in training" not in dict(list_facts(numbers(run)))
    spec["train"] = {"epochs": 3, "adversarial": {"attack": "pgd", "eps": 0.3, "steps": 7}}
    spec["losses"][0]["train"] = {"adversarial": False}
    facts = list_facts(numbers(run))
    assert dict(facts)["Attacked in training"] == "attack pgd, eps 0.3, steps 7"
    assert next(text for name, text in facts if name == "Loss").endswith(", adversarial false")


def test_many_losses_have_a_line_of_it_in_their_frames() -> None:
    run = hand.run(("softmax", "gm"), training=[hand.log("softmax"), defended()])
    lessons = [Lesson.of(numbers(run), label) for label in ("Softmax", "GM")]
    assert ROBUST not in lessons[0].lines
    assert list(lessons[1].lines[ROBUST].y) == [90.0, 20.0, 40.0]
    legend = [text.get_text() for text in draw_lessons(lessons).legends[0].get_texts()]
    assert "validation error under attack" in legend
    legend = [text.get_text() for text in draw_lessons(lessons[:1]).legends[0].get_texts()]
    assert "validation error under attack" not in legend
