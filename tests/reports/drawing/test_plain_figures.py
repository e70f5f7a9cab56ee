"""The arithmetic under the figures, against closed forms and independent oracles."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from robustloss.metrics.rates import roc_curve, tpr_at_fpr
from robustloss.reports.chapters.detection.roc import at_grid, fpr_grid
from robustloss.reports.chapters.images.attacked import Attacked, ImageGrid, chance, draw_images
from robustloss.reports.chapters.space.embedding import plane
from robustloss.reports.chapters.space.likelihood_map import map_range
from robustloss.reports.drawing.histograms import Bins, odds_ticks, pooled_bins
from robustloss.reports.drawing.legends import legend_shape
from robustloss.reports.drawing.style import class_colours, looks, plain, report_style
from robustloss.reports.reading.numbers import AttackInfo
from robustloss.reports.reading.scene import chosen_eps
from robustloss.reports.reading.views import reference, view
from robustloss.results.records import Record

scores = st.lists(st.integers(-8, 8).map(float), min_size=1, max_size=40)


@settings(max_examples=80, deadline=None)
@given(clean=scores, attacked=scores)
def test_drawn_roc_is_the_exact_one_at_every_drawn_rate(
    clean: list[float], attacked: list[float]
) -> None:
    grid = fpr_grid(len(clean))
    fpr, tpr, _ = roc_curve(np.array(clean), np.array(attacked))
    drawn = at_grid(fpr, tpr, grid)
    for rate, height in zip(grid, drawn, strict=True):
        assert height == pytest.approx(tpr_at_fpr(np.array(clean), np.array(attacked), rate))


def test_roc_grid_has_the_marked_rates_and_reaches_down_to_one_image() -> None:
    grid = fpr_grid(2000)
    assert {0.0, 0.01, 0.05, 1.0} <= set(grid)
    assert grid[1] == pytest.approx(1 / 2000)
    assert (np.diff(grid) > 0).all()


@settings(max_examples=80, deadline=None)
@given(
    groups=st.lists(
        st.lists(st.floats(-1e6, 1e6) | st.sampled_from([-np.inf, np.inf]), min_size=1),
        min_size=1,
        max_size=3,
    )
)
def test_no_image_is_lost_between_the_bins(groups: list[list[float]]) -> None:
    arrays = [np.array(g) for g in groups]
    bins = pooled_bins(arrays, count=7)
    assert (np.diff(bins.edges) > 0).all()
    for values in arrays:
        assert bins.shares(values, len(values)).sum() == pytest.approx(100)
    assert len(bins.drawn()) == 8 + bins.below + bins.above


def test_pooled_bins_weigh_groups_equally_and_open_at_the_ends() -> None:
    few, many = np.linspace(0, 1, 50), np.linspace(10, 11, 5000)
    bins = pooled_bins([few, many], count=10, quantiles=(25, 75))
    # a quarter of the pooled mass is half of the small group
    assert bins.edges[[0, -1]] == pytest.approx([0.5, 10.5], abs=0.02)
    assert bins.below
    assert bins.above
    shares = bins.shares(few, 50)
    assert (shares[0], shares[-1]) == pytest.approx((50, 0), abs=2)


def test_a_far_attack_does_not_squeeze_the_clean_histogram() -> None:
    clean = np.linspace(-10, 0, 1000)
    bins = pooled_bins([clean, np.full(1000, -1e6)], around=clean)
    first, last = np.percentile(clean, (1, 99))
    assert bins.edges[0] == pytest.approx(first - 4 * (last - first))
    assert bins.shares(np.full(1000, -1e6), 1000)[0] == 100


def test_fixed_bins_hold_both_ends() -> None:
    bins = Bins(np.linspace(0, 1, 21), below=False, above=False)
    shares = bins.shares(np.array([0.0, 0.05, 0.999, 1.0]), 8)
    assert shares.sum() == 50
    assert (shares[0], shares[1], shares[-1]) == (12.5, 12.5, 25.0)


def test_odds_ticks_stand_where_they_say() -> None:
    for high, most in ((12.0, 9), (60.0, 5), (900.0, 4)):
        ticks = odds_ticks(-2.0, high, most)
        assert ticks[0] == (0.0, "½")
        assert 2 <= len(ticks) <= most
    named = {name: at for at, name in odds_ticks(-2.0, 12.0, 9)}
    assert named["90 %"] == pytest.approx(np.log(9))
    assert named["99.9 %"] == pytest.approx(np.log(999))
    assert named["1−10⁻⁵"] == pytest.approx(np.log(99999))


def test_plane_of_many_features_is_the_leading_svd() -> None:
    random = np.random.default_rng(0)
    points = random.standard_normal((300, 6)) @ np.diag([5, 3, 1, 1, 0.5, 0.1]) + 7
    found = plane(points)
    centred = points - points.mean(0)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    assert found.explained == pytest.approx(tuple((singular**2 / (singular**2).sum())[:2]))
    assert np.abs(found(points)) == pytest.approx(np.abs(centred @ vectors[:2].T), abs=1e-9)
    again = plane(points[::-1])  # the order of images decides nothing, not even a sign
    assert again(points) == pytest.approx(found(points), abs=1e-9)


def test_plane_of_two_features_is_the_identity() -> None:
    points = np.random.default_rng(1).standard_normal((20, 2))
    found = plane(points)
    assert found.explained is None
    assert (found(points) == points).all()
    assert (plane(points[:, :1])(points[:, :1]) == np.c_[points[:, 0], np.zeros(20)]).all()


def test_map_shows_every_contour() -> None:
    for top, level in ((-1.8, -6.4), (-1.8, -3.0), (80.0, 2.0), (0.0, 0.0)):
        low, high = map_range(np.array([[top, top - 300]]), level)
        assert high == top
        assert low < level
    assert map_range(np.array([[-1.8]]), -10.0)[0] == pytest.approx(-26.8)  # 25 nats at most


def record(logits: np.ndarray, likelihood: np.ndarray) -> Record:
    n = len(logits)
    zeros = np.zeros(n, np.float32)
    return Record(np.arange(n), np.zeros(n, int), logits, likelihood, None, zeros, zeros, None,
                  None, np.zeros((0, 1, 1, 1), np.float32))  # fmt: skip


def test_log_odds_do_not_saturate_where_float32_does() -> None:
    gaps = np.array([0.0, 5.0, 40.0, 700.0, 5000.0])
    logits = np.stack([gaps, np.zeros(5)], 1).astype(np.float32)
    seen = view(record(logits, logits[:, ::-1].copy()), keep_features=False)
    assert seen.log_odds[:4] == pytest.approx(gaps[:4], rel=1e-12)
    assert np.isposinf(seen.log_odds[4])
    assert np.float32(seen.posterior[2]) == 1  # what the plain posterior would show
    assert seen.score.tolist() == [0, 0, 0, 0, 0]  # the likelihood at the predicted class


def test_reference_thresholds_are_quantiles_of_the_predicted_class() -> None:
    score = np.arange(1000.0)
    likelihood = np.stack([np.full(1000, -1e9), score], 1)
    known = reference(
        {
            "validation_logits": np.stack([np.zeros(1000), np.ones(1000)], 1),
            "validation_class_log_likelihood": likelihood,
        }
    )
    assert known.levels == pytest.approx(np.quantile(score, (0.01, 0.05, 0.5)))
    assert (score < known.threshold).mean() == 0.05
    assert known.centers is None
    assert known.grid is None


def test_looks_differ_without_colour_too() -> None:
    found = looks([str(i) for i in range(24)])
    assert len({(k.colour, k.marker) for k in found.values()}) == 24
    first = list(found.values())[:8]
    for part in ("colour", "marker", "dash"):
        assert len({str(getattr(k, part)) for k in first}) == 8


@pytest.mark.parametrize("count", [1, 2, 10, 11, 100])
def test_every_class_has_its_own_colour(count: int) -> None:
    assert len(set(class_colours(count))) == count


def test_any_text_can_be_drawn() -> None:
    assert plain("a\n b\tc") == "a b c"
    assert plain("한국 $x$\x07") == "□□ $x$□"
    assert plain("x" * 50, 10) == "x" * 9 + "…"
    assert plain("_hidden") != "_hidden"  # a legend would drop it
    assert len(plain("_hidden")) == 8


def test_dollar_signs_are_not_mathematics() -> None:
    from matplotlib.figure import Figure

    with report_style():
        figure = Figure()
        text = figure.text(0, 0, "$\\frac{1}{$")
        figure.draw_without_rendering()
    assert text.get_parse_math() is False


@pytest.mark.parametrize(
    ("posterior", "text"),
    [(0.27, "27 %"), (0.984, "98 %"), (0.9874, "98.7 %"), (0.99951, ">99.9 %"), (1.0, ">99.9 %")],
)
def test_posteriors_are_never_rounded_to_certainty(posterior: float, text: str) -> None:
    assert chance(posterior) == text


def test_legends_fit_their_figure() -> None:
    for count, length, inches in ((4, 8, 10.0), (8, 30, 6.0), (30, 30, 3.0), (1, 1, 2.0)):
        columns, rows = legend_shape(["x" * length] * count, inches)
        assert columns * rows >= count
        assert columns == 1 or columns * (0.078 * length + 0.85) <= inches


def test_pictures_take_the_smallest_and_the_largest_eps() -> None:
    attack = AttackInfo("A", "fgsm", "linf", tuple(i / 10 for i in range(8)), "a")
    assert chosen_eps(attack) == (0.1, 0.3, 0.5, 0.7)
    few = AttackInfo("A", "fgsm", "linf", (0.0, 0.1), "a")
    assert chosen_eps(few) == (0.1,)


@pytest.mark.parametrize("columns", [["clean", "eps 0.03"], ["clean", "2/255", "4/255", "8/255"]])
def test_titles_of_attacked_images_stay_apart_and_inside(columns: list[str]) -> None:
    picture = np.zeros((3, 4, 4))
    names = [f"test image {k}, class {k} (automobile)" for k in range(10 // len(columns) - 1)]
    cells = [[[Attacked(picture, None, 0, 0.5, True) for _ in columns] for _ in names]]
    with report_style():
        figure = draw_images(ImageGrid(["softmax"], columns, names, cells))
        draw = FigureCanvasAgg(figure).get_renderer()
        boxes = [text.get_window_extent(draw) for text in figure.axes[0].texts]
    texts = [text.get_text() for text in figure.axes[0].texts]
    titles = [box for box, text in zip(boxes, texts, strict=True) if "test image" in text]
    assert len(titles) == len(names)
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(titles))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    below = [box for box, text in zip(boxes, texts, strict=True) if text in columns]
    assert not any(title.overlaps(box) for title in titles for box in below)


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_a_backend_that_is_not_here_costs_no_report(backend: str) -> None:
    code = "from robustloss.reports import build_report; import os; print(os.environ['MPLBACKEND'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, backend), done.stderr
