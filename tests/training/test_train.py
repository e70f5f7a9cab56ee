"""Training: repeatable, resumable at any step, honest about divergence."""

import copy

import pytest
import torch
from torch import nn

from robustloss.losses.base import LossHead, LossTerms
from robustloss.models.classifier import Classifier
from robustloss.seeding import using_seed
from robustloss.spec.training import TrainSpec
from robustloss.training import loop as training_loop
from robustloss.training import precision as training_precision
from robustloss.training import train as training
from robustloss.training.log import TrainingDiverged
from robustloss.training.optimizer import longest_gradient
from robustloss.training.precision import choose_precision
from tests.small_model import new_model

CPU = torch.device("cpu")


def spec(**keys):
    keys = {"epochs": 4, "batch_size": 50, "precision": "float32", "lr": 0.02, **keys}
    return TrainSpec.model_validate(keys)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns_and_logs_what_it_did(digits):
    model = new_model(digits)
    log = training.train(model, digits, spec(epochs=15), seed=0, device=CPU)
    assert log.steps == 15 * 6
    assert [line["epoch"] for line in log.curve] == list(range(1, 16))
    assert log.curve[-1]["validation_error"] < 0.15 < log.curve[0]["validation_error"]
    assert log.parameters == sum(p.numel() for p in model.parameters())
    assert not model.training
    assert log.curve[-1]["validation_error"] == training.error_rate(
        model, digits.validation, "float32"
    )


@pytest.mark.parametrize("loss", ["softmax", "center", "lgm"])
def test_same_seed_same_weights_other_seed_other_weights(digits, loss):
    runs = []
    for seed in (0, 0, 1):
        torch.rand(3)  # ambient randomness must not matter
        model = new_model(digits, loss)
        training.train(model, digits, spec(augment="shift"), seed=seed, device=CPU)
        runs.append(weights(model))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_pair_losses_log_how_many_tuples_a_step_has(digits, monkeypatch):
    model = new_model(digits, "contrastive")
    counts = iter(range(1, 100))
    monkeypatch.setattr(
        type(model.head), "tuples", lambda self, features, labels: torch.tensor(next(counts))
    )
    log = training.train(model, digits, spec(epochs=2), seed=0, device=CPU)  # 6 steps an epoch
    assert [line["tuples"] for line in log.curve] == [3.5, 9.5]
    assert all(line["tuple_seconds"] > 0 for line in log.curve)


def test_a_count_of_tuples_that_is_no_scalar_is_refused(digits, monkeypatch):
    model = new_model(digits, "contrastive")
    monkeypatch.setattr(type(model.head), "tuples", lambda self, features, labels: (3, 4))
    with pytest.raises(ValueError, match=r"tuples\(\) returned tuple\. Return one count"):
        training.train(model, digits, spec(epochs=1), seed=0, device=CPU)


def test_other_losses_have_no_tuples_and_a_schedule_is_noted(digits):
    log = training.train(new_model(digits, "l_softmax"), digits, spec(epochs=1), seed=0, device=CPU)
    assert log.curve[0]["tuples"] is None
    assert log.curve[0]["tuple_seconds"] is None
    assert log.note.startswith("L-Softmax m ")


class Drawing(LossHead):
    """A head that draws random numbers wherever a plug-in may."""

    def __init__(self, feature_dim, num_classes):
        super().__init__(feature_dim, num_classes)
        self.linear = nn.Linear(feature_dim, num_classes)
        self.register_buffer("drawn", torch.zeros(3))

    def start(self, class_counts):
        self.drawn[0] = torch.rand(())

    def logits(self, features):
        return self.linear(features)

    def loss(self, features, labels, *, progress):
        noisy = features + 0.1 * torch.randn_like(features)
        value = nn.functional.cross_entropy(self.logits(noisy), labels, reduction="none")
        return LossTerms(value, torch.zeros_like(value))

    def after_step(self, features, labels):
        self.drawn[1] = torch.rand(())

    def fit(self, features, labels):
        self.drawn[2] = torch.rand(())


def drawing(digits):
    """A network with dropout behind a head that draws."""
    with using_seed("weights", 0):
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 8))
        return Classifier(network, Drawing(8, 10), digits.mean, digits.std)


def test_dropout_and_drawing_losses_follow_the_seed_alone(digits):
    runs = []
    for seed, ambient in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(ambient)
        before = torch.get_rng_state()
        model = drawing(digits)
        training.train(model, digits, spec(), seed=seed, device=CPU)
        runs.append(weights(model))
        assert torch.equal(torch.get_rng_state(), before)  # and leave the caller's draws alone
    assert same(runs[0], runs[1])
    assert not torch.equal(runs[0]["backbone.2.weight"], runs[2]["backbone.2.weight"])


@pytest.mark.parametrize(
    ("optimizer", "rate", "longest", "cure"),
    [
        ("sgd", 0.1, False, "set train.max_grad_norm = 1.0, which shortens long gradients."),
        ("sgd", 0.1, 1e9, "set train.max_grad_norm = 1.0 (it is 1e+09)."),
        ("sgd", 0.1, 1.0, "set train.lr = 0.033 (it is 0.1)."),
        ("sgd", 50.0, 1.0, "set train.lr = 0.1, the default for sgd (it is 50)."),
        (
            *("adam", 0.1, False),
            "set train.lr = 0.002, the default for adam (it is 0.1); if that is not enough, "
            "set train.max_grad_norm = 1.0, which shortens long gradients.",
        ),
    ],
)
def test_divergence_stops_with_its_cure(digits, optimizer, rate, longest, cure):
    settings = spec(optimizer=optimizer, lr=rate, max_grad_norm=longest)
    model = new_model(digits, "softmax")
    with torch.no_grad():
        next(model.head.parameters()).fill_(torch.inf)
    with pytest.raises(TrainingDiverged, match=r"NaN or infinite by step \d+; ") as told:
        training.train(model, digits, settings, seed=0, device=CPU)
    assert str(told.value).endswith(f"; {cure}")


def test_a_rate_that_is_too_high_diverges_and_stops(digits):
    settings = spec(lr=1000.0, max_grad_norm=1.0, weight_decay=1.0)
    with pytest.raises(TrainingDiverged, match=r"set train.lr = 0.1, .* \(it is 1000\)"):
        training.train(new_model(digits, "softmax"), digits, settings, seed=0, device=CPU)


@pytest.mark.parametrize(
    ("keys", "steps", "longest"),
    [
        ({}, 10_000, 1.0),
        ({"max_grad_norm": 5}, 10, 5.0),
        ({"max_grad_norm": False}, 10, None),
        ({"max_grad_norm": "if_short"}, 1995, 1.0),
        ({"max_grad_norm": "if_short"}, 2000, None),  # 400 of them warm up
        ({"max_grad_norm": "if_short", "schedule": "step"}, 2000, 1.0),  # none does
    ],
)
def test_which_gradients_are_shortened(keys, steps, longest):
    assert longest_gradient(TrainSpec.model_validate(keys), steps) == longest


def test_a_long_gradient_is_shortened_and_a_short_one_is_left(digits):
    """Plain gradient descent: the length of a step is lr times the length of the gradient."""
    plain = {"epochs": 1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    plain |= {"schedule": "constant", "batch_size": 300, "lr": 1.0}  # one step

    def step_of(**keys):
        model = new_model(digits, "softmax")
        before = weights(model)
        training.train(model, digits, spec(**plain, **keys), seed=0, device=CPU)
        return torch.cat([(model.state_dict()[n] - v).flatten() for n, v in before.items()])

    free = step_of(max_grad_norm=False)
    assert free.norm() > 0.1
    short = step_of(max_grad_norm=0.1)
    assert float(short.norm()) == pytest.approx(0.1, rel=1e-3)
    torch.testing.assert_close(short / short.norm(), free / free.norm(), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(step_of(max_grad_norm=1e6), free)


class Fixed(LossHead):
    """A head whose terms a test chooses."""

    shape = (50,)

    def __init__(self, feature_dim, num_classes):
        super().__init__(feature_dim, num_classes)
        self.linear = nn.Linear(feature_dim, num_classes)
        self.calls = []

    def logits(self, features):
        return self.linear(features)

    def loss(self, features, labels, *, progress):
        self.calls.append((progress, features.dtype, torch.is_autocast_enabled("cpu")))
        value = nn.functional.cross_entropy(self.logits(features), labels, reduction="none")
        return LossTerms(value.mean().expand(self.shape), torch.zeros(len(labels)))

    def after_step(self, features, labels):
        assert not features.requires_grad
        self.calls.append("after_step")

    def start(self, class_counts):
        self.calls.append(("start", class_counts.tolist()))

    def fit(self, features, labels):
        self.calls.append(("fit", tuple(features.shape), len(labels)))


def fixed(digits, shape):
    head = Fixed(8, 10)
    head.shape = shape
    return Classifier(new_model(digits).backbone, head, digits.mean, digits.std)


def test_a_wrong_shape_of_the_loss_is_told_with_both_shapes(digits):
    with pytest.raises(
        ValueError, match=r"loss\(\).classification \(shape \(\)\) must have shape \(50,\)"
    ):
        training.train(fixed(digits, ()), digits, spec(), seed=0, device=CPU)


def test_a_wrong_shape_of_the_logits_is_told_with_both_shapes(digits):
    model = fixed(digits, (50,))
    model.head.linear = nn.Linear(8, 7)
    with pytest.raises(
        ValueError, match=r"logits\(\) \(shape \(50, 7\)\) must have shape \(50, 10\)"
    ):
        training.train(model, digits, spec(), seed=0, device=CPU)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_head_is_called_as_the_contract_says(digits, precision):
    model = fixed(digits, (50,))
    training.train(model, digits, spec(epochs=2, precision=precision), seed=0, device=CPU)
    calls = model.head.calls
    assert calls[0] == ("start", torch.bincount(digits.train.labels).tolist())
    assert calls[-1] == ("fit", (300, 8), 300)
    steps = calls[1:-1]
    assert steps[1::2] == ["after_step"] * 12
    for number, (progress, dtype, autocast) in enumerate(steps[::2]):
        assert progress == pytest.approx(number / 12)
        assert dtype == torch.float32
        assert not autocast


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "chosen"),
    [
        (True, False, "bfloat16"),
        (False, True, "bfloat16"),
        (False, False, "float32"),
        (None, None, "float32"),
    ],
)
def test_a_processor_that_multiplies_bfloat16_trains_in_it(monkeypatch, amx, avx512_bf16, chosen):
    units = {"_is_amx_tile_supported": amx, "_is_avx512_bf16_supported": avx512_bf16}
    for name, says in units.items():
        if says is None:  # a torch that cannot be asked
            monkeypatch.delattr(torch.cpu, name, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda says=says: says, raising=False)
    assert choose_precision("auto", CPU) == chosen
    assert choose_precision("float32", CPU) == "float32"


def test_bfloat16_features_are_close_to_float32(digits):
    model = new_model(digits).eval()
    images = digits.test.batch(slice(0, 64))
    with torch.no_grad():
        exact = model.features(images)
        with training_precision.autocast(CPU, "bfloat16"):
            rough = model.features(images)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)
    assert not torch.equal(rough, exact)


def test_base_rates_of_groups_keep_their_ratio(digits):
    """A head's own learning rate follows the schedule by the same factor."""
    model = new_model(digits)
    model.head.parameter_groups = lambda lr: [
        {"params": list(model.head.parameters()), "lr": 0.1 * lr}
    ]
    seen = []
    original = training_loop.Loop.step

    def step(self, positions):
        original(self, positions)
        seen.append([group["lr"] for group in self.optimizer.param_groups])

    loop = copy.copy(training_loop.Loop)
    try:
        training_loop.Loop.step = step
        training.train(model, digits, spec(), seed=0, device=CPU)
    finally:
        training_loop.Loop.step = original
    assert loop is training_loop.Loop
    assert len({round(a, 9) for a, _ in seen}) > 5
    assert all(b == pytest.approx(0.1 * a) for a, b in seen)
