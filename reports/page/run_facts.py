"""What was run, in words: the sentence that opens the page, and the lists of facts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.notation import eps_text
from robustloss.reports.page.notes import loss_notes
from robustloss.reports.reading.facts import choice_words, data_remark
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NORM_WORDS, counted, duration, file_name, listed, name_files
from robustloss.results.numbers import NO_VALIDATION, is_given
from robustloss.results.provenance import VERSIONS

Facts = list[tuple[str, str]]  # name and text, for a list on the page

FEW = 5  # losses or attacks that are named one by one
TRAIN_KEYS = ("epochs", "batch_size", "optimizer", "lr", "weight_decay", "schedule", "augment")
# of the provenance: told elsewhere on the page, or in another form
MACHINE = ("platform", "instruction_set", "device", "cores", "precision", "threads")
PAPER = (
    "the table and the figures follow Wan, Zhong, Li and Chen, Rethinking Feature Distribution for "
    "Loss Functions in Image Classification, CVPR 2018 (arXiv:1803.02988)"
)


def describe_run(numbers: Numbers) -> str:
    """Return the sentence that opens the page: which losses or models, and on what."""
    if not numbers.labels:
        return "A run without results."
    own = numbers.pictured
    given = [label for label in own if label in numbers.given]
    trained = [label for label in own if label not in numbers.given]
    few = len(own) <= FEW
    models = listed(given) if few else f"{len(given)} models"
    what = f"{models}, trained elsewhere, under attack"
    if trained:
        losses = listed(trained) if few else f"{len(trained)} losses"
        each = "each of " if len(trained) > 1 else ""
        what = f"One network trained with {each}{losses}, under attack"
        what += f", beside {models}, trained elsewhere" if given else ""
    if numbers.elsewhere:
        losses = counted(len(numbers.elsewhere), "loss")
        versions = dict.fromkeys(x.rpartition(", ")[2].rstrip(")") for x in numbers.elsewhere)
        name = f"{numbers.run.provenance['reference']['name']} ({', '.join(versions)})"
        what += f", beside the {losses} of the reference {name}"
    smoke = numbers.data.get("name") == "digits"
    small = " Digits of 8×8 pixels are a smoke test, not a benchmark." if smoke else ""
    return f"{what}.{small}"


def measure_run(numbers: Numbers) -> str:
    """Return the size of a run in one line: "4 losses × 3 seeds, MNIST, 10,000 images, FGSM"."""

    def size(labels: Sequence[str]) -> str:
        """Return how many losses and seeds there are: "4 losses × 1 to 3 seeds"."""
        if not labels:
            return ""
        what = counted(len(labels), numbers.kind)
        if numbers.nothing_trained or not numbers.seeds:
            return what
        known = {(row["label"], row["seed"]) for row in numbers.run.rows}
        seeds = [sum(label == each for each, _ in known)
                 for label in labels if label not in numbers.given]  # fmt: skip
        least, most = min(seeds, default=0), max(seeds, default=0)
        span = counted(most, "seed") if least == most else f"{least} to {most} seeds"
        return f"{what} × {span}"

    attacks = [a["label"] for a in numbers.spec.get("attacks", [])]
    finished = str(numbers.run.provenance.get("finished") or "")[:10]
    marks = len({flag.get("check") for flag in numbers.run.flags})
    failed = len(numbers.run.failures)
    state = f"{counted(failed, 'cell')} failed" if failed else "complete"
    if numbers.run.unfinished:
        done, asked = numbers.run.counts
        state = f"unfinished: {done} of {asked} cells" if done < asked else "unfinished"
    parts = [
        size(numbers.pictured),
        f"reference of {size(numbers.elsewhere)}" if numbers.elsewhere else "",
        numbers.data_label,
        f"{numbers.images:,} test images" if numbers.images else "",
        listed(attacks) if len(attacks) <= FEW else f"{len(attacks)} attacks",
        finished,
        state,
        f"{counted(marks, 'check')} fired (†)" if marks else "no check fired",
    ]
    return " · ".join(part for part in parts if part)


def list_facts(numbers: Numbers) -> Facts:
    """Return data, network, training, losses and attacks of a run."""
    spec, data, provenance = numbers.spec, numbers.data, numbers.run.provenance
    parts = {"train": "training", "validation": "validation", "test": "test"}
    if str(data.get("summary")).endswith(NO_VALIDATION):  # then the test images are in their place
        del parts["validation"]
    sizes = [f"{data[key]:,} {part}" for key, part in parts.items() if data.get(key)]
    model, train = spec.get("model") or {}, spec.get("train") or {}
    losses = spec.get("losses", [])
    if losses and all(isinstance(loss.get("model"), str) for loss in losses):
        model = {}  # each brings its own
    if numbers.nothing_trained:
        train = {}
    trials = max((row["trial"] for row in numbers.run.trials), default=0)
    reused = provenance.get("reused") or []
    sources = []  # of weights that other runs have trained
    for run in dict.fromkeys(each["run"] for each in reused):
        own = [f"{e['label']} seed {e['seed']}" for e in reused if e["run"] == run]
        cells = listed(own) if len(own) <= FEW else counted(len(own), "cell")
        sources.append(f"{cells} from the run folder {run}")
    trained = [label for label in numbers.labels if label not in numbers.given]
    given = [label for label in numbers.labels if label in numbers.given]
    trust = "not trained in this run, so their numbers are as good as that folder is"
    return _with_text(
        ("Data", numbers.data_label + (f": {', '.join(sizes)} images" if sizes else "")),
        ("About the data", data_remark(numbers)),
        ("Converted", describe_converted(data)),
        ("Network", f"{model['backbone']}, {model.get('feature_dim', '?')} features"
         if model.get("backbone") else ""),
        ("Training", ", ".join(f"{k} {train[k]}" for k in TRAIN_KEYS if train.get(k) is not None)),
        ("Attacked in training", _settings(train.get("adversarial"))),
        ("Tuning", f"{trials} trials of each loss; the values below are {choice_words(numbers)}"
         if trials else _describe_tuning(numbers)),
        *([("Losses", f"{len(losses)}; the spec has their settings")]
          if len(losses) > FEW and not trials else
          [("Model" if is_given(loss) else "Loss", describe_entry(loss)) for loss in losses]),
        ("Notes from training", "; ".join(loss_notes(numbers, trained))),
        ("Notes on the models", "; ".join(loss_notes(numbers, given))),
        *(("Attack", _describe_attack(numbers, attack)) for attack in spec.get("attacks", [])),
        ("Weights taken over", f"{'; '.join(sources)}: {trust}" if sources else ""),
        ("Seeds", "" if numbers.nothing_trained
         else ", ".join(map(str, numbers.seeds)) or "none finished"),
        *(("Merged from", f"{run.get('name')} (folder {run.get('folder')})")
          for run in provenance.get("merged") or []),
        *(("Note", str(note)) for note in provenance.get("notes") or []),
    )  # fmt: skip


def list_provenance(numbers: Numbers) -> Facts:
    """Return by which command, versions and machine a run was made, when, and how to cite it."""
    provenance, data = numbers.run.provenance, numbers.data
    name, label = data.get("name"), data.get("label")
    called = f"{label} ({name})" if label and label != name else name
    digest = "no digest: an older version wrote the run, and nothing tells a change afterwards"
    if numbers.run.read is not None:
        digest = "none yet: there is no results.json before the run has finished"
    elif (state := numbers.run.digest_state) != "absent":
        fits = {"fits": "fits its content", "altered": "does not fit its content"}[state]
        digest = f"results.json, sha256 {numbers.run.results.get('digest')}, {fits}"
    return _with_text(
        ("Command", describe_command(provenance)),
        ("Versions", ", ".join(f"{k} {provenance[k]}" for k in VERSIONS if provenance.get(k))),
        ("Machine", ", ".join(
            f"{key.replace('_', ' ')} {provenance[key]}"
            for key in MACHINE if provenance.get(key) is not None)),
        ("Data", f"{called}, checksum {data.get('checksum')}" if data else ""),
        ("Time", describe_time(provenance)),
        ("Digest", digest),
        ("Cite", f"robustloss {provenance.get('robustloss', '')}".rstrip() + f"; {PAPER}"),
    )  # fmt: skip


def describe_time(provenance: Mapping[str, Any]) -> str:
    """Return when a run began and ended: "2026-11-30 05:41 to 05:42 UTC (78.3 s)"."""
    ends = [str(provenance[key]) for key in ("started", "finished") if provenance.get(key)]
    times = [*dict.fromkeys(end[:16].replace("T", " ") for end in ends)]
    if len(times) == 2 and times[0][:10] == times[1][:10]:
        times[1] = times[1][11:]
    zone = " UTC" if ends and all(end.endswith("+00:00") for end in ends) else ""
    seconds = provenance.get("seconds")
    return " to ".join(times) + zone + (f" ({duration(seconds)})" if seconds else "")


def describe_command(provenance: Mapping[str, Any]) -> str:
    """Return the command that started a run; of files outside it, their names."""
    command = provenance.get("command") or []
    if not isinstance(command, list):
        return str(command)
    words = [] if command == ["-"] else map(str, command)  # a program called the library
    return " ".join(file_name(word) if word.startswith(("/", "~")) else word for word in words)


def describe_entry(table: Mapping[str, Any]) -> str:
    """Return what the spec's table of a loss or an attack sets, beginning with its label."""
    label, name = table.get("label", "?"), table.get("name", "?")
    parts = [f"{label} ({file_name(str(name))})" if label != name else str(label)]
    network = table.get("model")
    if isinstance(network, str):
        parts.append(f"model {file_name(network)}")
    if table.get("weights"):
        parts.append(f"weights {file_name(str(table['weights']))}")
    normalize = table.get("normalize")
    if isinstance(normalize, str):
        parts.append(f"normalize {normalize}")
    if isinstance(network, dict) and isinstance(network.get("params"), dict):
        network = {k: v for k, v in network.items() if k != "params"} | network["params"]
    settings = map(_settings, (table.get("params"), table.get("train"), network, normalize))
    return ", ".join([*parts, *filter(None, settings)])


def _describe_tuning(numbers: Numbers) -> str:
    """Return which losses of a merged run were tuned; it has no trials, which stay in their run."""
    searches = numbers.run.provenance.get("searches") or {}
    tuned = [label for label in numbers.labels if label in searches]
    if not tuned:
        return ""
    who = (
        "every loss" if tuned == numbers.labels else f"{len(tuned)} of {len(numbers.labels)} losses"
    )
    keys = listed([*dict.fromkeys(key for label in tuned for key in searches[label]["search"])])
    return f"{who} chose {keys} by trials: {choice_words(numbers)}"


def _describe_attack(numbers: Numbers, attack: Mapping[str, Any]) -> str:
    """Return what the spec sets of an attack, and the eps of the run."""
    eps = ", ".join(eps_text(e) for e in attack.get("eps", []))
    norm = next((a.norm for a in numbers.attacks if a.label == attack["label"]), None)
    words = f" ({NORM_WORDS[norm]})" if norm in NORM_WORDS else ""
    return f"{describe_entry(attack)}; eps {eps}{words}"


def describe_converted(data: Mapping[str, Any]) -> str:
    """Return how many images had other channels than the rest, the first three by name."""
    found = data.get("converted") or {}
    count, some = int(found.get("count") or 0), [str(f) for f in found.get("files") or []][:3]
    if not count:
        return ""
    more = " and others" if some and count > len(some) else ""
    names = f": {', '.join(some)}{more}" if some else ""
    return f"{count:,} image{'s' if count > 1 else ''} to the channels of the others{names}"


def _settings(table: object) -> str:
    """Return the keys and values of a table; nothing for anything else."""
    if not isinstance(table, dict):
        return ""
    return ", ".join(f"{key} {_value_words(value)}" for key, value in table.items())


def _value_words(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _with_text(*facts: tuple[str, str]) -> Facts:
    return [(name, name_files(text)) for name, text in facts if text]
