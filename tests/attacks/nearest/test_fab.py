"""FAB: closed form, an exact projection by linear and quadratic programming, other libraries."""

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from robustloss.attacks import AttackError, build_attack, perturb
from robustloss.attacks.ball import distance
from robustloss.attacks.nearest.boundaries import step_to_plane
from tests.attacks.exact_steps import exact_step, length
from tests.attacks.models import BinaryLinear, convolutional, images

NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
SHORT = {"steps": 20}


def radii(model: nn.Module, inputs: Tensor, labels: Tensor, **keys) -> Tensor:
    radius = perturb(build_attack("fab", **keys), model, inputs, labels, eps=[0.1]).radius
    assert radius is not None
    return radius


# --- the projection -------------------------------------------------------------------------


@NORMS
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_step_to_plane_is_the_exact_projection_inside_the_box(norm: str, share: float) -> None:
    """`share` of the farthest plane that the box can reach: the box binds more and more."""
    points = images(12)
    points[:6] = points[:6].round()  # pixels at the bounds already
    normal = 2 * images(12, seed=7) - 1
    normal[:3, :, 0] = 0.0  # pixels that do not matter
    reach = torch.where(normal > 0, normal * (1 - points), normal * -points).flatten(1).sum(dim=1)
    gap = share * reach
    gap[::2] = -share * torch.where(normal > 0, normal * points, normal * (points - 1))[
        ::2
    ].flatten(1).sum(dim=1)
    step = step_to_plane(points, normal, gap, norm)  # type: ignore[arg-type]
    assert (points + step).min() >= -1e-6
    assert (points + step).max() <= 1 + 1e-6
    torch.testing.assert_close((normal * step).flatten(1).sum(dim=1), gap, rtol=1e-4, atol=1e-5)
    for k in range(12):
        problem = (each[k].flatten().double().numpy() for each in (points, normal))
        best = length(exact_step(*problem, float(gap[k]), norm), norm)
        assert length(step[k].flatten().numpy(), norm) == pytest.approx(best, rel=1e-4)


@NORMS
def test_step_to_a_plane_outside_the_box_goes_to_the_nearest_corner(norm: str) -> None:
    points, normal = images(10), 2 * images(10, seed=7) - 1
    for sign in (1.0, -1.0):
        step = step_to_plane(points, normal, torch.full((10,), sign * 1e3), norm)  # type: ignore[arg-type]
        torch.testing.assert_close(points + step, (sign * normal > 0).float())


@NORMS
def test_step_is_zero_on_the_plane_and_without_a_normal(norm: str) -> None:
    points = images(10)
    for normal, gap in [(images(10, seed=7), 0.0), (torch.zeros_like(points), 1.0)]:
        step = step_to_plane(points, normal, torch.full((10,), gap), norm)  # type: ignore[arg-type]
        assert torch.equal(step, torch.zeros_like(points))


# --- closed forms ---------------------------------------------------------------------------


@NORMS
def test_nearest_of_several_planes_is_taken(norm: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 5))
    with torch.no_grad():  # a steep class is near even where it is unlikely
        model[1].weight[:2] *= 3.0
        model[1].bias[:2] -= model[1].weight[:2].sum(dim=1) / 3
    inputs = images(100, low=0.45, high=0.55)
    logits = model(inputs).detach().double()
    labels = logits.argmax(dim=1)
    weight = model[1].weight.detach().double()
    size = (weight[labels].unsqueeze(1) - weight).norm(p=1 if norm == "linf" else 2, dim=2)
    lead = logits.gather(1, labels[:, None]) - logits
    exact = (lead / size).scatter(1, labels[:, None], torch.inf).amin(dim=1)
    inside = exact < (0.3 if norm == "linf" else 1.0)  # the box does not bind
    ratio = (radii(model, inputs, labels, norm=norm) / exact)[inside]
    assert inside.sum() > 30
    assert (ratio >= 0.9999).all()
    assert (ratio <= 1.01).all()
    # The most likely wrong class at the image is not always the one with the nearest boundary.
    alone = (radii(model, inputs, labels, norm=norm, candidates=1) / exact)[inside]
    assert (alone > 1.05).any()


# --- other attacks --------------------------------------------------------------------------


@NORMS
def test_equals_torchattacks_before_the_final_search(norm: str, monkeypatch) -> None:
    """The loop alone, without what the publication adds at the end."""
    monkeypatch.setattr("robustloss.attacks.nearest.fab._FINAL_STEPS", 0)
    model = convolutional().eval()
    inputs = images(60)
    labels = model(inputs).argmax(dim=1)
    kind = {"linf": "Linf", "l2": "L2"}[norm]
    theirs = torchattacks.FAB(model, norm=kind, eps=9.0, steps=20, n_classes=5)(inputs, labels)
    theirs_radius = distance(theirs - inputs, norm)  # type: ignore[arg-type]
    own = radii(model, inputs, labels, norm=norm, **SHORT)
    assert own.isfinite().all()
    # Paths part where a gradient is nearly 0 or two boundaries are equally far.
    same = (own - theirs_radius).abs() <= 1e-3 * theirs_radius
    assert same.double().mean() >= 0.95
    assert own.median() <= 1.001 * theirs_radius.median()


@NORMS
def test_final_search_shortens_and_more_restarts_never_lengthen(norm: str, monkeypatch) -> None:
    model = convolutional().eval()
    labels = model(images()).argmax(dim=1)
    with monkeypatch.context() as patch:
        patch.setattr("robustloss.attacks.nearest.fab._FINAL_STEPS", 0)
        rough = radii(model, images(), labels, norm=norm, steps=3)
    once = radii(model, images(), labels, norm=norm, steps=3)
    again = radii(model, images(), labels, norm=norm, steps=3, restarts=4)
    assert (once <= rough).all()
    assert (once < 0.999 * rough).double().mean() > 0.5
    assert (again <= 1.002 * once).all()


# --- what it promises -----------------------------------------------------------------------


@NORMS
def test_image_on_the_boundary_is_moved_off_it(norm: str) -> None:
    """Where two logits tie the first class is predicted, and the way to the boundary is 0."""
    model = BinaryLinear().double()
    with torch.no_grad():
        model.weight.copy_(model.weight.mul(8).round() / 8)
        model.bias.copy_(-0.5 * model.weight.sum())

    class Double(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return model(images.double())

    inputs, labels = torch.full((5, 1, 6, 6), 0.5), torch.zeros(5, dtype=torch.int64)
    assert (model(inputs.double()) == 0).all()
    radius = radii(Double(), inputs, labels, norm=norm, **SHORT)
    assert (radius > 0).all()
    assert (radius <= 2e-6).all()


def test_random_start_gets_off_a_plateau() -> None:
    """Flat within 0.02 of the middle: only a path that starts elsewhere sees the boundary."""

    class Plateau(BinaryLinear):
        def forward(self, images: Tensor) -> Tensor:
            away = (images - 0.5).abs().flatten(1).amax(dim=1, keepdim=True) > 0.02
            return torch.where(away, super().forward(images), torch.tensor([0.0, 0.01]))

    model = Plateau()
    inputs, labels = torch.full((10, 1, 6, 6), 0.5), torch.ones(10, dtype=torch.int64)
    assert radii(model, inputs, labels, **SHORT).isinf().all()
    assert radii(model, inputs, labels, restarts=2, **SHORT).isfinite().all()


@NORMS
@pytest.mark.parametrize("size", [1, 7])
def test_batch_size_does_not_matter(norm: str, size: int) -> None:
    model = convolutional().eval()
    inputs = images(21)
    labels = model(inputs).argmax(dim=1)
    attack = build_attack("fab", norm=norm, steps=8, restarts=2)
    whole = perturb(attack, model, inputs, labels, eps=[0.3])
    parts = perturb(attack, model, inputs, labels, eps=[0.3], batch_size=size)
    torch.testing.assert_close(whole.radius, parts.radius, rtol=1e-3, atol=1e-6)


def test_queries_are_counted() -> None:
    model = convolutional().eval()
    labels = model(images()).argmax(dim=1)
    for keys, forward, backward in [
        ({}, 1 + 2 * 5 + 4, 4 * 5),
        ({"candidates": 2}, 1 + 2 * 5 + 4, 2 * 5),
        ({"restarts": 3}, 1 + 3 * 2 * 5 + 4, 3 * 4 * 5),
    ]:
        attack = build_attack("fab", steps=5, **keys)
        found = perturb(attack, model, images(), labels, eps=[0.1, 0.2])
        assert found.queries == (64 * forward, 64 * backward)


def test_models_without_gradient_or_with_nan_are_told() -> None:
    class Detached(BinaryLinear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.detach())

    class Cliff(BinaryLinear):
        def forward(self, images: Tensor) -> Tensor:
            moved = (images != 0.5).flatten(1).any(dim=1, keepdim=True)
            return super().forward(images) + torch.where(moved, torch.nan, 0.0)

    labels = BinaryLinear()(images(20)).argmax(dim=1)
    for name in ("fab", "deepfool"):
        with pytest.raises(AttackError, match="carries no gradient towards the images"):
            perturb(build_attack(name), Detached(), images(20), labels, eps=[0.1])
    inputs = torch.full((20, 1, 6, 6), 0.5)
    labels = BinaryLinear()(inputs).argmax(dim=1)
    with pytest.raises(AttackError, match="the logits are NaN"):
        perturb(build_attack("fab"), Cliff(), inputs, labels, eps=[0.1])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"norm": "l1"}, r"norm \(='l1'\) must be one of"),
        ({"steps": 0}, r"steps \(=0\) must be at least 1"),
        ({"restarts": 0}, r"restarts \(=0\) must be at least 1"),
        ({"restarts": 1.5}, r"restarts \(=1.5\) must be an integer"),
        ({"candidates": 0}, r"candidates \(=0\) must be at least 1"),
        ({"alpha_max": 1.5}, r"alpha_max \(=1.5\) must lie in \[0, 1\]"),
        ({"eta": 0.9}, r"eta \(=0.9\) must be at least 1"),
        ({"beta": 1.0}, r"beta \(=1.0\) must lie between 0 and 1"),
        ({"eps": 0.3}, "fab.eps: unknown parameter"),
    ],
)
def test_bad_parameters_are_refused(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_attack("fab", **keys)
