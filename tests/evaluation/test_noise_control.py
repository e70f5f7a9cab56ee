"""Noise of the size of an attack: sizes, the box, and that it belongs to the image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robustloss.analysis.detection import compute
from robustloss.analysis.tables import of_cell
from robustloss.attacks.base import NORMS
from robustloss.attacks.noise import ImageNoise
from robustloss.data.load import load_dataset
from robustloss.evaluation import noise_control
from robustloss.evaluation.noise_control import add_noise
from robustloss.evaluation.passes import clean_record
from robustloss.spec.data import DataSpec
from robustloss.spec.detection import SCORE_NAMES
from tests.analysis.test_tables import CELL, CLEAN, RECORDS, REFERENCE, make


def noise(n: int, seed: int = 0) -> ImageNoise:
    return ImageNoise(seed, torch.arange(n))


@pytest.fixture
def images():
    drawn = torch.rand((12, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    drawn[:, :, :4] = 0.0  # black, as most of MNIST
    drawn[:, :, 7] = 1.0
    return drawn


@pytest.mark.parametrize("norm", NORMS)
def test_the_change_has_the_size_of_each_image_and_stays_in_the_box(images, norm):
    sizes = torch.linspace(0, {"linf": 0.4, "l2": 3.0, "l1": 12.0}[norm], 12)
    moved = add_noise(images, sizes, noise(12), norm)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    found = torch.linalg.vector_norm((moved - images).flatten(1), ord=order, dim=1)
    torch.testing.assert_close(found, sizes, rtol=1e-4, atol=1e-6)
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(moved[0], images[0])


def test_where_the_box_is_too_small_it_is_filled(images):
    moved = add_noise(images, torch.full((12,), 100.0), noise(12), "l2")
    assert bool(((moved == 0) | (moved == 1)).float().mean() > 0.95)


def test_the_noise_has_no_direction(images):
    """Half of the pixels inside the box go up, and two images differ."""
    middle = torch.full((12, 1, 8, 8), 0.5)
    moved = add_noise(middle, torch.full((12,), 0.1), noise(12), "linf") - middle
    assert float((moved > 0).float().mean()) == pytest.approx(0.5, abs=0.06)
    assert not torch.equal(moved[0], moved[1])
    again = add_noise(middle, torch.full((12,), 0.1), noise(12, seed=1), "linf") - middle
    assert not torch.equal(moved, again)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_belongs_to_the_image_and_not_to_the_batch(images, norm):
    sizes = torch.linspace(0.1, 0.3, 12)
    whole = add_noise(images, sizes, noise(12), norm)
    some = torch.tensor([7, 2, 9])
    part = add_noise(images[some], sizes[some], ImageNoise(0, some), norm)
    torch.testing.assert_close(part, whole[some], rtol=0, atol=1e-6)


class Flat(torch.nn.Module):
    """A classifier whose features are the first pixels."""

    def __init__(self):
        super().__init__()
        self.head = type("Head", (), {"num_classes": 10})()

    def outputs(self, images):
        features = images.flatten(1)[:, 20:30]
        return features, features * 2, features - 1


@pytest.mark.parametrize("norm", NORMS)
def test_the_record_is_of_the_same_images_with_the_attacks_sizes(norm):
    test = load_dataset(DataSpec(name="digits", test_size=100)).test
    clean = clean_record(Flat(), test)
    sizes = np.linspace(0.05, 0.3, 100, dtype=np.float32)
    attacked = replace(clean, linf=sizes, l2=4 * sizes, l1=20 * sizes)
    found = noise_control.noise_record(Flat(), test, attacked, norm, seed=3)
    np.testing.assert_array_equal(found.index, clean.index)
    np.testing.assert_array_equal(found.labels, clean.labels)
    np.testing.assert_allclose(getattr(found, norm), getattr(attacked, norm), rtol=1e-3)
    assert found.images.shape == (0, 1, 8, 8)
    assert not np.array_equal(found.logits, clean.logits)
    again = noise_control.noise_record(Flat(), test, attacked, norm, seed=3)
    np.testing.assert_array_equal(found.logits, again.logits)


def numbers_with(control):
    """The tables of a cell with a control of its attack at eps 0.2."""
    passes = compute.passes_of(RECORDS, REFERENCE, {("FGSM", 0.2): control}, {})
    stored = compute.compute_scores(SCORE_NAMES, REFERENCE, passes, density=False)
    return of_cell.cell_numbers(RECORDS, REFERENCE, CELL, stored=stored)


def test_the_control_is_a_population_and_a_column():
    # the noise leaves the scores of images 0 and 1, and lowers those of 2 and 3
    control = make([0, 0, 1, 0], [-1, -2, -9, -9])
    found = numbers_with(control)
    rows = {row["eps"]: row["auroc_noise"] for row in found["rows"] if row["attack"] != "none"}
    # clean {-1 -2 -3 -4} against {-1 -2 -9 -9}: 2.5 + 2 + 2 + 2 less the pairs above: by hand
    above = (2 + 0.5 + 1) + (2 + 0.5) + 2 + 2
    assert rows == {0.1: None, 0.2: above / 16}
    errors = [row["error_noise"] for row in found["rows"] if row["attack"] != "none"]
    assert errors == [None, 0.25]  # it predicts 0 0 1 0 for labels 0 0 1 1
    noisy = [row for row in found["detection"] if row["population"] == "noise"]
    assert {row["eps"] for row in noisy} == {0.2}
    own = next(row for row in noisy if row["score"] == "class_log_likelihood")
    assert (own["n_clean"], own["n_attacked"], own["auroc"]) == (4, 4, above / 16)
    assert own["undetected_success_at_5fpr"] is None


def test_a_control_of_other_images_is_refused():
    other = replace(CLEAN, index=np.arange(4) + 1)
    with pytest.raises(ValueError, match="same images"):
        numbers_with(other)
