"""The nearest class mean on trained features: closed forms, and what of the trained loss stays."""

import pytest
import torch
from scipy import stats

from robustloss.losses import build_loss
from robustloss.models.nearest_mean import NearestMeanHead

# Two classes about (3, 0) and (0, 4), each image one unit from its mean: s² = 1/2 a feature.
SQUARE = torch.tensor([[3.0, 1], [3, -1], [1, 4], [-1, 4]])
LABELS = torch.tensor([0, 0, 1, 1])


@pytest.fixture
def head():
    found = NearestMeanHead(build_loss("softmax", feature_dim=2, num_classes=2))
    found.fit(SQUARE, LABELS)
    return found


def test_logits_and_likelihood_are_those_of_a_gaussian_of_the_features(head):
    features = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    means = [[3, 0], [0, 4]]
    wanted = torch.tensor(
        [[stats.multivariate_normal(m, 0.5).logpdf(f) for m in means] for f in features.numpy()]
    )
    assert torch.allclose(head.class_log_likelihood(features).double(), wanted, atol=1e-5)
    # Uniform priors: the posterior of the logits is that of the density.
    assert torch.allclose(head(features).softmax(1).double(), wanted.softmax(1), atol=1e-6)
    assert head(features)[1, 0] == 0


@pytest.mark.parametrize("name", ["softmax", "center", "lgm", "arcface", "triplet"])
def test_until_it_is_fitted_it_is_the_loss_that_trains(name):
    torch.manual_seed(0)
    trained = build_loss(name, feature_dim=3, num_classes=4)
    head, features = NearestMeanHead(trained), torch.randn(16, 3)
    labels = torch.arange(16) % 4
    for mine, its in zip(
        head.loss(features, labels, progress=0.5),
        trained.loss(features, labels, progress=0.5),
        strict=True,
    ):
        assert torch.equal(mine, its)
    assert head.batching == trained.batching
    assert head.logits_while_training == trained.logits_while_training
    assert [len(group["params"]) for group in head.parameter_groups(0.1)] == [
        len(group["params"]) for group in trained.parameter_groups(0.1)
    ]
    if trained.logits_while_training:
        assert torch.equal(head(features), trained(features))
    head.fit(features, labels)
    assert torch.equal(head(features).argmax(1), torch.cdist(features, head.centers).argmin(1))


def test_a_class_without_images_has_no_mean():
    head = NearestMeanHead(build_loss("softmax", feature_dim=2, num_classes=3))
    with pytest.raises(ValueError, match="class 2 has no training images"):
        head.fit(SQUARE, LABELS)
