"""From model to Records: what is stored is what the model says of what the attack made."""

import numpy as np
import pytest
import torch
from torch import nn

from robustloss.attacks import build_attack, cuda_graphs, perturb
from robustloss.attacks.base import AttackOutput
from robustloss.attacks.cuda_graphs import Replayer
from robustloss.data.load import load_dataset
from robustloss.evaluation import attacked, detector, passes
from robustloss.evaluation import reference as evaluation
from robustloss.evaluation.attacked import AttackPass
from robustloss.evaluation.reference import reference_arrays
from robustloss.losses import build_loss
from robustloss.models.classifier import Classifier
from robustloss.results.layout import check_reference
from robustloss.spec.data import DataSpec
from tests.small_model import new_model


@pytest.fixture(scope="module")
def digits():
    return load_dataset(
        DataSpec(name="digits", train_size=200, validation_size=50, test_size=90), quiet=True
    )


def build(digits, loss="lgm", feature_dim=6):
    return new_model(digits, loss, feature_dim=feature_dim, seed=3).eval()


def test_the_clean_record_is_the_models_word(digits):
    model = build(digits)
    record = passes.clean_record(model, digits.test)
    with torch.no_grad():
        features, logits, likelihood = model.outputs(digits.test.batch(slice(None)))
    np.testing.assert_allclose(record.features, features.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(record.logits, logits.numpy(), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(
        record.class_log_likelihood, likelihood.numpy(), rtol=1e-5, atol=1e-4
    )
    assert record.index.tolist() == digits.test.index.tolist()
    assert record.labels.tolist() == digits.test.labels.tolist()
    assert not record.linf.any()
    assert record.zero_gradient is None
    np.testing.assert_array_equal(record.images, digits.test.batch(slice(0, 64)).numpy())


def test_what_is_recorded_of_a_model_serves_every_batch(digits, monkeypatch):
    made = []

    class Counted(Replayer):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(cuda_graphs, "Replayer", Counted)
    for number in (1, 2):
        few = digits.test.take(slice(0, 9))
        attack_pass = AttackPass(build_attack("pgd", steps=12), few, eps=(0.1,), batch_size=3)
        attacked.attacked_records(build(digits), attack_pass)
        assert len(made) == number


def test_attacked_records_are_what_perturb_makes(digits):
    model = build(digits)
    attack = build_attack("fgsm")
    eps = (0.0, 0.1, 0.3)
    records = attacked.attacked_records(
        model,
        AttackPass(attack, digits.test, eps, batch_size=40),
        clean=passes.clean_record(model, digits.test),
    )
    images = digits.test.batch(slice(None))
    made = perturb(attack, model, images, digits.test.labels, eps=eps)
    for number, budget in enumerate(eps):
        record = records[budget]
        with torch.no_grad():
            logits = model(made.adv_inputs[number])
        np.testing.assert_allclose(record.logits, logits.numpy(), rtol=1e-4, atol=1e-3)
        change = (made.adv_inputs[number] - images).flatten(1)
        np.testing.assert_allclose(record.linf, change.abs().amax(1).numpy(), atol=1e-6)
        np.testing.assert_allclose(record.l2, change.norm(dim=1).numpy(), atol=1e-5)
        np.testing.assert_array_equal(record.zero_gradient, made.zero_gradient.numpy())
        assert record.linf.max() <= budget + 1e-6


def test_one_budget_alone_gives_the_same_record(digits):
    """A new eps recomputes nothing else, so it must not matter which are computed together."""
    model = build(digits)
    attack = build_attack("fgsm")
    clean = passes.clean_record(model, digits.test)
    together, alone = (
        attacked.attacked_records(
            model, AttackPass(attack, digits.test, eps, batch_size=40), clean=clean
        )
        for eps in ((0.1, 0.3), (0.3,))
    )
    for field in ("logits", "features", "class_log_likelihood", "linf", "images"):
        np.testing.assert_array_equal(
            getattr(together[0.3], field), getattr(alone[0.3], field), err_msg=field
        )


class Peek:
    """An attack on the detector that only notes what it is shown."""

    name, norm, needs = "peek", "linf", "likelihood"

    def __init__(self):
        self.thresholds = []

    def __call__(self, model, inputs, labels, *, eps, noise):
        logits, likelihood = model.joint(inputs)
        assert logits.shape == likelihood.shape == (len(inputs), 10)
        self.thresholds.append(float(model.threshold))
        return AttackOutput(inputs.repeat(len(eps), 1, 1, 1, 1), None, None)


def test_an_attack_on_the_detector_sees_likelihood_and_threshold(digits):
    attack = Peek()
    model = build(digits)
    attack_pass = AttackPass(attack, digits.test, (0.1,), batch_size=90)
    clean = passes.clean_record(model, digits.test)
    with pytest.raises(ValueError, match=r"peek needs a detector\. Pass detector_view"):
        attacked.attacked_records(model, attack_pass, clean=clean)
    view = detector.LikelihoodView(model, -3.25)
    attacked.attacked_records(model, attack_pass, clean=clean, detector=view)
    assert attack.thresholds == [-3.25]


def test_class_means_are_those_of_the_training_features():
    reference = {
        "train_features": np.float32([[1, 0], [3, 4], [9, 9]]),
        "train_labels": np.array([2, 2, 0]),
        "validation_logits": np.zeros((7, 3)),
    }
    expected = [[9, 9], [np.nan, np.nan], [2, 2]]
    np.testing.assert_array_equal(detector.class_means(reference), np.float32(expected))


def test_an_attack_may_aim_at_the_class_means(digits):
    model = build(digits)
    means = np.eye(10, 6, dtype=np.float32)

    class Check(Peek):
        def __call__(self, model, inputs, labels, *, eps, noise):
            np.testing.assert_array_equal(model.class_means.numpy(), means)
            expected = self.model.head.logits(model.features(inputs))
            torch.testing.assert_close(expected, model(inputs))
            return super().__call__(model, inputs, labels, eps=eps, noise=noise)

    attack = Check()
    attack.model = model
    attack_pass = AttackPass(attack, digits.test, (0.3,), batch_size=90)
    clean = passes.clean_record(model, digits.test)
    view = detector.LikelihoodView(model, 0.0, means)
    attacked.attacked_records(model, attack_pass, clean=clean, detector=view)
    assert attack.thresholds == [0.0]
    matching = build_attack("adaptive_matching", steps=1)
    attack_pass = AttackPass(matching, digits.test, (0.3,), batch_size=90)
    view = detector.LikelihoodView(model, 0.0)
    with pytest.raises(ValueError, match="adaptive_matching' aims at the mean features"):
        attacked.attacked_records(model, attack_pass, clean=clean, detector=view)


@pytest.mark.parametrize(("shape", "known"), [((10, 6), True), ((10, 3, 6), False), ((), False)])
def test_only_one_point_per_class_is_taken_for_centers(digits, shape, known):
    model = build(digits, "softmax")
    model.head.register_buffer("centers", torch.ones(shape))
    arrays = reference_arrays(model, digits, torch.device("cpu"), fit_size=60)
    assert ("centers" in arrays) == known


def test_the_reference_holds_what_scores_and_pictures_need(digits):
    model = build(digits, feature_dim=2)
    arrays = evaluation.reference_arrays(model, digits, torch.device("cpu"), fit_size=60)
    assert arrays["validation_logits"].shape == (50, 10)
    assert arrays["train_features"].shape == (60, 2)
    assert np.bincount(arrays["train_labels"], minlength=10).min() >= 5  # stratified
    np.testing.assert_array_equal(arrays["centers"], model.head.centers.detach().numpy())
    row, column = 17, 203
    point = torch.tensor([[arrays["grid_x"][column], arrays["grid_y"][row]]])
    expected = model.head.class_log_likelihood(point)[0].detach().numpy()
    np.testing.assert_allclose(
        arrays["grid_class_log_likelihood"][row, column], expected, rtol=1e-4
    )
    assert arrays["grid_x"][0] < arrays["train_features"][:, 0].min()
    assert arrays["grid_y"][-1] > arrays["train_features"][:, 1].max()
    assert "grid_x" not in evaluation.reference_arrays(
        build(digits), digits, torch.device("cpu"), fit_size=60
    )
    check_reference(arrays, 10, 2)
    arrays["grid_y"] = np.where(np.arange(len(arrays["grid_y"])) == 3, np.nan, arrays["grid_y"])
    with pytest.raises(ValueError, match=r"grid_y must be finite"):
        check_reference(arrays, 10, 2)


def test_the_threshold_rejects_at_most_5_percent_of_validation(digits):
    arrays = evaluation.reference_arrays(build(digits), digits, torch.device("cpu"), fit_size=60)
    threshold = detector.detector_threshold(arrays)
    predicted = arrays["validation_logits"].argmax(1)
    scores = arrays["validation_class_log_likelihood"][np.arange(50), predicted]
    assert (scores < threshold).mean() <= 0.05
    assert (scores <= threshold).mean() > 0.05  # and no stricter than it need be


class Broken(nn.Module):
    density = False

    def __init__(self, value):
        super().__init__()
        self.head = build_loss("softmax", feature_dim=64, num_classes=10)
        self.value = value
        self.feature_dim, self.num_classes = 64, 10

    def logits(self, features):
        return self.head.logits(features)

    def class_log_likelihood(self, features):
        return self.value(self.logits(features))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            lambda logits: logits[:, :3],
            r"class_log_likelihood\(\) \(shape .*\) must have shape \(90, 10\)",
        ),
        (lambda logits: logits / 0.0, r"class_log_likelihood\(\) returned NaN or infinite"),
    ],
)
def test_a_head_that_breaks_its_word_is_refused(digits, value, message):
    model = Classifier(nn.Flatten(), Broken(value), digits.mean, digits.std)
    with pytest.raises(ValueError, match=message):
        passes.clean_record(model, digits.test)
