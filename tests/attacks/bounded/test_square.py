"""Square: closed form, the publication's formulas, torchattacks, and masked gradients."""

import inspect

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from robustloss.attacks import AttackError, ImageNoise, build_attack, perturb
from robustloss.attacks.ball import distance
from robustloss.attacks.bounded.square import (
    _window,
    draw_bumps,
    draw_stripes,
    make_bump,
    recolour,
    regroup,
)
from tests.attacks.models import (
    BinaryLinear,
    ChangedLogits,
    Distances,
    classes,
    convolutional,
    images,
)

NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


def fooled(model: nn.Module, adv_inputs: Tensor, labels: Tensor) -> Tensor:
    """(N,) bool."""
    with torch.no_grad():
        return model(adv_inputs).argmax(dim=1) != labels


def attacked(model: nn.Module, inputs: Tensor, labels: Tensor, eps: float, **keys) -> Tensor:
    return perturb(build_attack("square", **keys), model, inputs, labels, eps=[eps]).adv_inputs[0]


# --- closed form ----------------------------------------------------------------------------


def test_linear_classifier_flips_exactly_beyond_its_distance() -> None:
    model = BinaryLinear()
    inputs = images(60, low=0.4, high=0.6)
    logits = model(inputs).detach()
    labels = logits.argmax(dim=1)
    threshold = logits[:, 1].abs() / model.weight.detach().norm(p=1)
    eps = [0.003, 0.01, 0.02]
    found = perturb(build_attack("square", queries=1500), model, inputs, labels, eps=eps)
    for budget, adv_inputs in zip(eps, found.adv_inputs, strict=True):
        flipped = fooled(model, adv_inputs, labels)
        assert flipped[threshold * 1.1 <= budget].all()
        assert not flipped[threshold > budget * 1.0001].any()
        assert 0.05 < flipped.double().mean() < 0.99  # the grid sees both outcomes
    assert found.zero_gradient is None
    assert found.radius is None


def test_l2_on_a_linear_classifier_comes_near_the_optimum_and_never_passes_it() -> None:
    model = BinaryLinear()
    inputs = images(60, low=0.4, high=0.6)
    logits = model(inputs).detach()
    labels = logits.argmax(dim=1)
    threshold = logits[:, 1].abs() / model.weight.detach().norm()
    flipped = fooled(model, attacked(model, inputs, labels, 0.1, norm="l2", queries=1000), labels)
    assert not flipped[threshold > 0.1001].any()
    assert flipped[threshold * 2 <= 0.1].all()


# --- the publication's formulas -------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8, 9, 25])
def test_bump_is_equation_2(side: int) -> None:
    def pyramid(height: int, width: int) -> Tensor:
        half = max(height, width) // 2
        out = torch.zeros(height, width)
        for row in range(height):
            for column in range(width):
                away = max(abs(row - height // 2), abs(column - width // 2))
                out[row, column] = sum(1 / (half + 1 - k) ** 2 for k in range(half - away + 1))
        return out / out.norm() if height else out

    upper, lower = pyramid(side // 2, side), pyramid(side - side // 2, side)
    literal = torch.cat((upper, -lower))
    torch.testing.assert_close(make_bump(side, torch.device("cpu")), literal / literal.norm())
    if side > 1:
        theirs = torchattacks.Square(nn.Identity()).eta(side)
        own = literal / literal.norm()
        assert min((theirs - each).abs().max() for each in (own, own.T)) <= 1e-6


@pytest.mark.parametrize("queries", [10_000, 1000, 37])
@pytest.mark.parametrize("p_init", [0.8, 0.3])
def test_windows_shrink_as_the_authors_rescale_them(queries: int, p_init: float) -> None:
    theirs = torchattacks.Square(nn.Identity(), n_queries=queries, p_init=p_init)
    for norm, least in (("linf", 1), ("l2", 3)):
        own = build_attack("square", norm=norm, queries=queries, p_init=p_init)
        for move in range(0, queries, max(1, queries // 100)):
            side = max(round((theirs.p_selection(move) * 32 * 32) ** 0.5), least)
            if norm == "l2":
                side += side % 2 == 0
            assert own.window_side(move, 32, 32) == side
        assert own.window_side(0, 32, 8) == 8  # a window fits into the image


def draw(n: int, channels: int, queries: int = 1) -> tuple[Tensor, ...]:
    return ImageNoise(0, torch.arange(n)).uniform((queries, 5 + channels)).unbind(dim=1)


def test_each_move_recolours_one_window_of_each_image() -> None:
    inputs = torch.full((50, 3, 6, 9), 0.5)
    start = draw_stripes(inputs, 0.1, ImageNoise(0, torch.arange(50)))
    assert ((start - inputs).abs() - 0.1).abs().max() < 1e-6
    assert torch.equal(start, start[:, :, :1].expand_as(start))  # vertical stripes
    (numbers,) = draw(50, 3)
    moved = recolour(torch.full_like(inputs, 0.55), inputs, 0.1, 3, numbers) - inputs
    changed = ((moved - 0.05).abs() > 1e-3).all(dim=1)
    assert (changed.flatten(1).sum(dim=1) == 9).all()
    assert ((moved.abs() - 0.1).abs()[changed.unsqueeze(1).expand_as(moved)] < 1e-6).all()
    rows, columns = changed.any(dim=2), changed.any(dim=1)
    assert (rows.sum(dim=1) == 3).all()
    assert (columns.sum(dim=1) == 3).all()
    assert len({(tuple(r.tolist()), tuple(c.tolist())) for r, c in zip(rows, columns)}) > 15  # noqa: B905
    colours = (moved * changed.unsqueeze(1)).sum(dim=(2, 3)).sign()
    assert len({tuple(each.tolist()) for each in colours}) == 8  # every image has its own


def test_windows_reach_every_place_equally_often() -> None:
    inputs = torch.zeros(1000, 1, 5, 6)
    places = [_window(each[:, :2], inputs, 3) for each in draw(1000, 1, queries=70)]
    for which, count in ((2, 3), (3, 4)):  # the last place is one that the released code leaves out
        corners = torch.cat([place[which][:, 0, 0, 0] for place in places])
        share = corners.bincount() / 70_000
        torch.testing.assert_close(share, torch.full((count,), 1 / count), rtol=0.05, atol=0)


def test_l2_moves_keep_the_length_and_what_lies_outside_the_windows() -> None:
    inputs = torch.full((50, 3, 8, 11), 0.5)
    start = draw_bumps(inputs, 0.7, ImageNoise(0, torch.arange(50)))
    torch.testing.assert_close(distance(start - inputs, "l2"), torch.full((50,), 0.7))
    assert ((start - inputs).abs() > 0).double().mean() > 0.9  # the grid covers the image
    (numbers,) = draw(50, 3)
    moved = regroup(start, inputs, 0.7, 3, numbers)
    torch.testing.assert_close(distance(moved - inputs, "l2"), torch.full((50,), 0.7))
    changed = ((moved - start).abs() > 1e-6).any(dim=1)
    assert changed.flatten(1).sum(dim=1).max() <= 18  # two windows of nine pixels
    assert changed.flatten(1).sum(dim=1).min() >= 9
    # Each channel keeps its share: nothing was unused, the box binds nowhere.
    torch.testing.assert_close(
        (moved - inputs).square().sum(dim=(2, 3)), (start - inputs).square().sum(dim=(2, 3))
    )


def test_l2_moves_spend_what_the_box_left_unused() -> None:
    inputs = images(50).round()
    point = draw_bumps(inputs, 1.0, ImageNoise(0, torch.arange(50)))
    assert distance(point - inputs, "l2").mean() < 0.8  # about half of every bump is cut off
    for numbers in draw(50, 1, queries=30):
        longer = regroup(point, inputs, 1.0, 3, numbers)
        gain = distance(longer - inputs, "l2") > distance(point - inputs, "l2")
        point = torch.where(gain.view(-1, 1, 1, 1), longer, point)
    assert distance(point - inputs, "l2").mean() > 0.9


# --- where gradients say nothing ------------------------------------------------------------


class Quantised(BinaryLinear):
    """Sees images in steps of 1/50: its gradient is 0 everywhere."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images * 50).round() / 50)


class Detached(BinaryLinear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(torch.from_numpy(images.detach().numpy().copy()))


@NORMS
def test_masked_gradients_are_no_shelter(norm: str) -> None:
    model, eps = Quantised(), {"linf": 0.1, "l2": 0.6}[norm]
    inputs = images(60)
    labels = model(inputs).argmax(dim=1)
    white = perturb(build_attack("fgsm", norm=norm), model, inputs, labels, eps=[eps])
    assert white.zero_gradient.all()
    assert not fooled(model, white.adv_inputs[0], labels).any()
    black = attacked(model, inputs, labels, eps, norm=norm, queries=300)
    honest = perturb(build_attack("fgsm", norm=norm), BinaryLinear(), inputs, labels, eps=[eps])
    possible = fooled(BinaryLinear(), honest.adv_inputs[0], labels).double().mean()
    assert possible > 0.5
    assert fooled(model, black, labels).double().mean() > 0.8 * possible


@NORMS
def test_model_without_any_gradient_is_attacked_and_none_is_asked(norm: str) -> None:
    labels = BinaryLinear()(images(30)).argmax(dim=1)
    attack = build_attack("square", norm=norm, queries=100)
    found = perturb(attack, Detached(), images(30), labels, eps=[0.3])
    plain = perturb(attack, BinaryLinear(), images(30), labels, eps=[0.3])
    assert torch.equal(found.adv_inputs, plain.adv_inputs)
    assert plain.queries.backward == found.queries.backward == 0


def test_binary_images_and_negative_logits_are_no_shelter() -> None:
    model = Distances(scale=6.0)  # cross-entropy is saturated (DESIGN section 6)
    labels = classes(40, k=4)
    inputs = model.get_buffer("centers")[labels].reshape(40, 1, 6, 6)
    assert (model(inputs) <= 0).all()
    # The boundary is half-way between centers; random search finds it with some more.
    assert not fooled(model, attacked(model, inputs, labels, 0.499, queries=500), labels).any()
    assert fooled(model, attacked(model, inputs, labels, 0.6, queries=500), labels).all()


# --- what it promises -----------------------------------------------------------------------


@NORMS
@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 7, 12), (2, 3, 2), (1, 1, 1)])
def test_stays_in_ball_and_box_by_itself(norm: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 3)).eval()
    inputs = torch.rand(20, *shape)
    inputs[:10] = inputs[:10].round()
    labels = model(inputs).argmax(dim=1)
    noise = ImageNoise(0, torch.arange(20))
    attack = build_attack("square", norm=norm, queries=60)
    eps = [0.05, 0.3, 1.0]
    out = attack(model, inputs, labels, eps=eps, noise=noise).adv_inputs
    assert out.min() >= 0
    assert out.max() <= 1
    for budget, adv_inputs in zip(eps, out, strict=True):
        assert distance(adv_inputs - inputs, norm).max() <= budget * (1 + 1e-6)  # type: ignore[arg-type]


@NORMS
@pytest.mark.parametrize("change", [lambda z: z - 1024.0, lambda z: z * 1000.0])
def test_shift_and_scale_of_the_logits_do_not_matter(norm: str, change) -> None:
    plain = ChangedLogits(lambda z: z)
    labels = plain(images()).argmax(dim=1)
    keys = {"norm": norm, "queries": 150}
    eps = {"linf": 0.05, "l2": 0.2}[norm]
    own = attacked(plain, images(), labels, eps, **keys)
    theirs = attacked(ChangedLogits(change), images(), labels, eps, **keys)
    assert 0.1 < fooled(plain, own, labels).double().mean() < 0.9
    assert torch.equal(own, theirs)


@NORMS
def test_fooled_images_cost_nothing_more(norm: str) -> None:
    model = convolutional().eval()
    labels = model(images()).argmax(dim=1)
    labels[:20] = (labels[:20] + 1) % 5  # wrong anyway
    attack = build_attack("square", norm=norm, queries=100)
    spent = [
        perturb(attack, model, images(), labels, eps=[eps]).queries.forward - 64
        for eps in (1e-6, 0.05, 0.5)
    ]
    assert spent[0] == 44 * 100
    assert spent[0] > spent[1] > 2 * spent[2]
    found = perturb(attack, model, images(), labels, eps=[0.05, 0.5])
    assert found.queries == (64 + spent[1] + spent[2], 0)  # the image itself is asked once
    assert torch.equal(found.adv_inputs[:, :20], images()[:20].expand(2, 20, 1, 6, 6))


@NORMS
def test_highest_margin_is_kept_and_more_queries_and_restarts_find_no_less(norm: str) -> None:
    model = convolutional().eval()
    labels = model(images()).argmax(dim=1)
    eps = {"linf": 0.02, "l2": 0.1}[norm]

    def margins(**keys) -> Tensor:
        with torch.no_grad():
            logits = model(attacked(model, images(), labels, eps, norm=norm, **keys))
        true = logits.gather(1, labels[:, None])
        return (logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1) - true[:, 0]).double()

    with torch.no_grad():
        clean = model(images())
    clean_margins = clean.topk(2, dim=1).values.diff(dim=1)[:, 0]
    once, thrice = margins(queries=30), margins(queries=30, restarts=3)
    open_still = once < 0
    assert open_still.sum() > 20
    assert (once >= clean_margins).all()
    assert (thrice >= once - 1e-6)[open_still].all()
    assert (thrice > once + 1e-4)[open_still].any()
    assert margins(queries=300)[open_still].mean() > once[open_still].mean()


def test_seed_decides() -> None:
    model = convolutional().eval()
    labels = model(images()).argmax(dim=1)
    attack = build_attack("square", queries=20)
    first, again, other = (
        perturb(attack, model, images(), labels, eps=[0.02], seed=seed).adv_inputs
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert "torch.rand" not in inspect.getsource(inspect.getmodule(make_bump))  # type: ignore[arg-type]


@NORMS
@pytest.mark.parametrize("size", [1, 7])
def test_batch_size_and_company_do_not_matter(norm: str, size: int) -> None:
    model = convolutional().eval()
    inputs = images(15)
    labels = model(inputs).argmax(dim=1)
    attack = build_attack("square", norm=norm, queries=50, restarts=2)
    eps = {"linf": [0.02, 0.05], "l2": [0.1, 0.3]}[norm]
    whole = perturb(attack, model, inputs, labels, eps=eps).adv_inputs
    parts = perturb(attack, model, inputs, labels, eps=eps, batch_size=size).adv_inputs
    assert ((whole - parts).abs() > 1e-6).double().mean() < 0.01
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(fooled(model, one, labels), fooled(model, other, labels))


@NORMS
def test_about_as_strong_as_torchattacks(norm: str) -> None:
    model = convolutional().eval()
    inputs = images(300)
    labels = model(inputs).argmax(dim=1)
    eps = {"linf": 0.04, "l2": 0.2}[norm]
    kind = {"linf": "Linf", "l2": "L2"}[norm]
    theirs = torchattacks.Square(model, norm=kind, eps=eps, n_queries=200)(inputs, labels)
    own = fooled(model, attacked(model, inputs, labels, eps, norm=norm, queries=200), labels)
    share = fooled(model, theirs, labels).double().mean()
    assert 0.2 < share < 0.9
    assert own.double().mean() >= share - 0.03


def test_logits_that_are_nan_are_told() -> None:
    class Cliff(BinaryLinear):
        def forward(self, images: Tensor) -> Tensor:
            moved = (images != 0.5).flatten(1).any(dim=1, keepdim=True)
            return super().forward(images) + torch.where(moved, torch.nan, 0.0)

    inputs = torch.full((20, 1, 6, 6), 0.5)
    labels = Cliff()(inputs).argmax(dim=1)
    with pytest.raises(AttackError, match="logits are NaN or infinite for 20 of 20"):
        perturb(build_attack("square", queries=3), Cliff(), inputs, labels, eps=[0.1])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"norm": "l1"}, r"norm \(='l1'\) must be one of"),
        ({"queries": 0}, r"queries \(=0\) must be at least 1"),
        ({"queries": 1e3}, r"queries \(=1000.0\) must be an integer"),
        ({"restarts": 0}, r"restarts \(=0\) must be at least 1"),
        ({"p_init": 0.0}, r"p_init \(=0.0\) must lie in \(0, 1\]"),
        ({"p_init": 1.2}, r"p_init \(=1.2\) must lie in \(0, 1\]"),
        ({"n_queries": 5}, "did you mean 'queries'"),
    ],
)
def test_bad_parameters_are_refused(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_attack("square", **keys)
