"""Scores fitted on training features: literal oracles, pytorch-ood, and hostile features."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from robustloss.analysis.detection.scores import FITTED, build_scores
from robustloss.losses import build_loss
from robustloss.results.records import Record
from robustloss.spec.detection import SCORE_NAMES

CLASSES, DIM = 4, 6


def make(features, logits=None, likelihood=None, labels=None) -> Record:
    n = len(features)
    logits = np.zeros((n, CLASSES)) if logits is None else logits
    return Record(
        index=np.arange(n),
        labels=np.zeros(n, int) if labels is None else labels,
        logits=logits,
        class_log_likelihood=logits if likelihood is None else likelihood,
        features=features,
        linf=np.zeros(n, np.float32),
        l2=np.zeros(n, np.float32),
        zero_gradient=None,
        radius=None,
        images=np.zeros((0, 1, 1, 1), np.float32),
    )


@pytest.fixture
def reference():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % CLASSES
    mixing = rng.normal(size=(DIM, DIM))
    means = 4 * rng.normal(size=(CLASSES, DIM))
    features = means[labels] + rng.normal(size=(200, DIM)) @ mixing
    logits = -((features[:, None] - means) ** 2).sum(2)
    return {
        "train_features": features.astype(np.float32),
        "train_labels": labels,
        "validation_features": features[::2].astype(np.float32),
        "validation_labels": labels[::2],
        "validation_index": np.arange(100),
        "validation_logits": logits[::2],
        "validation_class_log_likelihood": logits[::2] - 3.0,
    }


@pytest.fixture
def record(reference):
    rng = np.random.default_rng(1)
    return make(reference["train_features"][:50] + rng.normal(0, 3, (50, DIM)))


def scored(name, reference, record, *, density=True):
    return build_scores([name], reference, density=density)[name](record)


def moments(reference):
    """Features, class means and the covariance within the classes, in float64."""
    features, labels = reference["train_features"].astype(float), reference["train_labels"]
    means = np.stack([features[labels == k].mean(0) for k in range(CLASSES)])
    centered = features - means[labels]
    return features, means, ridged(centered.T @ centered / len(features))


def ridged(covariance):
    """With a millionth of the mean variance on the diagonal, so that it can be inverted."""
    return covariance + 1e-6 * np.trace(covariance) / DIM * np.eye(DIM)


def test_mahalanobis_is_the_literal_distance(reference, record):
    _, means, covariance = moments(reference)
    inverse = np.linalg.inv(covariance)
    literal = [
        -min((f - mean) @ inverse @ (f - mean) for mean in means)
        for f in record.features.astype(float)
    ]
    np.testing.assert_allclose(scored("mahalanobis", reference, record), literal, rtol=1e-6)


def test_relative_mahalanobis_takes_the_distance_to_all_away(reference, record):
    features, _, _ = moments(reference)
    inverse = np.linalg.inv(ridged(np.cov(features.T, bias=True)))
    gap = record.features.astype(float) - features.mean(0)
    whole = np.einsum("nd,de,ne->n", gap, inverse, gap)
    known = scored("mahalanobis", reference, record) + whole
    np.testing.assert_allclose(
        scored("relative_mahalanobis", reference, record), known, rtol=1e-4, atol=1e-6
    )


def test_knn_is_the_literal_distance_to_the_tenth(reference, record):
    train = reference["train_features"].astype(float)
    train /= np.linalg.norm(train, axis=1, keepdims=True)
    own = record.features / np.linalg.norm(record.features, axis=1, keepdims=True)
    literal = [-sorted(np.linalg.norm(train - f, axis=1))[9] for f in own]
    # every validation image is right, so nothing is there to choose k by
    np.testing.assert_allclose(scored("knn", reference, record), literal, rtol=1e-6)


def test_k_is_chosen_by_mistakes_on_clean_validation_images(reference, record):
    """A far image is wrong, and near neighbours of wrong ones lie closer than the 20th."""
    wrong = reference["validation_logits"].copy()
    wrong[:10] = -wrong[:10]
    with_mistakes = reference | {"validation_logits": wrong}
    train = reference["train_features"].astype(float)
    train /= np.linalg.norm(train, axis=1, keepdims=True)
    validation = reference["validation_features"].astype(float)
    validation /= np.linalg.norm(validation, axis=1, keepdims=True)
    distances = np.sort(np.linalg.norm(validation[:, None] - train, axis=2), axis=1)
    right = wrong.argmax(1) == reference["validation_labels"]

    def area(k):
        own = distances[:, k - 1]
        above = own[~right][:, None] - own[right]
        return np.mean(above > 0) + np.mean(above == 0) / 2

    best = max((1, 5, 10, 20, 50), key=area)
    own = record.features / np.linalg.norm(record.features, axis=1, keepdims=True)
    literal = [-sorted(np.linalg.norm(train - f, axis=1))[best - 1] for f in own]
    np.testing.assert_allclose(scored("knn", with_mistakes, record), literal, rtol=1e-6)


def test_the_gaussian_mixture_is_the_literal_density(reference, record):
    features, means, _ = moments(reference)
    density = 0.0
    for k, mean in enumerate(means):
        own = features[reference["train_labels"] == k]
        covariance = ridged(ledoit_wolf(own - mean, assume_centered=True)[0])
        density = density + multivariate_normal(mean, covariance).pdf(record.features) / CLASSES
    found = scored("gaussian_mixture", reference, record)
    np.testing.assert_allclose(found, np.log(density), rtol=1e-4)


@pytest.mark.parametrize("priors", ["uniform", "counts"])
def test_the_marginal_likelihood_has_the_priors_of_the_head(reference, priors):
    torch.manual_seed(0)
    head = build_loss("gm", feature_dim=DIM, num_classes=CLASSES, priors=priors).double()
    head.start(torch.tensor([10, 20, 30, 40]))
    features = torch.from_numpy(reference["validation_features"]).double()
    with torch.no_grad():
        logits, likelihood = head.logits(features), head.class_log_likelihood(features)
    arrays = reference | {
        "validation_logits": logits.numpy(),
        "validation_class_log_likelihood": likelihood.numpy(),
    }
    shares = np.array([0.1, 0.2, 0.3, 0.4]) if priors == "counts" else np.full(4, 0.25)
    known = np.log(np.exp(likelihood.numpy() + 50) @ shares) - 50
    found = scored(
        "marginal_log_likelihood",
        arrays,
        make(features.numpy(), logits.numpy(), likelihood.numpy()),
    )
    np.testing.assert_allclose(found, known, rtol=1e-6)


def test_far_likelihoods_keep_their_order(reference):
    logits = -1e5 - np.arange(20.0)[:, None] * np.ones(CLASSES)
    arrays = reference | {
        "validation_logits": logits,
        "validation_class_log_likelihood": logits - 5,
    }
    far = make(np.ones((20, DIM), np.float32), logits, logits - 5)
    for name in ("marginal_log_likelihood", "energy", "max_logit", "class_log_likelihood"):
        assert (np.diff(scored(name, arrays, far)) < 0).all()


def test_what_a_loss_does_not_have_is_left_out(reference):
    found = build_scores(SCORE_NAMES, reference, density=False)
    assert list(found) == [name for name in SCORE_NAMES if name != "marginal_log_likelihood"]
    bare = {k: v for k, v in reference.items() if "train" not in k}
    assert set(build_scores(SCORE_NAMES, bare, density=True)) == {
        *("class_log_likelihood", "marginal_log_likelihood", "max_log_posterior"),
        *("max_logit", "energy"),
    }
    with pytest.raises(ValueError, match=r"score \(='likelyhood'\) must be one of"):
        build_scores(["likelyhood"], reference, density=True)


def test_a_record_without_features_says_so(reference, record):
    with pytest.raises(ValueError, match="no features"):
        scored("mahalanobis", reference, replace(record, features=None))


@pytest.mark.parametrize("name", [name for name in FITTED if name != "marginal_log_likelihood"])
@pytest.mark.parametrize("kind", ["zeros", "constant", "one_image_a_class", "huge", "more_dims"])
def test_hostile_features_have_finite_scores(reference, record, name, kind):
    features, labels = reference["train_features"].copy(), reference["train_labels"]
    if kind == "zeros":
        features[:] = 0
    elif kind == "constant":
        features[:, 2] = 1.0
    elif kind == "huge":
        features *= 1e4
    elif kind == "one_image_a_class":
        features, labels = features[:CLASSES], labels[:CLASSES]
    else:
        rng = np.random.default_rng(3)
        features, labels = rng.normal(size=(20, 50)).astype(np.float32), labels[:20]
        record = make(rng.normal(size=(7, 50)).astype(np.float32))
        reference = {k: v for k, v in reference.items() if k != "validation_features"}
    arrays = reference | {"train_features": features, "train_labels": labels}
    values = scored(name, arrays, record)
    assert np.isfinite(values).all()
    assert values.shape == (record.n,)


@pytest.mark.parametrize("name", [name for name in FITTED if name != "marginal_log_likelihood"])
def test_a_score_depends_on_no_other_image(reference, record, name):
    some = np.array([7, 3, 30])
    part = make(record.features[some])
    np.testing.assert_allclose(
        scored(name, reference, part), scored(name, reference, record)[some], rtol=1e-9
    )


def assert_proportional(found, known):
    factor = (found @ known) / (known @ known)
    assert factor > 0
    np.testing.assert_allclose(found, factor * known, rtol=2e-3, atol=1e-3 * np.abs(found).max())


@pytest.mark.skipif(
    importlib.util.find_spec("pytorch_ood") is None, reason="pytorch-ood is not installed"
)
class TestAgainstPytorchOod:
    """Its scores are outlier scores; its Mahalanobis covariances lack a constant factor."""

    @pytest.fixture
    def tensors(self, reference, record):
        return (
            torch.from_numpy(reference["train_features"]),
            torch.from_numpy(reference["train_labels"]),
            torch.from_numpy(record.features).float(),
        )

    def test_mahalanobis(self, reference, record, tensors):
        from pytorch_ood.detector import Mahalanobis

        train, labels, own = tensors
        known = Mahalanobis(None).fit_features(train, labels).predict_features(own)
        assert_proportional(scored("mahalanobis", reference, record), -known.numpy())

    def test_relative_mahalanobis(self, reference, record, tensors):
        from pytorch_ood.detector import RMD

        train, labels, own = tensors
        known = RMD(None).fit_features(train, labels).predict_features(own)
        assert_proportional(scored("relative_mahalanobis", reference, record), -known.numpy())

    def test_energy_and_maximum_posterior(self, reference):
        from pytorch_ood.detector import EnergyBased, MaxSoftmax

        logits = torch.from_numpy(reference["validation_logits"]) / 10
        own = make(reference["validation_features"], logits.numpy())
        known = EnergyBased(None).predict_logits(logits)
        np.testing.assert_allclose(scored("energy", reference, own), -known.numpy(), rtol=1e-5)
        known = MaxSoftmax(None).predict_logits(logits)
        found = np.exp(scored("max_log_posterior", reference, own))
        np.testing.assert_allclose(found, -known.numpy(), rtol=1e-5)
