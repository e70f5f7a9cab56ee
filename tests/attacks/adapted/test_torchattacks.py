"""The adapter of torchattacks: every attack runs or is refused, and no known trap is left open."""

import inspect
import pickle
import subprocess
import sys

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from robustloss.attacks import AttackError, PluginError, build_attack, perturb
from robustloss.attacks.adapted.torchattacks_table import ADAPTED, REFUSED
from robustloss.attacks.ball import distance
from robustloss.spec.attack_kinds import attack_kind, attack_norm
from tests.attacks.models import BinaryLinear, Distances, classes, convolutional, images

QUICK = {"steps": 2, "num_iter_set": 2, "nb_iter": 2, "nb_sample": 8, "n_queries": 20}
CASES = [(name, {"norm": "l2"}) for name, entry in ADAPTED.items() if entry.norm is None]


CASES += [(name, {}) for name in ADAPTED]


def short(name: str, **params):
    known = inspect.signature(getattr(torchattacks, name)).parameters
    quick = {key: value for key, value in QUICK.items() if key in known}
    return build_attack(f"torchattacks:{name}", **(quick | params))


def coloured() -> nn.Module:
    """A network whose gradients come back in channels-last order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5)
        )
    return model.to(memory_format=torch.channels_last).eval()


# --- the catalogue --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", torchattacks.__all__)
def test_every_attack_is_adapted_or_refused_with_its_reason(name: str) -> None:
    assert (name in ADAPTED) != (name in REFUSED)
    if name in REFUSED:
        with pytest.raises(PluginError, match=f"torchattacks:{name}': it .*L2 budget"):
            build_attack(f"torchattacks:{name}")
    else:
        assert build_attack(f"torchattacks:{name}").name == f"torchattacks:{name}"


@pytest.mark.parametrize(("name", "params"), CASES, ids=lambda case: str(case))
@pytest.mark.parametrize("channels", [1, 3])
def test_box_and_ball_hold_without_the_harness_having_to_help(name, params, channels) -> None:
    model = convolutional().eval() if channels == 1 else coloured()
    inputs = images(7).expand(-1, channels, -1, -1).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        labels = model(inputs).argmax(dim=1)
    attack = short(name, **params)
    found = perturb(attack, model, inputs, labels, eps=[0.2, 0.0, 0.05])
    assert not found.outside.any()
    assert torch.equal(found.adv_inputs[1], inputs)
    assert (found.radius is not None) == ADAPTED[name].minimum
    for adv_inputs, eps in zip(found.adv_inputs, (0.2, 0.0, 0.05), strict=True):
        assert adv_inputs.min() >= 0
        assert adv_inputs.max() <= 1
        assert distance(adv_inputs - inputs, attack.norm).max() <= eps + 1e-6
    if found.radius is None:
        assert (found.adv_inputs[0] != inputs).flatten(1).any(dim=1).any()
    gradient_free = name in ("Square", "SPSA")
    assert (found.queries.backward > 0) != gradient_free
    assert found.queries.forward > 0


@pytest.mark.parametrize(("name", "params"), CASES, ids=lambda case: str(case))
def test_another_eps_changes_no_result_and_the_seed_decides(name, params) -> None:
    attack = short(name, **params)
    model = convolutional()
    args = (attack, model, images(6), classes(6))
    together = perturb(*args, eps=[0.3, 0.1], seed=5).adv_inputs
    assert torch.equal(perturb(*args, eps=[0.1], seed=5).adv_inputs[0], together[1])
    random = {"PGD", "EOTPGD", "RFGSM", "FFGSM", "TPGD", "APGD", "Square", "SPSA", "PGDL2"}
    if name in random:
        other = perturb(*args, eps=[0.3], seed=6).adv_inputs[0]
        assert not torch.equal(other, together[0])


@pytest.mark.parametrize("name", ["APGD", "APGDT", "Square"])
def test_those_that_seed_themselves_get_another_seed_for_each_batch(name: str) -> None:
    """With torchattacks' own seed 0 the same image would get the same noise in every batch."""
    model = convolutional().eval()
    inputs = images(1).expand(8, -1, -1, -1).contiguous()
    labels = model(inputs).argmax(dim=1)
    found = perturb(short(name), model, inputs, labels, eps=[0.3], batch_size=4).adv_inputs[0]
    assert not torch.equal(found[:4], found[4:])


@pytest.mark.parametrize("name", [name for name, entry in ADAPTED.items() if entry.minimum])
def test_radius_on_a_linear_classifier(name: str) -> None:
    """The closed form |w·x + b| / ‖w‖, 1-norm for L-inf; torchattacks' CW searches no constant."""
    model = BinaryLinear()
    inputs = images(40, low=0.4, high=0.6)
    logits = model(inputs).detach()
    labels = logits.argmax(dim=1)
    labels[:3] = 1 - labels[:3]
    exact = logits[:, 1].abs() / model.weight.detach().norm()
    attack = build_attack(f"torchattacks:{name}", **({"norm": "l2"} if name == "FAB" else {}))
    radius = perturb(attack, model, inputs, labels, eps=[0.1]).radius
    assert radius is not None
    assert (radius[:3] == 0).all()
    ratio = radius[3:] / exact[3:]
    assert (ratio >= 0.999).all()
    limit = {"DeepFool": 1.03, "FAB": 1.01, "CW": 1.25}[name]
    assert (ratio.median() <= limit).all()
    if name == "FAB":
        linf = perturb(build_attack("torchattacks:FAB"), model, inputs, labels, eps=[0.1]).radius
        expected = logits[:, 1].abs() / model.weight.detach().abs().sum()
        torch.testing.assert_close(linf[3:], expected[3:], rtol=0.01, atol=1e-6)


def test_specs_and_tables_know_norm_and_kind_without_torch() -> None:
    for name, params in CASES:
        attack = build_attack(f"torchattacks:{name}", **params)
        assert attack.norm == attack_norm(attack.name, params)
        kind = attack_kind(attack.name)
        assert kind != "other"
        assert (kind == "minimum_norm") == ADAPTED[name].minimum


# --- the traps ------------------------------------------------------------------------------------


def test_carlini_wagner_works_on_negative_logits_and_binary_images() -> None:
    """Every logit of a Gaussian head is negative, most pixels 0 or 1 (DESIGN section 6)."""
    model = Distances(scale=2.0)
    labels = classes(40, k=4)
    inputs = model.get_buffer("centers")[labels].reshape(40, 1, 6, 6)
    assert (model(inputs) <= 0).all()
    raw = torchattacks.CW(model, c=1, steps=300, lr=0.01)(inputs, labels)
    assert (model(raw).argmax(dim=1) == labels).all()
    adapted = perturb(build_attack("torchattacks:CW"), model, inputs, labels, eps=[1]).radius
    own = build_attack("cw", steps=200, search_steps=5)
    assert adapted.isfinite().all()
    assert perturb(own, model, inputs, labels, eps=[1]).radius.isfinite().all()


def test_margin_loss_works_on_negative_logits() -> None:
    model = Distances(scale=2.0)
    labels = classes(20, k=4)
    inputs = (model.get_buffer("centers")[labels] * 0.6).reshape(20, 1, 6, 6) + 0.3 * images(20)
    raw = torchattacks.UPGD(model, eps=0.4, alpha=0.1, steps=10, loss="margin")(inputs, labels)
    assert torch.equal(raw, inputs)
    found = perturb(
        build_attack("torchattacks:UPGD", loss="margin"), model, inputs, labels, eps=[0.4]
    )
    assert (model(found.adv_inputs[0]).argmax(dim=1) != labels).all()


def test_model_without_parameters_and_of_a_special_name(capsys) -> None:
    class RobModel(nn.Module):  # torchattacks would undo a normalisation that is inside the model
        mean, std = torch.tensor([0.3]), torch.tensor([0.2])

        def forward(self, inputs: Tensor) -> Tensor:
            score = (inputs - 0.4).flatten(1).sum(dim=1)
            return torch.stack((torch.zeros_like(score), score), dim=1)

    ours = perturb(build_attack("fgsm"), RobModel(), images(9), classes(9, k=2), eps=[0.1])
    theirs = perturb(short("FGSM"), RobModel(), images(9), classes(9, k=2), eps=[0.1])
    assert torch.equal(ours.adv_inputs, theirs.adv_inputs)
    assert capsys.readouterr().out == ""


def test_the_model_is_in_eval_mode_also_when_it_judges() -> None:
    """torchattacks puts a wrapper that it finds in train mode back into it, model included."""
    seen = []

    class Watched(BinaryLinear):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(self.training)
            return super().forward(inputs)

    model = Watched().train()
    perturb(short("DeepFool"), model, images(4), classes(4, k=2), eps=[0.1])
    assert len(seen) > 4
    assert not any(seen)
    assert model.training


def test_channels_last_gradients_do_not_stop_it() -> None:
    model, inputs = coloured(), images(4).expand(-1, 3, -1, -1).contiguous()
    labels = model(inputs).argmax(dim=1)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        torchattacks.PGDL2(model)(inputs, labels)
    perturb(short("PGDL2"), model, inputs, labels, eps=[0.5])


def test_grey_images_are_the_first_of_the_three_channels_that_some_code_wants() -> None:
    class First(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return grey(inputs[:, :1])

    grey = convolutional().eval()
    labels = grey(images(6)).argmax(dim=1)
    three = torchattacks.TIFGSM(First(), eps=0.2, alpha=0.1, steps=2, diversity_prob=0.0)
    three.set_device(torch.device("cpu"))
    expected = three(images(6).expand(-1, 3, -1, -1).contiguous(), labels)[:, :1]
    attack = short("TIFGSM", diversity_prob=0.0)
    found = perturb(attack, grey, images(6), labels, eps=[0.2]).adv_inputs[0]
    assert torch.equal(found, expected)


def test_zero_gradient_is_told_where_the_whole_batch_is_differentiated() -> None:
    """Cross-entropy of logits 200 apart has no gradient: what stands still looks robust."""

    class Steep(BinaryLinear):
        def forward(self, inputs: Tensor) -> Tensor:
            steep = (inputs[:, 0, 0, 0] > 0.5).unsqueeze(1)
            return super().forward(inputs) * torch.where(steep, 1e4, 1.0)

    model, inputs = Steep(), images(30)
    labels = model(inputs).argmax(dim=1)
    ours = perturb(build_attack("fgsm"), model, inputs, labels, eps=[0.1]).zero_gradient
    assert ours.any()
    assert not ours.all()
    for name in ("FGSM", "BIM", "MIFGSM"):
        found = perturb(short(name), model, inputs, labels, eps=[0.1])
        assert torch.equal(found.zero_gradient, ours)
    assert perturb(short("APGD"), model, inputs, labels, eps=[0.1]).zero_gradient is None


class Broken(nn.Module):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def forward(self, inputs: Tensor) -> Tensor:
        score = inputs.flatten(1).sum(dim=1)
        if self.where == "gradient":
            score = score + (inputs.flatten(1).sum(dim=1) * 0).sqrt()
        elif self.where == "logits":
            score = score * torch.nan
        elif self.where == "graph":
            score = score.detach()
        return torch.stack((score, -score), dim=1)


@pytest.mark.parametrize("name", ["PGD", "MIFGSM", "DeepFool", "CW", "FAB", "PGDL2"])
@pytest.mark.parametrize("where", ["gradient", "logits"])
def test_nan_is_an_error_not_robustness(name: str, where: str) -> None:
    labels = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(AttackError, match=rf"the {where} (is|are) NaN"):
        perturb(short(name), Broken(where), images(4), labels, eps=[0.1])


def test_a_model_cut_off_from_its_images_is_an_error() -> None:
    labels = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(AttackError, match="carries no gradient towards the images"):
        perturb(short("PGD"), Broken("graph"), images(4), labels, eps=[0.1])
    perturb(short("Square"), Broken("graph"), images(4), labels, eps=[0.1])


@pytest.mark.parametrize("name", ["DeepFool", "FAB", "CW"])
def test_flat_logits_have_no_radius(name: str) -> None:
    class Flat(BinaryLinear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs) * 0 + torch.tensor([1.0, 0.0])

    labels = torch.zeros(6, dtype=torch.int64)
    labels[:2] = 1
    found = perturb(short(name), Flat(), images(6), labels, eps=[0.5])
    assert found.radius.tolist() == [0.0] * 2 + [torch.inf] * 4
    assert torch.equal(found.adv_inputs[0], images(6))


def test_step_size_follows_eps_unless_given() -> None:
    """One step from the image without a random start: its length is the step size."""
    args = (BinaryLinear(), images(9, low=0.4, high=0.6), classes(9, k=2))
    for params, expected in (({}, (0.05, 0.1)), ({"alpha": 0.02}, (0.02, 0.02))):
        attack = build_attack("torchattacks:PGD", steps=1, random_start=False, **params)
        found = perturb(attack, *args, eps=[0.05, 0.1]).adv_inputs
        moved = (found - args[1]).abs().amax(dim=(1, 2, 3, 4))
        torch.testing.assert_close(moved, torch.tensor(expected), rtol=0, atol=1e-6)


def test_restored_after_all_of_it() -> None:
    model = convolutional()
    before, state = [m.training for m in model.modules()], torch.get_rng_state()
    for name in ("APGD", "FAB", "Square", "CW", "DeepFool", "PIFGSM"):
        perturb(short(name), model, images(5), classes(5), eps=[0.1])
    assert [m.training for m in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("pgd", {}, "unknown name; did you mean 'torchattacks:PGD'"),
        ("DeepFol", {}, "unknown name; did you mean 'torchattacks:DeepFool'"),
        ("", {}, "unknown name. Known: FGSM"),
        ("AutoAttack", {}, "runs 10 steps .* use 'autoattack'"),
        ("MultiAttack", {}, "made of other attacks"),
        ("LGV", {}, "needs several models"),
        ("PGD", {"step": 3}, "torchattacks:PGD.step: unknown parameter; did you mean 'steps'"),
        ("PGD", {"eps": 0.1}, "PGD.eps: not a parameter here; the budgets stand beside"),
        ("PIFGSM", {"max_epsilon": 0.1}, "PIFGSM.max_epsilon: not a parameter here"),
        ("APGD", {"seed": 1}, "APGD.seed: not a parameter here; it comes from the run's seed"),
        ("FAB", {"multi_targeted": True}, "FAB.multi_targeted: .* use 'fab'"),
        ("PGD", {"norm": "l2"}, "PGD.norm: unknown parameter"),
        ("APGD", {"norm": "Linf"}, r"norm \(='Linf'\) must be one of 'linf', 'l2'"),
        ("APGD", {"loss": "mse"}, r"loss \(='mse'\) must be one of 'ce', 'dlr'"),
        ("PGD", {"steps": 0}, r"steps \(=0\) must be at least 1"),
        ("PGD", {"steps": 2.0}, r"steps \(=2.0\) must be an integer"),
        ("PGD", {"alpha": 0}, r"alpha \(=0\) must be positive"),
        ("PGD", {"alpha": "2/255"}, r"alpha \(='2/255'\) must be a finite number"),
        ("PGD", {"random_start": 1}, r"random_start \(=1\) must be true or false"),
        ("DIFGSM", {"resize_rate": 1.0}, r"resize_rate \(=1.0\) must lie between 0 and 1"),
    ],
)
def test_bad_names_and_parameters_are_refused(name: str, params: dict, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        build_attack(f"torchattacks:{name}", **params)


def test_models_and_images_that_the_code_cannot_take_are_refused() -> None:
    two = (BinaryLinear(), images(4), classes(4, k=2))
    for name, params, least in (("APGDT", {}, 4), ("APGD", {"loss": "dlr"}, 3)):
        with pytest.raises(ValueError, match=f"at least {least} classes, the model has 2"):
            perturb(short(name, **params), *two, eps=[0.1])
    with pytest.raises(ValueError, match="square images only, not 4x9"):
        perturb(short("DIFGSM"), two[0], images(4).reshape(4, 1, 4, 9), two[2], eps=[0.1])
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        perturb(short("PIFGSM"), two[0], images(4).reshape(4, 2, 6, 3), two[2], eps=[0.1])


def test_settings_are_shown_and_travel() -> None:
    attack = build_attack("torchattacks:APGD", norm="l2", n_restarts=3)
    assert "name='torchattacks:APGD', norm='l2'" in repr(attack)
    assert "'steps': 100" in repr(attack)
    assert pickle.loads(pickle.dumps(attack)) == attack


def test_torchattacks_is_loaded_only_with_one_of_its_attacks() -> None:
    code = """
import sys
from robustloss.attacks import ATTACKS, PluginError, build_attack
for name in (*ATTACKS, "torchattacks:OnePixel", "torchattacks:PDG"):
    try:
        build_attack(name)
    except PluginError:
        pass
print("torchattacks" in sys.modules, "pyautoattack" in sys.modules)
build_attack("torchattacks:PGD")
print("torchattacks" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "False", "True"], done.stderr
