"""The inner maximisation of adversarial training, against slow literal forms of the papers."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustloss.losses.softmax import SoftmaxHead
from robustloss.models.classifier import Classifier
from robustloss.seeding import using_repeatable_kernels
from robustloss.spec.training import AdversarialSpec, TrainSpec
from robustloss.training import captured_step, loop
from robustloss.training import train as training
from robustloss.training.adversary import Adversary, check_logits_needed, climb, kl_divergence
from tests.small_model import new_model

CPU = torch.device("cpu")
CapturedStep = captured_step.CapturedStep  # looked up here: what patches it runs on a GPU only
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def adversarial(**keys):
    return AdversarialSpec.model_validate({"eps": 0.2, **keys})


def spec(**keys):
    keys = {"epochs": 3, "batch_size": 50, "precision": "float32", "lr": 0.02, **keys}
    return TrainSpec.model_validate(keys)


def adversary(model, seed=0, **keys):
    return Adversary(adversarial(**keys), model, seed=seed, device=CPU, precision="float32")


def batch(digits, n=12):
    return digits.train.batch(slice(0, n)), digits.train.labels[:n]


# --- the attack ----------------------------------------------------------------------------------


def climbed_slowly(values, image, start, eps, steps, step_size, norm):
    """One image (C,H,W) climbs alone: the literal algorithm, entry by entry where it can be."""

    def into(point):
        point = torch.minimum(torch.maximum(point, torch.zeros_like(point)), torch.ones_like(point))
        delta = point - image
        if norm == "linf":
            bound = torch.full_like(delta, eps)
            delta = torch.minimum(torch.maximum(delta, -bound), bound)
        elif float(delta.square().sum().sqrt()) > eps:
            delta = delta * (eps / delta.square().sum().sqrt())
        return torch.minimum(
            torch.maximum(image + delta, torch.zeros_like(point)), torch.ones_like(point)
        )

    point = into(start)
    for _ in range(steps):
        point = point.clone().requires_grad_()
        values(point).backward()
        slope = point.grad
        step = slope.sign() if norm == "linf" else slope / slope.square().sum().sqrt()
        point = into(point.detach() + step_size * eps * step)
    return point


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("objective", ["ce", "margin", "loss"])
def test_pgd_of_a_batch_is_the_literal_pgd_of_each_image(digits, norm, objective):
    model = new_model(digits).double().eval()
    images, labels = (each for each in batch(digits, 6))
    images = images.double()
    found = adversary(model, norm=norm, objective=objective, eps=0.9 if norm == "l2" else 0.2)
    start = images + found.spec.eps * (torch.rand(images.shape, dtype=torch.float64) - 0.5)
    rules = {"eps": found.spec.eps, "steps": 5, "step_size": 0.4, "norm": norm}
    together, _ = climb(
        _float64(found, model, images, labels, objective), images, start, **rules
    )  # fmt: skip

    for i in range(len(images)):

        def values(point, i=i):
            features = model.backbone((point.unsqueeze(0) - model.mean) / model.std)
            logits = model.head.logits(features)[0]
            label = int(labels[i])
            if objective == "ce":
                return -(logits - logits.logsumexp(0))[label]
            if objective == "margin":
                return max(logits[j] for j in range(10) if j != label) - logits[label]
            terms = model.head.loss(features, labels[i : i + 1], progress=0.5)
            return (terms.classification + terms.regulariser).sum()

        alone = climbed_slowly(values, images[i], start[i], **rules)
        torch.testing.assert_close(together[i], alone, rtol=0, atol=1e-9)
        assert (alone - images[i]).abs().max() > 0.05  # it went somewhere


def _float64(found, model, images, labels, objective):
    """The adversary's own objective with features that stay in float64."""
    found._features = lambda points: model.backbone((points - model.mean) / model.std)
    return found._objective(images, labels, 0.5)


def test_the_divergence_is_the_sum_over_classes_with_its_gradient():
    """KL(p ‖ q) = Σ p (log p − log q); ∂/∂z_q = q − p and ∂/∂z_p = p (log p − log q − KL)."""
    torch.manual_seed(0)
    clean, attacked = (
        (3 * torch.randn(4, 5, dtype=torch.float64)).requires_grad_() for _ in range(2)
    )
    value = kl_divergence(F.log_softmax(clean, 1), F.log_softmax(attacked, 1))
    p, q = (F.softmax(each.detach(), 1) for each in (clean, attacked))
    for i in range(4):
        slow = sum(float(p[i, k]) * math.log(float(p[i, k]) / float(q[i, k])) for k in range(5))
        assert float(value[i].detach()) == pytest.approx(slow, rel=1e-12)
    value.sum().backward()
    torch.testing.assert_close(attacked.grad, q - p)
    inner = (p / q).log() - value.detach().unsqueeze(1)
    torch.testing.assert_close(clean.grad, p * inner)


def test_trades_learns_the_loss_of_clean_images_and_the_weighted_divergence(digits, monkeypatch):
    """One step of plain descent goes along the gradient of the literal objective."""
    model, twin = new_model(digits), new_model(digits)
    keys = {"attack": "trades", "eps": 0.2, "steps": 3, "beta": 4.0, "select_images": 10}
    settings = spec(
        epochs=1, batch_size=300, lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0,
        schedule="constant", max_grad_norm=False, adversarial=keys,
    )  # fmt: skip
    seen = []
    original = Adversary.__call__

    def watched(self, images, labels, progress):
        attacked = original(self, images, labels, progress)
        seen.append((images, labels, attacked))
        return attacked

    monkeypatch.setattr(Adversary, "__call__", watched)
    training.train(model, digits, settings, seed=0, device=CPU)
    ((images, labels, attacked),) = seen
    twin.train()
    clean, other = twin.features(images), twin.features(attacked)
    terms = twin.head.loss(clean, labels, progress=0.0)
    p, q = (F.softmax(twin.head.logits(each), 1) for each in (clean, other))
    objective = terms.classification + terms.regulariser + 4.0 * (p * (p / q).log()).sum(1)
    objective.mean().backward()
    for (name, moved), parameter in zip(
        model.backbone.named_parameters(), twin.backbone.parameters(), strict=True
    ):
        step = parameter.detach() - 0.5 * parameter.grad
        torch.testing.assert_close(moved, step, rtol=1e-4, atol=1e-5, msg=name)
    assert torch.softmax(twin(attacked), 1).gather(1, labels[:, None]).mean() < p.max(1)[0].mean()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["pgd", "fgsm", "trades"])
def test_attacked_images_stay_in_ball_and_box_and_are_worse(digits, attack, norm):
    model = new_model(digits, "softmax").train()
    with torch.no_grad():
        model.head.linear.weight.mul_(20)  # a network that is sure of something
    images, labels = batch(digits, 40)
    eps = 0.2 if norm == "linf" else 1.5
    found = adversary(model, attack=attack, norm=norm, eps=eps)
    found.prepare(tuple(images.shape), 3, 0.5)
    attacked = found(images, labels, 0.5)
    length = (attacked - images).flatten(1).norm(p=float("inf") if norm == "linf" else 2, dim=1)
    assert float(length.max()) <= eps + 1e-6
    assert float(length.min()) > 0
    assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1
    assert not attacked.requires_grad
    with torch.no_grad():
        logits, moved = model(images), model(attacked)
    if attack == "trades":
        rise = kl_divergence(F.log_softmax(logits, 1), F.log_softmax(moved, 1))
    else:
        rise = F.cross_entropy(moved, labels, reduction="none")
        rise = rise - F.cross_entropy(logits, labels, reduction="none")
    assert float(rise.min()) > 0.1


def test_no_parameter_gradient_and_no_statistic_is_touched(digits):
    """The attack leaves .grad, running means and random state alone, and train mode on."""
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 8))
    model = Classifier(network, SoftmaxHead(8, 10), digits.mean, digits.std).train()
    images, labels = batch(digits)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ambient = torch.get_rng_state()
    for attack in ("pgd", "fgsm", "trades"):
        found = adversary(model, attack=attack)
        found.prepare(tuple(images.shape), 0, 0.0)
        found(images, labels, 0.0)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), ambient)
    assert all(part.training for part in model.modules())


@pytest.mark.parametrize(("attack", "batches"), [("pgd", 1), ("trades", 2)])
def test_running_statistics_are_those_of_what_is_learnt(digits, monkeypatch, attack, batches):
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, momentum=0.5), nn.Linear(64, 8))
    model = Classifier(network, SoftmaxHead(8, 10), digits.mean, digits.std)
    shown = []
    original = Adversary.__call__

    def watched(self, images, labels, progress):
        attacked = original(self, images, labels, progress)
        shown.append([attacked] if attack == "pgd" else [images, attacked])
        return attacked

    monkeypatch.setattr(Adversary, "__call__", watched)
    keys = {"attack": attack, "eps": 0.2, "steps": 2}
    settings = spec(epochs=1, batch_size=150, adversarial=keys)
    training.train(model, digits, settings, seed=0, device=CPU)
    mean = torch.zeros(64)
    for learnt in (images for step in shown for images in step):
        values = ((learnt - model.mean) / model.std).flatten(1)
        mean = 0.5 * mean + 0.5 * values.mean(0)
    assert int(network[1].num_batches_tracked) == batches * len(shown) == batches * 2
    torch.testing.assert_close(network[1].running_mean, mean, rtol=1e-4, atol=1e-5)


def test_the_start_follows_seed_and_step_alone(digits):
    model = new_model(digits)
    drawn = []
    for seed, step, ambient in ((0, 5, 1), (0, 5, 2), (1, 5, 1), (0, 6, 1)):
        torch.manual_seed(ambient)
        found = adversary(model, seed=seed)
        found.prepare((3, 1, 8, 8), step, 0.5)
        drawn.append(found.offset.clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])


def test_the_start_is_uniform_in_the_ball(digits):
    """In L2 the length over the radius has distribution r^n: its n-th power is uniform."""
    found = adversary(new_model(digits), norm="l2", eps=1.0)
    found.prepare((4000, 1, 2, 2), 0, 0.5)
    share = found.offset.flatten(1).norm(dim=1) ** 4
    assert float(share.max()) <= 1 + 1e-5
    edges = torch.linspace(0, 1, 6)
    counts = torch.histc(share, 5, 0, 1)
    assert float((counts - 800).abs().max()) < 5 * math.sqrt(800 * 0.8), (edges, counts)
    found = adversary(new_model(digits), eps=1.0)
    found.prepare((4000, 1, 2, 2), 0, 0.5)
    assert float(found.offset.min()) < -0.99
    assert float(found.offset.max()) > 0.99
    assert abs(float(found.offset.mean())) < 5 / math.sqrt(3 * 16000)


def test_it_starts_late_and_eps_rises_linearly(digits):
    found = adversary(new_model(digits), eps=0.4, start=0.25, ramp=0.5)
    assert [found.active(p) for p in (0.0, 0.24, 0.25, 0.9)] == [False, False, True, True]
    at = {0.25: 0.0, 0.5: 0.2, 0.625: 0.3, 0.75: 0.4, 0.9: 0.4}
    for progress, eps in at.items():
        assert found.eps_at(progress) == pytest.approx(eps)
        found.prepare((1, 1, 8, 8), 0, progress)
        assert float(found.eps) == pytest.approx(eps)
    assert found.phase(0.3) == found.phase(0.9) != found.phase(0.2)


def test_before_the_start_training_is_the_clean_one(digits):
    """All but the last of the steps are clean: then the weights are those of clean training."""
    kept = []

    class StopError(Exception):
        pass

    original = loop.Loop.step

    def stops(self, positions):
        if self.log.steps == 9:
            kept.append({n: v.clone() for n, v in self.model.state_dict().items()})
            raise StopError
        original(self, positions)

    for table in (False, {"eps": 0.2, "start": 0.5}, {"eps": 0.2, "start": 0.4}):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop.Loop, "step", stops)
            with pytest.raises(StopError):
                training.train(
                    new_model(digits), digits, spec(adversarial=table), seed=0, device=CPU
                )
    clean, late, early = kept
    assert all(torch.equal(clean[name], value) for name, value in late.items())
    assert not torch.equal(clean["backbone.0.weight"], early["backbone.0.weight"])


def test_large_logits_leave_cross_entropy_no_direction_and_the_log_tells_it(digits):
    """A true logit that leads by hundreds: float32 cross-entropy is flat, the margin is not."""
    model = new_model(digits, "softmax").train()
    images, _ = batch(digits)
    with torch.no_grad():
        model.head.linear.weight.mul_(1e4)
        labels = model.eval()(images).argmax(1)
    still = {}
    for objective in ("ce", "margin"):
        found = adversary(model, objective=objective, eps=1e-4)
        found.prepare(tuple(images.shape), 0, 0.0)
        found(images, labels, 0.0)
        still[objective] = int(found.still)
    assert still["ce"] > 0.5 * len(images)
    assert still["margin"] == 0


# --- training with it ----------------------------------------------------------------------------


def trained(digits, **table):
    table = {"eps": 0.1, "ramp": 0.3, "select_images": 200, "select_every": 99} | table
    settings = spec(epochs=30, lr=0.05, adversarial=table)
    return training.train(new_model(digits, "softmax"), digits, settings, seed=0, device=CPU)


def test_adversarial_training_resists_where_clean_training_does_not(digits):
    plain = trained(digits, start=0.99, ramp=0.0).curve[-1]  # one step of it
    for table in ({"steps": 4}, {"attack": "fgsm"}, {"attack": "trades", "steps": 4}):
        defended = trained(digits, **table).curve[-1]
        assert defended["validation_robust_error"] < 0.7 * plain["validation_robust_error"], table
        assert defended["zero_gradient_fraction"] < 0.01


def test_a_pair_loss_climbs_its_own_loss_or_is_refused(digits):
    for table, message in (
        ({}, r'objective \(="ce"\) climbs logits, which a pair loss does not have before'),
        ({"objective": "margin"}, 'objective = "loss"'),
        ({"attack": "trades"}, r'attack \(="trades"\) compares posteriors, which a pair loss'),
        ({"objective": "loss", "select": "robust"}, r'select \(="robust"\) counts errors while'),
    ):
        with pytest.raises(ValueError, match=message):
            adversary(new_model(digits, "triplet"), **table)
    check_logits_needed(adversarial(), new_model(digits).head)
    settings = spec(epochs=1, adversarial={"eps": 0.1, "objective": "loss"})
    model = new_model(digits, "triplet")
    log = training.train(model, digits, settings, seed=0, device=CPU)
    assert log.curve[0]["validation_robust_error"] is None
    assert log.curve[0]["zero_gradient_fraction"] < 0.5


class KilledError(Exception):
    pass


@pytest.mark.parametrize("attack", ["pgd", "trades"])
@pytest.mark.parametrize("stop_at", [4, 6, 15])
def test_a_killed_training_ends_with_the_same_bytes(digits, tmp_path, attack, stop_at):
    table = {"attack": attack, "eps": 0.1, "steps": 2, "start": 0.1, "ramp": 0.5}
    table |= {"select": "robust", "select_images": 50, "select_steps": 2}
    settings = spec(adversarial=table)
    whole = new_model(digits)
    log = training.train(whole, digits, settings, seed=0, device=CPU)
    original = loop.Loop.step

    def step(self, *args, **kwargs):
        if self.log.steps == stop_at:
            raise KilledError
        original(self, *args, **kwargs)

    path = tmp_path / "checkpoint.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CHECK_EVERY", 1)
        patch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(loop.Loop, "step", step)
        with pytest.raises(KilledError):
            training.train(new_model(digits), digits, settings, seed=0, device=CPU, checkpoint=path)
    resumed = new_model(digits)
    again = training.train(resumed, digits, settings, seed=0, device=CPU, checkpoint=path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    timeless = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in each.curve]
        for each in (log, again)
    ]
    assert timeless[0] == timeless[1]
    assert log.chosen_epoch == again.chosen_epoch


def test_clean_training_has_the_keys_it_had(digits):
    """What a clean training is named by, and logs, does not know of adversarial training."""
    dumped = spec().model_dump(mode="json")
    assert set(dumped) == {
        *("epochs", "batch_size", "optimizer", "lr", "momentum", "nesterov", "weight_decay"),
        *("schedule", "step_every", "step_factor", "warmup", "max_grad_norm", "precision"),
        "augment",
    }
    assert spec(adversarial=False).model_dump(mode="json") == dumped
    with_it = spec(adversarial={"eps": 0.1}).model_dump(mode="json")
    assert {k: v for k, v in with_it.items() if k != "adversarial"} == dumped
    log = training.train(new_model(digits), digits, spec(epochs=1), seed=0, device=CPU)
    assert not {"validation_robust_error", "zero_gradient_fraction"} & set(log.curve[0])
    assert log.adversarial is None


@on_gpu
@pytest.mark.parametrize("attack", ["pgd", "fgsm", "trades"])
@pytest.mark.parametrize("loss", ["softmax", "center", "lgm"])
def test_recorded_adversarial_steps_give_the_weights_of_plain_ones(
    digits, monkeypatch, loss, attack
):
    table = {"attack": attack, "eps": 0.1, "start": 0.3, "ramp": 0.3, "select_images": 50}
    settings = spec(epochs=8, max_grad_norm=5.0, adversarial=table)
    made = []

    def trained(plain):
        class Watched(CapturedStep):
            def __init__(self, *given):
                super().__init__(*given)
                made.append(self)
                self.usable = self.usable and not plain

        monkeypatch.setattr(loop, "CapturedStep", Watched)
        model = new_model(digits, loss)
        with using_repeatable_kernels():
            log = training.train(model, digits, settings, seed=0, device=torch.device("cuda"))
        return log, {name: value.cpu() for name, value in model.state_dict().items()}

    (first, replayed), (second, plain) = trained(False), trained(True)
    assert made[0].replays, made[0].reason
    assert not made[1].replays
    assert first.curve[-1]["loss"] == pytest.approx(second.curve[-1]["loss"], rel=0.02)
    for name, value in plain.items():
        torch.testing.assert_close(replayed[name], value, rtol=0.02, atol=0.02)
