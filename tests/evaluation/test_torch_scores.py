"""Scores in torch form: the numbers of the array form, gradients to follow, optima reached."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustloss.analysis.detection.scores import FITS, SCORES, build_scores
from robustloss.attacks import build_attack, perturb
from robustloss.evaluation.detector import ScoreView, score_view
from robustloss.evaluation.torch_scores import (
    TORCH_SCORES,
    Judged,
    Outputs,
    build_torch_score,
)
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.results.records import Record, validation_record
from robustloss.spec.detection import LIKELIHOOD, SCORE_NAMES

MEANS = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 9.0]])
CPU = torch.device("cpu")


class Plane(nn.Module):
    """Two features, along orthogonal rows of length 4: an L2 ball of images is a disc of features.

    Logits are those of a Gaussian head with the means above, and log-likelihoods its densities.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        rows = 4 * torch.linalg.qr(torch.randn(36, 2, generator=generator)).Q.T
        self.rows = nn.Parameter(rows.contiguous())
        self.register_buffer("means", torch.from_numpy(MEANS).float())

    def features(self, images: Tensor) -> Tensor:
        return (images.flatten(1) - 0.5) @ self.rows.T

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.features(images)
        return features, *self.outputs_of(features)

    def outputs_of(self, features: Tensor) -> tuple[Tensor, Tensor]:
        shifts = features.unsqueeze(1) - self.get_buffer("means").to(features)
        logits = -0.5 * shifts.square().sum(dim=2)
        return logits, logits - math.log(2 * math.pi)

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(images)[1]

    def around(self, features: Tensor) -> Tensor:
        """The images nearest to grey with these features (B,2)."""
        return (0.5 + features @ self.rows.detach() / 16).view(-1, 1, 6, 6)


PLANE = Plane().eval()


def record_of(features: Tensor, labels: np.ndarray | None = None) -> Record:
    logits, likelihood = PLANE.outputs_of(features)
    n = len(features)
    return Record(
        index=np.arange(n),
        labels=np.zeros(n, int) if labels is None else labels,
        logits=logits.numpy(),
        class_log_likelihood=likelihood.numpy(),
        features=features.numpy(),
        linf=np.zeros(n, np.float32),
        l2=np.zeros(n, np.float32),
        zero_gradient=None,
        radius=None,
        images=np.zeros((0, 1, 1, 1), np.float32),
    )


def make_reference(n: int = 300, classes: tuple[int, ...] = (0, 1, 2)) -> dict[str, np.ndarray]:
    generator = torch.Generator().manual_seed(1)
    labels = np.array(classes)[np.arange(n) % len(classes)]
    means = torch.from_numpy(MEANS[labels]).float()
    train, validation = (means + torch.randn(n, 2, generator=generator) for _ in range(2))
    record = record_of(validation, labels)
    return {
        "train_features": train.numpy(),
        "train_labels": labels,
        "validation_index": record.index,
        "validation_labels": labels,
        "validation_features": validation.numpy(),
        "validation_logits": record.logits,
        "validation_class_log_likelihood": record.class_log_likelihood,
    }


REFERENCE = make_reference()


def both_forms(name: str, reference: dict[str, np.ndarray] = REFERENCE):
    array_form = build_scores([name], reference, density=True)[name]
    fit = FITS[name](reference) if name in FITS else {}
    return array_form, build_torch_score(name, fit, CPU)


def outputs_of(features: Tensor) -> Outputs:
    return Outputs(*(each.double() for each in PLANE.outputs_of(features)), features.double())


FAR_AND_NEAR = torch.cat(
    [
        torch.from_numpy(MEANS).float(),  # at a mean: a distance of 0
        torch.zeros(1, 2),  # no length, and a tie
        torch.tensor([[1000.0, -3.0], [-40.0, 60.0]]),  # posteriors that are 1 in float32
        6 * torch.randn(200, 2, generator=torch.Generator().manual_seed(2)),
    ]
)


def test_there_is_a_torch_form_of_every_score():
    assert set(TORCH_SCORES) == set(SCORES)


@pytest.mark.parametrize("name", SCORE_NAMES)
@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2)])
def test_both_forms_give_the_same(name, classes):
    array_form, torch_form = both_forms(name, make_reference(90, classes))
    found = torch_form(outputs_of(FAR_AND_NEAR)).score.numpy()
    # Nearest neighbours are found by the expanded square: its root is right to 1e-7 near 0.
    tolerance = {"atol": 1e-6} if name == "knn" else {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(found, array_form(record_of(FAR_AND_NEAR)), **tolerance)


def test_a_sure_posterior_keeps_its_rank():
    logits = torch.tensor([[0.0, 40.0], [0.0, 200.0]], dtype=torch.float64)
    first, second = TORCH_SCORES["max_log_posterior"](Outputs(logits, logits, None), {}).score
    assert first < second < 0


@pytest.mark.parametrize("name", SCORE_NAMES)
def test_every_goal_has_a_gradient(name):
    """At every image that is no optimum itself, and towards every class.

    But for a posterior of 1 within float32: there is nothing left to raise.
    """
    _, torch_form = both_forms(name)
    start = FAR_AND_NEAR[6:]
    for label in range(3):
        features = start.clone().requires_grad_()
        goals = torch_form(
            Outputs(*(x.double() for x in PLANE.outputs_of(features)), features.double())
        ).goals
        (gradient,) = torch.autograd.grad(goals[:, label].sum(), features)
        assert gradient.isfinite().all()
        assert (gradient != 0).any(dim=1)[goals[:, label].abs() > 1e-30].all()
        assert (goals[:, label].abs() > 1e-30).double().mean() > 0.5


@pytest.mark.parametrize("name", SCORE_NAMES)
def test_nothing_is_infinite_where_a_distance_or_a_class_is_missing(name):
    _, torch_form = both_forms(name, make_reference(90, (0, 2)))
    features = FAR_AND_NEAR.clone().requires_grad_()
    logits, likelihood = PLANE.outputs_of(features)
    goals, score = torch_form(Outputs(logits.double(), likelihood.double(), features.double()))
    (gradient,) = torch.autograd.grad(goals.sum(), features)
    assert goals.isfinite().all()
    assert gradient.isfinite().all()
    if name in ("mahalanobis", "relative_mahalanobis", "knn", "gaussian_mixture"):
        assert torch.equal(goals[:, 1], score)  # nothing was fitted to class 1


def view_of(name: str, reference: dict[str, np.ndarray] = REFERENCE) -> ScoreView:
    array_form, torch_form = both_forms(name, reference)
    scores = array_form(validation_record(reference))
    return score_view(PLANE, reference, torch_form, scores)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in SCORE_NAMES if name != LIKELIHOOD])
def test_the_most_typical_wrong_point_within_reach_is_found(name):
    """The optimum is known: it is the best of all features in the disc, by the array form."""
    generator = torch.Generator().manual_seed(3)
    # The longest features lie at either end of a chord: off the axis one end is the better one.
    middle = torch.tensor([-0.9, 1.0 if name == "feature_norm" else 0.0])
    start = (middle + 0.3 * torch.randn(15, 2, generator=generator))[: 5 if name == "knn" else 15]
    reach, labels = 1.6, torch.zeros(len(start), dtype=torch.int64)
    angle, length = torch.meshgrid(
        torch.linspace(0, 2 * math.pi, 121)[:-1], torch.linspace(0, reach, 31), indexing="ij"
    )
    disc = torch.stack([length * angle.cos(), length * angle.sin()], dim=-1).reshape(-1, 2)
    # Few training features leave nearest neighbours with an optimum beside every gap.
    reference = make_reference(600 if name == "knn" else 300)
    array_form, _ = both_forms(name, reference)
    best = []
    for point in start:
        record = record_of(point + disc)
        best.append(array_form(record)[~record.correct].max())
    built = build_attack("adaptive_selective", norm="l2", steps=60, score=name)
    images = PLANE.around(start)
    found = perturb(built, view_of(name, reference), images, labels, eps=[reach / 4])
    record = record_of(PLANE.features(found.adv_inputs[0]).detach())
    assert not record.correct.any()
    # In units of what the score varies by over clean images.
    spread = float(np.std(array_form(validation_record(reference))))
    short = (np.array(best) - array_form(record)) / spread
    assert short.max() < 0.03
    # There is something to find: beside the boundary the score is lower.
    beside = record_of(torch.tensor([[0.01, 0.0]]))
    assert name in ("knn", "feature_norm") or (best - array_form(beside)).max() / spread > 0.1


def test_the_threshold_is_that_of_the_score():
    array_form, _ = both_forms("mahalanobis")
    scores = array_form(validation_record(REFERENCE))
    assert view_of("mahalanobis").threshold == threshold_at_fpr(scores, 0.05)


def test_a_torch_form_of_another_score_is_refused():
    array_form, _ = both_forms("energy")
    _, other = both_forms("max_logit")
    with pytest.raises(ValueError, match="differs from its array form by up to"):
        score_view(PLANE, REFERENCE, other, array_form(validation_record(REFERENCE)))  # type: ignore[arg-type]


def test_a_score_of_ones_own_sees_what_a_record_has():
    def near(outputs, reference):
        assert outputs.predictions.shape == (7,)
        return -(outputs.features - reference["train_features"].mean(0)).norm(dim=1)

    judged = build_torch_score("mine.py:near", REFERENCE, CPU, near)(outputs_of(FAR_AND_NEAR[:7]))
    assert isinstance(judged, Judged)
    expected = np.linalg.norm(
        FAR_AND_NEAR[:7].numpy() - REFERENCE["train_features"].mean(0), axis=1
    )
    np.testing.assert_allclose(-judged.score.numpy(), expected, rtol=1e-5)
    assert judged.goals.shape == (7, 3)
    wrong = build_torch_score("mine.py:near", {}, CPU, lambda outputs: outputs.logits)
    with pytest.raises(ValueError, match=r"returned \(7, 3\). Return one number an image"):
        wrong(outputs_of(FAR_AND_NEAR[:7]))
