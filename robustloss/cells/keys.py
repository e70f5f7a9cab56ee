"""The key of every stored file: a hash of exactly what decides its content.

The key stands in the file's name, and a run uses every file that has the right name and is whole.
So a file is computed again when one of these changes, and only then:

    file of a cell         what decides it
    ---------------------  -------------------------------------------------------------------------
    model, checkpoint      training and validation images; network; loss; settings of [train]; seed;
                           source of the user's own loss and backbone; machine
    model from elsewhere   its weights; its source; network; machine; what it answers to a few
                           fixed images, if its code is not ours
    (OUTPUTS)              images of the data; key and content of the model file; machine; the most
                           calls that an attack averages (eot), if more than one
    none-0                 OUTPUTS
    ATTACK-EPS             OUTPUTS; name, source and parameters of the attack; this budget; seed;
                           eight_bit; detection.fit_size if the attack knows the detector, and
                           the source of the score that it aims at, unless that is the likelihood;
                           batch_size if the attack's code is not ours
    images-ATTACK-EPS      file name of the attacked record, which stands in its own
    images-worst-case-     file names of the records that it may take images of
      NORM-EPS
    noise-ATTACK-EPS       file name of the attacked record; seed
    outside-SET            OUTPUTS; images of the set
    shift-SHIFT-SEVERITY   OUTPUTS; images of the set
    reference              OUTPUTS; detection.fit_size
    scores                 file names of the reference and of every record; name and source of each
                           score; whether the loss is a density
    probe                  OUTPUTS; checks.images; its budget; the attacks whose path it traces, and
                             with checks.unit_test those that are tested, each with its budget;
                             the attacks with eot, and their calls
    crops                  OUTPUTS
    trial.json             key of the weights; parameters and budgets of its FGSM
    transfer/seed-S/       images of the data; weights of the source and of every target, with their
      SOURCE-ATTACK-EPS    labels; reference of the source; attack, budget, seed as above; machine

and the VERSIONs of the code that computes it. A VERSION stands beside that code and is raised by
hand; all of them are read here and nowhere else. "Machine" is the type of device and, on a CPU, the
number of threads and the version of a network that is computed otherwise there.

So a change to the attacks trains nothing again, and a new attack or budget leaves all other records
as they are. Only scores and probe, which look at several attacks, are made again with it.

The functions are pure: `plugin_digest` and `numerics` look up source and machine for them.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from robustloss import attacks, losses
from robustloss.analysis import worst_images
from robustloss.analysis.detection import compute, scores
from robustloss.attacks.plugins import source_digest
from robustloss.data import outside, shifts
from robustloss.evaluation import (
    attacked,
    landscape,
    noise_control,
    passes,
    probes,
    ten_crop,
    torch_scores,
    unit_test,
    validation,
)
from robustloss.models import build, given
from robustloss.models.backbones import MERGED_VERSIONS
from robustloss.models.model_files import find_model_file
from robustloss.spec.attacks import AttackSpec
from robustloss.spec.prefixes import is_model_file, is_plugin, own_code
from robustloss.spec.spec import CellSpec
from robustloss.storage import digest
from robustloss.training import train

Machine = list[object]  # see `numerics`
Outputs = list[object]  # see `output_ingredients`

# Attacks and losses whose code is another package's: what stands before the colon, the package.
_ADAPTED = {
    "torchattacks": "torchattacks",
    "autoattack": "pyautoattack",
    "pml": "pytorch-metric-learning",
    "criterion": "torch",
}


def plugin_digest(name: str, folder: Path) -> str:
    """Return what decides the code behind a name, beside our versions; "" for a built-in.

    Args:
        name: A loss, backbone, attack, score or whole model, as a spec names it.
        folder: Where a relative path is looked for first.

    Returns:
        A digest of the user's source, or of a model's file, or the package and version that the
        code is taken from.
    """
    if is_model_file(name):
        return hashlib.sha256(find_model_file(name, (folder,)).read_bytes()).hexdigest()[:16]
    if is_plugin(name):
        return source_digest(own_code(name), (folder,))
    package = _ADAPTED.get(name.partition(":")[0])
    return f"{package} {importlib.metadata.version(package)}" if package else ""


def numerics(
    device: torch.device, backbones: Iterable[str] = (), precision: str = "float32"
) -> Machine:
    """Return the facts about the machine that decide the bits of a result.

    Args:
        device: Where.
        backbones: Names of the networks that the result comes from.
        precision: Arithmetic of the backbone, "float32" or "bfloat16".

    Returns:
        Device type, threads of a CPU, and the versions of networks that it computes otherwise.
    """
    if device.type != "cpu":
        return [device.type, 0]
    # Threads decide in which order a CPU adds floats.
    machine: Machine = [device.type, torch.get_num_threads()]
    merged = [
        f"{name} {MERGED_VERSIONS[name]}" for name in sorted({*backbones} & {*MERGED_VERSIONS})
    ]
    return machine + merged if precision == "float32" else machine


def training_ingredients(
    cell: CellSpec,
    network: Mapping[str, Any],
    *,
    data: str,
    chosen: Mapping[str, Any],
    codes: tuple[str, str],
) -> dict[str, Any]:
    """Return what decides a training apart from the machine, by names that a person understands.

    Processes that train together compare these values: they must be equal in all of them.

    Args:
        cell: The loss, its training and its seed.
        network: The plain values that describe the network, and the mean of the images.
        data: Checksum of the training and validation images.
        chosen: Keys of [train] whose values follow from the device or the data: "precision" and
            "max_grad_norm".
        codes: `plugin_digest` of the loss and of the backbone.
    """
    return {
        "the versions of robustloss": [train.VERSION, build.VERSION, losses.VERSION],
        "the checksum of the training data": data,
        "the network": dict(network),
        "the source of the loss": codes[0],
        "the source of the backbone": codes[1],
        "train": cell.train.model_dump(mode="json") | dict(chosen),
        "the seed": cell.seed,
    }


def training_key(ingredients: Mapping[str, Any], machine: Machine) -> str:
    """Return the key of a training, on however many processes; it names the checkpoint.

    Args:
        ingredients: See `training_ingredients`.
        machine: See `numerics`.
    """
    return digest(*ingredients.values(), machine)


def weights_key(training: str, processes: int) -> str:
    """Return the key of trained weights: processes that share a training change its rounding.

    Args:
        training: See `training_key`.
        processes: How many trained together, at least 1.
    """
    return training if processes == 1 else f"{training}-x{processes}"


def given_key(
    network: Mapping[str, Any],
    codes: Sequence[str],
    tensors: str,
    machine: Machine,
    *,
    answers: str | None,
) -> str:
    """Return the key of the weights of a model from elsewhere.

    Args:
        network: The plain values that describe the network, and the name of its factory.
        codes: `plugin_digest` of the factory, or of loss and backbone; "" for a model in memory.
        tensors: Digest of its weights.
        machine: See `numerics`.
        answers: `outputs.digest_answers`; None for a network of ours, which its weights decide.
    """
    own = given.WEIGHTS_VERSION if answers is None else given.VERSION
    versions, said = [own, build.VERSION, losses.VERSION], [] if answers is None else [answers]
    return digest("given", versions, dict(network), list(codes), tensors, machine, *said)


def output_ingredients(
    data: str, weights: str, tensors: str, machine: Machine, draws: int = 1
) -> Outputs:
    """Return what decides the outputs of a cell's model on the images of the data.

    Args:
        data: Checksum of all images.
        weights: Key of the weights. Their digest alone is not enough: a change to a loss may leave
            its weights as they are and change what the model says, as its class_log_likelihood.
        tensors: Digest of the weights.
        machine: See `numerics`.
        draws: Calls of the model whose mean its outputs are.
    """
    versions = [passes.VERSION, build.VERSION, losses.VERSION]
    return [data, weights, tensors, *versions, *machine, *_draws(draws)]


def clean_key(outputs: Outputs) -> str:
    """Return the key of the clean pass over the test images."""
    return digest("clean", outputs)


def attacked_key(
    outputs: Outputs,
    attack: AttackSpec,
    eps: float,
    *,
    seed: int,
    code: str,
    fit_size: int | None = None,
    score_code: str | None = None,
) -> str:
    """Return the key of the record of one attack at one budget.

    Args:
        outputs: See `output_ingredients`.
        attack: The attack.
        eps: The budget.
        seed: The cell's.
        code: `plugin_digest` of the attack.
        fit_size: detection.fit_size, of an attack that knows the detector: it may aim at the class
            means of that many training images. None for any other attack.
        score_code: `plugin_digest` of the score that it aims at; None where that is the likelihood,
            which the outputs decide, and for any other attack.
    """
    seen = outputs if fit_size is None else [*outputs, fit_size]
    seen = [*seen, *_score_ingredients(score_code)]
    what = [attack.name, code, dict(attack.params), eps, attack.eight_bit]
    return digest(attacks.VERSION, seen, *what, seed, _batch_size(attack, code))


def worst_key(attacked_files: Sequence[str]) -> str:
    """Return the key of the images of a worst case.

    Args:
        attacked_files: Names of the records that it may take images of.
    """
    return digest("worst images", worst_images.VERSION, list(attacked_files))


def noise_key(attacked_file: str, seed: int) -> str:
    """Return the key of the noise control of an attacked record.

    Args:
        attacked_file: Name of the record's file, which has its key.
        seed: The cell's.
    """
    return digest("noise", noise_control.VERSION, attacked_file, seed)


def outside_key(outputs: Outputs, images: str) -> str:
    """Return the key of the record of images that are not of the data.

    Args:
        outputs: See `output_ingredients`.
        images: Checksum of these images.
    """
    return digest("outside", outside.VERSION, outputs, images)


def shift_key(outputs: Outputs, images: str) -> str:
    """Return the key of the record of shifted images.

    Args:
        outputs: See `output_ingredients`.
        images: Checksum of these images and their labels.
    """
    return digest("shift", shifts.VERSION, outputs, images)


def reference_key(outputs: Outputs, fit_size: int) -> str:
    """Return the key of the arrays of clean images.

    Args:
        outputs: See `output_ingredients`.
        fit_size: detection.fit_size.
    """
    return digest("reference", landscape.VERSION, outputs, fit_size)


def scores_key(
    reference_file: str, files: Sequence[list[str]], codes: Mapping[str, str], *, density: bool
) -> str:
    """Return the key of the detection scores.

    Args:
        reference_file: Name of the file that the scores are fitted on.
        files: For each record the name of its file, then that of its noise control ("" without one)
            or the label of its outside set.
        codes: `plugin_digest` of each score, by name.
        density: Whether the loss's class_log_likelihood is a normalised log-density.
    """
    versions = [compute.VERSION, scores.VERSION]
    names, sources = list(codes), list(codes.values())
    return digest(versions, reference_file, list(files), names, sources, density)


def probe_key(
    outputs: Outputs,
    images: int,
    eps: float,
    traced: Sequence[tuple[AttackSpec, str, float]],
    tested: Sequence[tuple[AttackSpec, str, float]] = (),
    seed: int = 0,
    averaged: Mapping[str, int] | None = None,
) -> str:
    """Return the key of the trial attacks.

    Args:
        outputs: See `output_ingredients`.
        images: checks.images.
        eps: Budget of the trial attacks.
        traced: The attacks whose path is traced, each with its `plugin_digest` and its budget.
        tested: Likewise the attacks that must prove themselves; none without checks.unit_test.
        seed: The cell's, which decides what these attacks draw.
        averaged: See `probes.probe_arrays`.
    """
    paths, tests = (
        [[each.slug, each.name, code, dict(each.params), at] for each, code, at in some]
        for some in (traced, tested)
    )
    more: list[object] = [[unit_test.VERSION, seed, tests]] if tests else []
    more += [dict(averaged)] if averaged else []
    return digest("probe", probes.VERSION, attacks.VERSION, outputs, images, eps, paths, *more)


def crops_key(outputs: Outputs) -> str:
    """Return the key of the ranks in the mean of ten crops."""
    return digest("crops", ten_crop.VERSION, outputs)


def trial_key(weights: str, params: Mapping[str, Any], eps: Sequence[float]) -> str:
    """Return the key that stands in trial.json.

    Args:
        weights: Key of the trial's weights.
        params: Parameters of the FGSM on validation images.
        eps: Its budgets.
    """
    versions = [validation.VERSION, passes.VERSION, attacks.VERSION]
    return digest("trial", versions, weights, dict(params), list(eps))


def model_identity(cell: Mapping[str, Any]) -> str:
    """Return what decides the answers of a finished cell's model, apart from our own code.

    Args:
        cell: Its cell.json.
    """
    build = cell["build"]
    names = (build["loss"], build.get("backbone", ""))
    foreign = "factory" in build or any(map(is_plugin, names))
    # Weights do not decide a model whose code is somebody else's; its key holds what it answers.
    return f"{cell['weights']} {cell['key']}" if cell.get("given") and foreign else cell["weights"]


def transfer_key(
    data: str,
    source: Mapping[str, Any],
    targets: Mapping[str, str],
    attack: AttackSpec,
    eps: float,
    *,
    seed: int,
    code: str,
    machine: Machine,
    score_code: str | None = None,
    draws: int = 1,
) -> str:
    """Return the key of what the targets predict for attacked images of the source.

    Args:
        data: Checksum of all images.
        source: cell.json of the attacked model.
        targets: What decides each target, by `file_label`, see `model_identity`.
        attack: The attack.
        eps: The budget.
        seed: The cells'.
        code: `plugin_digest` of the attack.
        machine: See `numerics`.
        score_code: As for `attacked_key`.
        draws: As for `output_ingredients`.
    """
    versions = [attacks.VERSION, passes.VERSION, build.VERSION, losses.VERSION]
    return digest(
        "transfer",
        [attacked.TRANSFER_VERSION, *versions],
        data,
        model_identity(source),
        source["files"]["reference"],  # thresholds and means that the attack may see
        [[label, weights] for label, weights in targets.items()],
        *(attack.name, code, dict(attack.params), eps),
        seed,
        machine,
        _batch_size(attack, code),
        *_score_ingredients(score_code),
        *_draws(draws),
    )


def _draws(count: int) -> list[object]:
    """Return what says that a model is the mean of several calls; nothing of a single one."""
    return [] if count == 1 else [f"mean of {count} draws"]


def _score_ingredients(code: str | None) -> list[object]:
    """Return what decides a score that an attack aims at; nothing without one.

    Its parameters name the score. What it is fitted on, the outputs and fit_size decide.
    """
    return [] if code is None else [scores.VERSION, torch_scores.VERSION, code]


def _batch_size(attack: AttackSpec, code: str) -> int:
    """Return the batch size where it decides the result, else 0.

    Our own attacks give the same result at any batch size, those of others need not.
    """
    return attack.batch_size if code else 0
