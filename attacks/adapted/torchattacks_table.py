"""What each attack of torchattacks takes, and why some of them cannot be compared with ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from robustloss.attacks.base import Norm


@dataclass(frozen=True)
class Entry:
    """How an attack of torchattacks is called.

    Attributes:
        norm: of its budget, or of the distance that it keeps small; None where its parameter
            `norm` decides, "linf" unless given.
        minimum: it looks for the nearest adversarial image, whatever eps.
        budget: its argument for eps.
        step: step size over eps · steps, where the user gives no step size; torchattacks' own
            default fits one eps only. None where it has no step size.
        step_size: its argument for the step size, in pixel units.
        steps: its argument for the number of steps.
        defaults: ours, where torchattacks' own make an attack that hardly moves.
        choices: what its text parameters may be.
        positive_logits, shrunk: see AdaptedModel, and TorchAttack._nearest.
        three_channels, square: what its code assumes of the images.
        whole_batch: its first gradient is that of its objective for every image of the batch.
    """

    norm: Norm | None
    minimum: bool = False
    budget: str = "eps"
    step: float | None = None
    step_size: str = "alpha"
    steps: str = "steps"
    defaults: Mapping[str, object] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    positive_logits: bool = False
    shrunk: bool = False
    three_channels: bool = False
    square: bool = False
    whole_batch: bool = True


_NOISE = {"noise_type": ("guassian", "uniform")}  # torchattacks' own spelling
_LOSS = {"loss": ("ce", "dlr")}
_KERNEL = {"kernel_name": ("gaussian", "linear", "uniform")}

# Steps of 2.5 eps / steps cross the ball and turn; in L2, where the path bends along the sphere,
# 5 eps / steps arrive. Momentum attacks take the eps / steps of their publications.
ADAPTED: dict[str, Entry] = {
    "FGSM": Entry("linf"),
    "FFGSM": Entry("linf", step=1.25),
    "RFGSM": Entry("linf", step=2.5),
    "BIM": Entry("linf", step=2.5),
    "PGD": Entry("linf", step=2.5),
    "EOTPGD": Entry("linf", step=2.5),
    "TPGD": Entry("linf", step=2.5),
    "Jitter": Entry("linf", step=2.5),
    "UPGD": Entry(
        "linf",
        step=2.5,
        choices={"loss": ("ce", "dlr", "margin")},
        positive_logits=True,
        whole_batch=False,  # its margin loss has no gradient on what is wrong already
    ),
    "PGDRS": Entry("linf", step=2.5, choices=_NOISE, whole_batch=False),
    "MIFGSM": Entry("linf", step=1.0),
    "NIFGSM": Entry("linf", step=1.0),
    "SINIFGSM": Entry("linf", step=1.0),
    "VMIFGSM": Entry("linf", step=1.0),
    "VNIFGSM": Entry("linf", step=1.0),
    "DIFGSM": Entry("linf", step=1.0, square=True),
    "TIFGSM": Entry("linf", step=1.0, square=True, three_channels=True, choices=_KERNEL),
    "PIFGSM": Entry("linf", budget="max_epsilon", steps="num_iter_set", three_channels=True),
    "PIFGSMPP": Entry("linf", budget="max_epsilon", steps="num_iter_set", three_channels=True),
    "SPSA": Entry(
        "linf",
        step=2.5,
        step_size="lr",
        steps="nb_iter",
        # Its own single step of 0.01 reaches no budget, and its own 64 copies of the batch a pass
        # fill the memory.
        defaults={"nb_iter": 20, "max_batch_size": 4},
        whole_batch=False,
    ),
    # 100 steps as published; torchattacks' own 10 leave the step size no time to adapt.
    "APGD": Entry(None, defaults={"steps": 100}, choices=_LOSS, whole_batch=False),
    "APGDT": Entry(None, defaults={"steps": 100}, whole_batch=False),
    "FAB": Entry(None, minimum=True, defaults={"steps": 100}, whole_batch=False),
    "Square": Entry(None, steps="n_queries", choices={"loss": ("margin", "ce")}, whole_batch=False),
    "PGDL2": Entry("l2", step=5.0),
    "PGDRSL2": Entry("l2", step=5.0, choices=_NOISE, whole_batch=False),
    "DeepFool": Entry("l2", minimum=True, whole_batch=False),
    "CW": Entry(
        "l2",
        minimum=True,
        # A pixel at 0 or 1 lies 7 from the middle in the variable that is optimised: 700 steps at
        # the learning rate of 0.01, and a higher one overshoots with pixels between.
        defaults={"steps": 1000},
        positive_logits=True,
        shrunk=True,
        whole_batch=False,
    ),
}

_L0 = "keeps the number of changed pixels small (L0)"
REFUSED: dict[str, str] = {
    "VANILA": "returns the images as they are",
    "GN": "adds Gaussian noise whatever the model, and has no budget",
    "JSMA": _L0,
    "SparseFool": _L0,
    "OnePixel": _L0,
    "Pixle": "moves pixels about and counts them (L0)",
    "EADL1": "looks for the minimum L1 norm",
    "EADEN": "looks for the minimum of a mixture of L1 and L2 norm",
    "AutoAttack": "runs 10 steps where the published ensemble runs 100; use 'autoattack'",
    "MultiAttack": "is made of other attacks; list those, and read their worst case",
    "LGV": "needs several models, trained on a data loader",
}
