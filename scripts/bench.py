"""How fast robustloss is beside what people use today, the same work, in turn, on this machine.

    python scripts/bench.py [--data DIR] [--device cpu|cuda] [--repeats 3] [--parts train,fgsm,...]
                            [--run RUN] [--images N] [--out FOLDER]

Parts: train (an epoch of MNIST, against the loop of a tutorial), fgsm (a sweep over 4 and 10 eps
with errors and scores) and pgd (40 steps), as a run makes them, perturb (FGSM and PGD on a model in
a plain module, and who is fooled) and chance (the same of Auto-PGD and Square), all of it against
torchattacks, foolbox, the Adversarial Robustness Toolbox and pyautoattack as their documentation
shows them, metrics (AUROC with image bootstrap, against scikit-learn in a loop), report (of --run),
start (help and import).
Before a part is timed, its results are compared; a part whose results differ is not timed. Attacks
by chance (Auto-PGD, Square) get another seed in every round, and a row only if ours fools no fewer
images beyond chance: the 95 % interval of the paired difference over all rounds is in the note.
Contenders take turns; medians and the smallest and largest time are written to bench.json and
bench.md. On a shared machine only ratios mean something, of CPU seconds more than of seconds.

Floor: the arithmetic that the network asks for over the rate of a large float32 matrix product
measured here, the least time that a program could need.
"""

import argparse
import copy
import json
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench_peers import (
    APGD_STEPS,
    BATCH,
    PGD_EPS,
    PGD_STEPS,
    SQUARE_QUERIES,
    Peers,
    PlainPeers,
    Seeded,
    apgd_peers,
    fgsm_peers,
    keep_installed,
    pgd_peers,
    square_peers,
)
from bench_timing import describe_instructions, format_markdown, time_group
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from robustloss import attacks
from robustloss.data.files import data_root
from robustloss.data.images import fit_subset
from robustloss.data.load import load_dataset
from robustloss.evaluation import passes
from robustloss.evaluation.attacked import AttackPass, attacked_records
from robustloss.metrics.bootstrap import bootstrap_auroc, draw_resamples
from robustloss.models.build import build_classifier
from robustloss.seeding import using_seed
from robustloss.spec.data import DataSpec
from robustloss.spec.training import TrainSpec
from robustloss.training.train import train

PARTS = ("train", "fgsm", "pgd", "perturb", "chance", "metrics", "report", "start")
FIRST = "robustloss, keep first"
SWEEPS = {4: [0.05, 0.1, 0.2, 0.3], 10: [round(0.03 * i, 2) for i in range(1, 11)]}


class DifferError(AssertionError):
    """Two contenders did not compute the same."""


def build_model(dataset, loss="lgm"):
    build = {
        "loss": loss,
        "loss_params": {},
        "backbone": "lenet_plus",
        "backbone_params": {},
        "feature_dim": 100,
        "num_classes": 10,
        "image_shape": dataset.image_shape,
        "mean": dataset.mean,
        "std": dataset.std,
    }
    with using_seed("weights", 0):
        return build_classifier(build)


def build_plain(dataset):
    """Return the softmax network as a tutorial has it, whose layers are computed one by one."""
    model = build_model(dataset, "softmax")
    model.backbone = torch.nn.Sequential(*model.backbone)
    return model


def train_model(dataset, device):
    """Train a network a little, so that attacks have something to do."""
    some = fit_subset(dataset.train, 6000)
    short = TrainSpec(epochs=2, batch_size=64, lr=0.02)
    model = build_model(dataset)
    few = type(dataset)(**{**vars(dataset), "train": some})
    train(model, few, short, seed=0, device=device)
    return model.to(memory_format=torch.channels_last).eval()


def count_operations(model, dataset, device, backward: bool) -> float:
    """Return floating-point operations an image, forward and, if asked for, back to the image."""
    images = dataset.test.take(slice(0, 8)).to(device).batch(slice(None)).requires_grad_(backward)
    frozen = copy.deepcopy(model).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        logits = frozen(images)
        if backward:
            logits.sum().backward()  # its weights are frozen: to the image alone
    return counter.get_total_flops() / 8


# --- training ------------------------------------------------------------------------------------


def train_plain_epoch(dataset, root, device, limit=None):
    import torchvision
    from torchvision.transforms import v2

    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    images = torchvision.datasets.MNIST(root, train=True, transform=transform)
    if limit is not None:
        images = torch.utils.data.Subset(images, range(limit))
    loader = torch.utils.data.DataLoader(images, batch_size=128, shuffle=True, num_workers=2)
    model = build_plain(dataset).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    model.train()
    for batch, labels in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(batch.to(device)), labels.to(device)).backward()
        optimizer.step()


def check_training(dataset, device):
    """Check that a step of either on the same batch gives the same gradient.

    In float64: in float32 the two memory formats take other convolution algorithms, whose rounding
    alone makes a difference of 2e-4, and we compute two convolutions as one.
    """
    batch = dataset.train.take(slice(0, 64)).to(device)
    images = batch.batch(slice(None)).double()
    grads = []
    for layout in (torch.channels_last, torch.contiguous_format):
        ours = layout == torch.channels_last
        model = build_model(dataset, "softmax") if ours else build_plain(dataset)
        model.to(device).double().to(memory_format=layout)
        given = ((images - model.mean) / model.std).contiguous(memory_format=layout)
        features = model.backbone(given)
        if ours:
            terms = model.head.loss(features, batch.labels, progress=0.0)
            (terms.classification + terms.regulariser).mean().backward()
        else:
            F.cross_entropy(model.head.logits(features), batch.labels).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    worst = float((grads[0] - grads[1]).norm() / grads[1].norm())
    if worst > 1e-10:
        raise DifferError(f"gradients of a training step differ by {worst:.1e}")
    return f"gradients of one step agree to {worst:.0e} in float64"


def part_train(dataset, model, device, args):
    root = data_root(args.data)
    limit = args.images
    whole = (
        dataset
        if limit is None
        else load_dataset(DataSpec(name="mnist", train_size=limit), root=args.data)
    )
    n = whole.train.n
    spec = TrainSpec(epochs=1, batch_size=128, lr=0.02)
    same = check_training(dataset, device)
    validation = whole.validation.take(slice(0, 10))  # the plain loop measures nothing either
    lean = type(whole)(**{**vars(whole), "validation": validation})
    contenders = {
        "robustloss": lambda: train(
            build_model(dataset, "softmax"), lean, spec, seed=0, device=device
        ),
        "plain loop": lambda: train_plain_epoch(dataset, root, device, limit),
    }
    scale = {"robustloss": n, "plain loop": limit or 60_000}
    floor = 3 * n * count_operations(model, dataset, device, backward=False)
    note = f"an epoch of {n} images, seconds an image compared; {same}"
    return [time_group("training", contenders, args, device, note, floor, per=scale)]


# --- attacks -------------------------------------------------------------------------------------


def make_sweep(model, images, attack, eps):
    from robustloss.analysis.detection.scores import class_log_likelihood

    clean = passes.clean_record(model, images)

    def sweep():
        attack_pass = AttackPass(attack, images, eps, batch_size=BATCH)
        made = attacked_records(model, attack_pass, clean=clean)
        return {e: (r.predictions, class_log_likelihood(r)) for e, r in made.items()}

    return sweep


def check_sweeps(sweeps, exact: bool, labels):
    """Compare the contenders' predictions; of one-step attacks they are equal but for rounding."""
    found = {name: sweep() for name, sweep in sweeps.items()}
    mine = found["robustloss"]
    told = []
    for name, theirs in found.items():
        if name == "robustloss":
            continue
        for eps, (predicted, *_) in theirs.items():
            same = float((predicted == mine[eps][0]).mean())
            gap = float((mine[eps][0] != labels).mean() - (predicted != labels).mean())
            if exact and same < 0.998:
                raise DifferError(f"{name} at eps {eps}: only {100 * same:.2f} % equal predictions")
            if not exact and gap < -0.005:
                raise DifferError(f"{name} at eps {eps} finds {-100 * gap:.2f} points more errors")
            told.append((same, gap))
    same, gap = min(s for s, _ in told), min(g for _, g in told)
    if exact:
        return f"at least {100 * same:.2f} % equal predictions"
    return f"our error less the strongest peer's: {100 * gap:+.2f} points"


def part_fgsm(dataset, model, device, args):
    images = dataset.test.take(slice(0, args.images)).to(device)
    peers = Peers(model, images, device)
    results = []
    for count, eps in SWEEPS.items():
        sweeps = {"robustloss": make_sweep(model, images, attacks.build_attack("fgsm"), eps)}
        sweeps |= keep_installed(fgsm_peers(peers, eps))
        same = check_sweeps(sweeps, exact=True, labels=images.labels.cpu().numpy())
        forward = count_operations(model, dataset, device, backward=False)
        both = count_operations(model, dataset, device, backward=True)
        floor = images.n * (both + count * forward)
        note = f"{images.n} images, {count} eps, errors and likelihoods; {same}"
        results.append(time_group(f"FGSM, {count} eps", sweeps, args, device, note, floor))
    return results


def part_pgd(dataset, model, device, args):
    n = min(args.images or 10_000, 10_000 if device.type == "cuda" else 1000)
    images = dataset.test.take(slice(0, n)).to(device)
    peers = Peers(model, images, device)
    eps = [PGD_EPS]
    sweeps = {
        name: make_sweep(
            model,
            images,
            attacks.build_attack("pgd", steps=PGD_STEPS, random_start=False, keep=keep),
            eps,
        )
        for name, keep in (("robustloss", "best"), (FIRST, "first"))
    }
    sweeps |= keep_installed(pgd_peers(peers, eps))
    labels = images.labels.cpu().numpy()
    wrong = [sweeps[name]()[PGD_EPS][0] != labels for name in ("robustloss", FIRST)]
    if (wrong[0] != wrong[1]).mean() > 0.001:
        raise DifferError("keep 'first' fools other images than keep 'best'")
    same = check_sweeps(sweeps, exact=False, labels=labels)
    both = count_operations(model, dataset, device, backward=True)
    floor = images.n * PGD_STEPS * both
    note = f"{n} images, {PGD_STEPS} steps at eps {PGD_EPS}; {same}"
    return [time_group(f"PGD-{PGD_STEPS}", sweeps, args, device, note, floor)]


def make_perturb(model, images, name, params, eps, seed=0):
    inputs, attack = images.batch(slice(None)), attacks.build_attack(name, **params)

    def sweep():
        made = attacks.perturb(
            attack, model, inputs, images.labels, eps=eps, seed=seed, batch_size=BATCH
        ).success
        return {e: (wrong.cpu().numpy(),) for e, wrong in zip(eps, made, strict=True)}

    return sweep


def part_perturb(dataset, model, device, args):
    results = []
    pgd = {"steps": PGD_STEPS, "random_start": False}
    for title, n, name, params, eps, others in (
        ("FGSM, 4 eps", 1000, "fgsm", {}, SWEEPS[4], fgsm_peers),
        ("FGSM, 10 eps", 1000, "fgsm", {}, SWEEPS[10], fgsm_peers),
        (f"PGD-{PGD_STEPS}", 500, "pgd", pgd, [PGD_EPS], pgd_peers),
    ):
        images = dataset.test.take(slice(0, min(n, args.images or n))).to(device)
        peers = PlainPeers(model, images, device)
        sweeps = {"robustloss": make_perturb(peers.model, images, name, params, eps)}
        if name == "pgd":
            first = {**params, "keep": "first"}
            sweeps[FIRST] = make_perturb(peers.model, images, name, first, eps)
        sweeps |= keep_installed(others(peers, eps))
        none = np.zeros(images.n, bool)  # what a sweep returns is who is fooled, not a class
        same = check_sweeps(sweeps, exact=name == "fgsm", labels=none)
        note = f"{images.n} images, a plain module; {same}"
        results.append(time_group(f"perturb, {title}", sweeps, args, device, note))
    return results


def part_chance(dataset, model, device, args):
    results = []
    apgd, square = {"steps": APGD_STEPS}, {"queries": SQUARE_QUERIES}
    first = {**apgd, "keep": "first"}
    for title, n, name, params, others in (
        (f"Auto-PGD-{APGD_STEPS}", 500, "apgd_ce", {"robustloss": apgd, FIRST: first}, apgd_peers),
        (f"Square-{SQUARE_QUERIES}", 200, "square", {"robustloss": square}, square_peers),
    ):
        images = dataset.test.take(slice(0, min(n, args.images or n))).to(device)
        peers = PlainPeers(model, images, device)
        make = partial(make_perturb, peers.model, images, name)
        seeded = {ours: Seeded(partial(make, keys, [PGD_EPS])) for ours, keys in params.items()} | {
            theirs: Seeded(sweep) for theirs, sweep in others(peers, [PGD_EPS]).items()
        }
        note = partial(compare_by_chance, seeded, images.n)
        results.append(time_group(f"perturb, {title}", seeded, args, device, note))
    return results


def compare_by_chance(seeded, images) -> str:
    """Compare who is fooled, over all seeds; fail if ours fools fewer by more than chance."""
    fooled = {
        name: np.mean([found[PGD_EPS][0] for found in contender.found], axis=0)
        for name, contender in seeded.items()
    }
    seeds = len(seeded["robustloss"].found)
    told = []
    for name, theirs in fooled.items():
        if name == "robustloss":
            continue
        more = 100 * (fooled["robustloss"] - theirs)
        half = 1.96 * more.std(ddof=1) / len(more) ** 0.5
        interval = f"{more.mean():+.2f} [{more.mean() - half:.2f}, {more.mean() + half:.2f}]"
        if more.mean() + half < 0:
            raise DifferError(f"{name} fools more images: ours less theirs {interval} points")
        told.append(f"{interval} beside {name}")
    wrong = 100 * fooled["robustloss"].mean()
    return (
        f"{images} images, a plain module, {seeds} seeds; {wrong:.2f} % wrong, in points: "
        f"{', '.join(told)}"
    )


# --- numbers, report, start ----------------------------------------------------------------------


def part_metrics(dataset, model, device, args):
    from sklearn.metrics import roc_auc_score

    n, resamples = 10_000, 200
    rng = np.random.default_rng(0)
    clean = rng.normal(1.5, 1, n)
    attacked = clean * 0.5 + rng.normal(0, 1, n)
    truth = np.repeat([1, 0], n)

    def mine():
        return bootstrap_auroc(draw_resamples(n, resamples), clean, attacked)

    def loop():
        found = []
        for counts in draw_resamples(n, resamples).counts:
            index = np.repeat(np.arange(n), counts)
            found.append(roc_auc_score(truth, np.concatenate([clean[index], attacked[index]])))
        return np.array(found)

    worst = float(np.abs(mine() - loop()).max())
    if worst > 1e-9:
        raise DifferError(f"AUROCs of the resamples differ by {worst:.1e}")
    note = f"{resamples} resamples of {n} + {n} scores; equal to {worst:.0e}"
    return [time_group("AUROC, image bootstrap", {"robustloss": mine, "scikit-learn": loop}, args,
                   torch.device("cpu"), note)]  # fmt: skip


def part_report(dataset, model, device, args):
    if args.run is None:
        print("report: left out, because it needs --run RUN", flush=True)
        return []
    from robustloss.reports import build_report

    contenders = {"robustloss": lambda: build_report(args.run)}
    return [
        time_group("report", contenders, args, torch.device("cpu"), f"of {Path(args.run).name}")
    ]


def part_start(dataset, model, device, args):
    def python(*words):
        return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)

    groups = {
        "help": {"robustloss --help": python("-m", "robustloss", "--help")},
        "import": {
            f"import {name}": python("-c", f"import {name}")
            for name in ("robustloss", "torch", "torchattacks", "foolbox", "art")
        }
        | {"python alone": python("-c", "pass")},
    }
    return [time_group(name, group, args, torch.device("cpu"), "a new process each")
            for name, group in groups.items()]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, help="folder that holds MNIST/raw")
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--run", help="run folder whose report is timed")
    parser.add_argument("--images", type=int, help="fewer images, for a try")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    args = parser.parse_args()
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    parts = args.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--parts has {unknown[0]!r}; there are {', '.join(PARTS)}")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    machine = (
        f"{platform.machine()}, {name}, {describe_instructions()}, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}; {args.repeats} repeats"
    )
    print(machine, flush=True)
    dataset = model = None
    if {"train", "fgsm", "pgd", "perturb", "chance"} & set(parts):
        dataset = load_dataset(DataSpec(name="mnist"), root=args.data)
        model = train_model(dataset, device)
    rows = []
    for part in parts:
        rows += globals()[f"part_{part}"](dataset, model, device, args)
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "bench.json").write_text(
            json.dumps({"machine": machine, "rows": rows}, indent=1)
        )
        (args.out / "bench.md").write_text(format_markdown(rows, machine))
    print(format_markdown(rows, machine))


if __name__ == "__main__":
    main()
