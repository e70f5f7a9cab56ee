"""The arithmetic under the figures of the feature space, against closed forms and oracles."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustloss.reports.chapters.confidence.confusion import (
    confused_pairs,
    confusion,
    off_diagonal,
    row_percent,
    short,
)
from robustloss.reports.chapters.images.attacked import pick_images
from robustloss.reports.chapters.space.boundary import (
    apollonius,
    margin_region,
    margin_share,
    own_boundary,
)
from robustloss.reports.chapters.space.embedding import (
    FULL_RINGS,
    Cloud,
    Embedding,
    draw_embeddings,
)
from robustloss.reports.chapters.space.norms import norm_groups
from robustloss.reports.drawing.curves import spread
from robustloss.reports.drawing.style import looks
from robustloss.reports.reading.feature_space import Boundary, evenly, space
from robustloss.reports.words import Estimate, significant


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.3, 1.0, 5.0])
def test_circle_of_apollonius_is_where_training_calls_the_classes_equal(alpha: float) -> None:
    center, radius = apollonius(alpha)
    angle = np.linspace(0, 2 * np.pi, 50)
    x, y = center + radius * np.cos(angle), radius * np.sin(angle)
    to_true, to_other = x**2 + y**2, (x - 1) ** 2 + y**2
    assert (1 + alpha) * to_true == pytest.approx(to_other)
    assert own_boundary(alpha) == pytest.approx(center + radius)


def test_margin_share_is_the_gap_between_the_two_boundaries() -> None:
    assert margin_share(0.0) == 0
    assert margin_share(1.0) == pytest.approx(1 - 2 / (1 + 2**0.5))
    assert margin_share(3.0) == pytest.approx(1 / 3)  # boundaries at 1/3 and 2/3
    assert (np.diff(margin_share(np.linspace(0, 10, 50))) > 0).all()


def test_margin_region_lies_between_the_lines_of_training() -> None:
    x = np.linspace(0, 1, 100)  # no point on a line
    gap = np.tile(0.5 - x, (3, 1))  # a is left of b; either margin moves its line by 0.1
    lines = Boundary((0, 1), x, x[:3], gap, (gap - 0.1, gap + 0.1), None)
    inside = margin_region(lines)[0] > 0
    assert (inside == (np.abs(x - 0.5) < 0.1)).all()
    without = Boundary((0, 1), x, x[:3], gap, (gap, gap), None)
    assert not (margin_region(without) > 0).any()


def test_confusion_is_counted_row_by_true_class() -> None:
    labels, given_ = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 1, 1, 1, 0, 2])
    counts = confusion(labels, given_, 4).toarray()
    slow = np.zeros((4, 4), int)
    for true, predicted in zip(labels, given_, strict=True):
        slow[true, predicted] += 1
    assert (counts == slow).all()
    percent = row_percent(counts)
    assert percent[0, 1] == pytest.approx(200 / 3)
    assert percent[:3].sum(1) == pytest.approx(100)
    assert np.isnan(percent[3]).all()  # no image of that class
    assert off_diagonal(percent[:3, :3]).tolist() == pytest.approx([200 / 3, 0, 0, 0, 50, 0])


def test_pairs_of_two_hundred_thousand_classes_need_no_square() -> None:
    labels = np.array([0, 0, 0, 199_999, 199_999])
    names = [str(k) for k in range(200_000)]
    counted = {"a": confusion(labels, np.array([0, 7, 7, 3, 199_999]), 200_000),
               "b": confusion(labels, np.array([0, 0, 7, 3, 3]), 200_000)}  # fmt: skip
    _, data = confused_pairs(counted, names)
    found = [(r["true_class"], r["predicted_class"], r["label"], r["count"]) for r in data]
    assert found == [
        ("199999", "3", "a", 1), ("199999", "3", "b", 2), ("0", "7", "a", 2), ("0", "7", "b", 1),
    ]  # fmt: skip
    assert [r["share"] for r in data] == pytest.approx([1 / 2, 1, 2 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("percent", "text"),
    [(0, "0"), (0.02, "<.1"), (0.31, ".3"), (1.04, "1.0"), (9.96, "10"), (100, "100")],
)
def test_a_share_reads_0_only_where_it_is_0(percent: float, text: str) -> None:
    assert short(percent) == text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_names_keep_apart_in_order_and_inside(heights: list[float]) -> None:
    wished, step = sorted(heights), 1 / 24
    found = spread(wished, step)
    assert (np.diff(found) >= step - 1e-9).all()
    assert min(found) >= -1e-9
    assert max(found) <= 1 + 1e-9
    if (np.diff(wished) >= step).all():
        assert found == pytest.approx(wished)  # nothing moves that need not


def test_twenty_losses_look_different() -> None:
    found = list(looks([str(i) for i in range(20)]).values())
    assert len({(k.colour, k.marker) for k in found}) == 20
    assert len({(k.colour, str(k.dash)) for k in found}) == 20


def test_limits_hold_points_and_centers_in_a_square() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (500, 2)) * [100, 1]
    cell = Embedding("a", [Cloud(points, np.zeros(500, int))], centers=np.array([[0.0, 300.0]]))
    (left, right), (low, high) = cell.limits
    assert right - left == pytest.approx(high - low)
    assert low < -0.9
    assert high > 300


@pytest.mark.parametrize(("mistakes", "faint"), [(FULL_RINGS, False), (5 * FULL_RINGS, True)])
def test_many_mistakes_hide_no_class(mistakes: int, faint: bool) -> None:
    points = np.random.default_rng(0).normal(size=(2000, 2))
    cloud = Cloud(points, np.arange(2000) % 10, np.arange(2000) < mistakes)
    figure = draw_embeddings([Embedding("Softmax", [cloud])], 10, ["test images"])
    _, rings = figure.axes[0].collections
    assert len(rings.get_offsets()) == mistakes
    assert rings.get_alpha() == (0.35 if faint else 1.0)
    assert (rings.get_sizes()[0] < 18) == faint


def test_norm_groups_are_equal_in_size_and_ordered() -> None:
    random = np.random.default_rng(1)
    norms = random.uniform(1, 5, 600)
    found = norm_groups(norms, 3 / norms)
    assert len(found) == 15
    assert (np.diff(found[:, 0]) > 0).all()
    assert found[:, 2] == pytest.approx(3 / found[:, 0], rel=0.02)  # the law of a cosine loss
    assert (found[:, 1] <= found[:, 2]).all()
    assert (found[:, 2] <= found[:, 3]).all()


def test_stored_arrays_of_an_older_run_give_nothing() -> None:
    found = space({}, "softmax")
    assert found.train is found.gradients is found.untrained is found.vectors is None
    assert found.boundary is None


def test_vectors_are_points_only_where_they_are_centers() -> None:
    vectors = np.eye(3)
    assert not space({"class_vectors": vectors}, "cosface").are_centers
    assert space({"class_vectors": vectors}, "contrastive").are_centers
    assert not space({"class_vectors": vectors}, "triplet").are_centers  # on the unit sphere
    known = space({"class_vectors": 2 * vectors, "centers": vectors}, "my.plugin:Head")
    assert known.are_centers
    assert known.vectors is vectors


def test_points_are_chosen_evenly_and_once() -> None:
    assert evenly(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly(3, 10).tolist() == [0, 1, 2]


def test_significant_digits() -> None:
    assert significant(None) == "n/a"
    assert significant(Estimate(0.01234, None, None, 1, (), None)) == "0.0123"
    assert (
        significant(Estimate(1234.5, 1200.0, 1269.0, 2, (), "t over seeds"))
        == "1,234 [1,200, 1,269]"
    )
    assert significant(Estimate(-0.306, None, None, 1, (), None)) == "−0.306"


def test_images_are_chosen_although_one_loss_learned_nothing() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    images = np.zeros((6, 1, 4, 4))
    good = SimpleNamespace(labels=labels, images=images, wrong=np.array([1, 0, 0, 0, 0, 1], bool))
    lost = SimpleNamespace(labels=labels, images=images, wrong=np.ones(6, bool))
    assert pick_images([good, lost], 3) == [1, 2, 4]  # the first right one of each class
    assert pick_images([good, lost], 4) == [1, 2, 3, 4]  # and then more of the same
    assert pick_images([], 3) == []
