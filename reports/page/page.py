"""The one page: everything inline, every text of the user's escaped, no script."""

import base64
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from robustloss.reports.drawing.album import OTHERS, SPACE, Picture
from robustloss.reports.drawing.style import CROWD
from robustloss.reports.drawing.table import Table
from robustloss.reports.page.checks import checks_summary, verdicts
from robustloss.reports.page.headline import headline
from robustloss.reports.page.notes import warning
from robustloss.reports.reading.facts import is_given, loss_spec
from robustloss.reports.reading.featured import FEW
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NORM_WORDS, duration, listed

KINDS = {"csv": ("CSV", "text/csv"), "md": ("Markdown", "text/markdown"),
         "tex": ("LaTeX", "application/x-tex")}  # fmt: skip
BELOW = ("published", "detail")  # rows that belong to the one above them
MOST_LINES = 60


def render_page(
    numbers: Numbers,
    tables: Sequence[tuple[Table, Mapping[str, str]]],
    pictures: Sequence[Picture],
    gaps: Sequence[str],
    spec_text: str,
) -> str:
    """Fill the template.

    Args:
        numbers: Of the run.
        tables: Each with its texts by file ending.
        pictures: Saved figures, in order.
        gaps: Files that could not be read, and why.
        spec_text: The spec as it was written.
    """
    folder = files("robustloss.reports") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    apart = [entry for entry in tables if entry[0].section == SPACE]
    shown, folded, flags = _arranged(numbers, [t for t in tables if t not in apart])
    space = _space(numbers, apart, pictures)
    found = verdicts(numbers)
    run = numbers.run
    return template.render(
        css=Markup((folder / "style.css").read_text(encoding="utf-8")),
        name=run.name,
        lead=_lead(numbers),
        findings=headline(numbers),
        warning=warning(numbers),
        marked=_marked(numbers),
        problems=_problems(numbers, gaps),
        facts=_facts(numbers),
        tables=shown,
        folded=folded,
        pictures=[_picture(p) for p in pictures if not p.section],
        sections=_sections([p for p in pictures if p.section != SPACE]),
        space=space,
        space_title=SPACE,
        checks=found,
        checks_summary=checks_summary(found),
        flags_table=flags,
        failures=_capped([_failure(f) for f in run.failures]),
        gaps=_capped(list(gaps)),
        provenance=_provenance(run.provenance),
        spec=spec_text,
    )


def _arranged(
    numbers: Numbers, tables: Sequence[tuple[Table, Mapping[str, str]]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any] | None]:
    """What stands open, what is folded away under one line each, and the table of flags.

    With many attacks only the first keeps its tables open: the overview has the others.
    """
    attacks = [attack.label for attack in numbers.attacks if attack.strengths]
    aside = attacks[1:] if len(attacks) > FEW else []
    fold = ("always", "of many losses") if len(numbers.labels) > CROWD else ("always",)
    shown, folded, flags = [], [], None
    groups: dict[str, list[dict[str, Any]]] = {}
    for table, texts in tables:
        drawn = _table(table, texts)
        if table.name == "flags":
            flags = drawn
        elif table.section in aside:
            groups.setdefault(table.section, []).append(drawn)
        elif table.fold in fold:
            folded.append({"title": table.title, "tables": [drawn]})
        else:
            shown.append(drawn)
    each = [{"title": f"Tables of {name}", "tables": own} for name, own in groups.items()]
    return shown, [*each, *folded], flags


def _space(
    numbers: Numbers,
    tables: Sequence[tuple[Table, Mapping[str, str]]],
    pictures: Sequence[Picture],
) -> dict[str, Any]:
    """Tables and figures of the feature space, which stand together."""
    shown, folded, _ = _arranged(numbers, tables)
    own = [_picture(p) for p in pictures if p.section == SPACE]
    return {"tables": shown, "folded": folded, "pictures": own}


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a data: address."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _table(table: Table, texts: Mapping[str, str]) -> dict[str, Any]:
    first = [row[0] for row in table.rows]
    classes = []
    for i, entry in enumerate(first):
        below = entry.kind in BELOW
        new = i > 0 and not below and entry.text != first[i - 1].text
        group = new and len({e.text for e in first}) < len(first)
        classes.append("below" if below else "group" if group else "")
    return {
        **{k: getattr(table, k) for k in ("name", "title", "caption", "header", "notes", "left")},
        "rows": table.rows,
        "key": _key_column(table),
        "again": [i > 0 and e.text == first[i - 1].text for i, e in enumerate(first)],
        "classes": classes,
        "files": [
            {"name": f"{table.name}.{end}", "kind": KINDS[end][0],
             "uri": data_uri(text.encode(), KINDS[end][1])}
            for end, text in texts.items()
        ],
    }  # fmt: skip


def _key_column(table: Table) -> int:
    """The column that stays in sight while one scrolls: the loss, wherever it stands."""
    heads = list(table.header[: table.left])
    return heads.index("loss") if "loss" in heads else 0


def _picture(picture: Picture) -> dict[str, Any]:
    kind = "image/svg+xml" if picture.source.suffix == ".svg" else "image/png"
    pixels = round(96 * picture.inches)
    return {
        "name": picture.name, "title": picture.title, "caption": picture.caption,
        "alt": picture.alt, "uri": data_uri(picture.source.read_bytes(), kind),
        "numbers": picture.numbers.name,
        # narrower than 60 % the smallest letters are lost: the frame scrolls instead
        "least": min(round(0.62 * pixels), 640), "most": pixels,
    }  # fmt: skip


def _sections(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Figures by attack in the order of their making; what is set aside comes last, folded."""
    own: dict[str, list[dict[str, Any]]] = {}
    for picture in pictures:
        if picture.section:
            own.setdefault(picture.section, []).append(_picture(picture))
    order = sorted(own, key=lambda name: name == OTHERS)
    return [
        {"title": f"Figures of {name}", "open": i == 0 and name != OTHERS, "pictures": own[name]}
        for i, name in enumerate(order)
    ]


def _lead(numbers: Numbers) -> str:
    if not numbers.labels:
        return "A run without results."
    attacks = [a["label"] for a in numbers.spec.get("attacks", [])] or ["no attack"]
    count, seeds = len(numbers.labels), len(numbers.seeds)
    given = [label for label in numbers.labels if is_given(loss_spec(numbers, label))]
    trained = [label for label in numbers.labels if label not in given]
    losses = listed(trained) if count <= 5 else f"{len(trained)} losses"
    models = listed(given) if count <= 5 else f"{len(given)} models"
    what = (
        f"The same network trained with {losses} ({seeds} seed{'s' if seeds != 1 else ''})"
        f"{f', beside {models}, trained elsewhere' if given else ''}"
        if trained
        else f"{models}, given and not trained here"
    )
    return (
        f"{what}, on {numbers.data_label or 'unnamed data'}, "
        f"against {listed(attacks) if len(attacks) <= 5 else f'{len(attacks)} attacks'}: how often "
        "is each fooled, how sure is it then, and does the likelihood of its features give the "
        "attack away?"
    )


def _marked(numbers: Numbers) -> str:
    count = len(numbers.run.flags)
    if not count:
        return ""
    kinds = len({flag.get("check") for flag in numbers.run.flags})
    return (
        f"{count} sign{'s' if count != 1 else ''} of {kinds} kind{'s' if kinds != 1 else ''} that "
        "an attack, not the loss, made a number look good: such numbers are marked †."
    )


def _problems(numbers: Numbers, gaps: Sequence[object]) -> str:
    parts = []
    failed = len(numbers.run.failures)
    if failed:
        parts.append(f"{failed} cell{'s' if failed != 1 else ''} of this run did not finish.")
    if gaps:
        parts.append(f"{len(gaps)} stored file{'s' if len(gaps) != 1 else ''} could not be read.")
    return " ".join(parts)


def _facts(numbers: Numbers) -> list[tuple[str, str]]:
    spec, data = numbers.spec, numbers.run.provenance.get("data") or {}
    sizes = [f"{data[k]:,} {k}" for k in ("train", "validation", "test") if data.get(k)]
    model, train = spec.get("model") or {}, spec.get("train") or {}
    losses = spec.get("losses", [])
    if losses and all(isinstance(loss.get("model"), str) for loss in losses):
        model = {}  # each brings its own
    if losses and all(map(is_given, losses)):
        train = {}
    attacked = train.get("adversarial") or {}
    facts = [
        ("Data", numbers.data_label + (f": {', '.join(sizes)} images" if sizes else "")),
        ("About the data", remark(data)),
        ("Converted", converted(data)),
        ("Network", f"{model['backbone']}, {model.get('feature_dim', '?')} features"
         if model.get("backbone") else ""),
        ("Training", ", ".join(f"{k} {train[k]}" for k in _TRAIN_KEYS if train.get(k) is not None)),
        ("Attacked in training", ", ".join(f"{k} {_value(v)}" for k, v in attacked.items())),
        ("Tuning", _tuning(numbers)),
        *(("Loss", _described(loss)) for loss in losses),
        *(
            ("Attack", f"{_described(a)}; eps {', '.join(f'{e:.4g}' for e in a.get('eps', []))}"
             + _norm(numbers, a["label"]))
            for a in spec.get("attacks", [])
        ),
        ("Seeds", ", ".join(map(str, numbers.seeds)) or "none finished"),
        *(("Merged from", f"{run.get('name')} (folder {run.get('folder')})")
          for run in numbers.run.provenance.get("merged") or []),
        *(("Note", str(note)) for note in numbers.run.provenance.get("notes") or []),
    ]  # fmt: skip
    return [(name, text) for name, text in facts if text]


def _tuning(numbers: Numbers) -> str:
    most = max((row["trial"] for row in numbers.run.trials), default=0)
    kept = "the values below are those of the smallest clean validation error"
    return f"{most} trials of each loss; {kept}" if most else ""


def remark(data: Mapping[str, Any]) -> str:
    """What must be known of the data, as its provenance says it."""
    return str(data.get("summary") or "").strip().rstrip(".")


def converted(data: Mapping[str, Any]) -> str:
    """Images that had other channels than the rest, the first three by name."""
    found = data.get("converted") or {}
    count, some = int(found.get("count") or 0), [str(f) for f in found.get("files") or []][:3]
    if not count:
        return ""
    more = " and others" if some and count > len(some) else ""
    names = f": {', '.join(some)}{more}" if some else ""
    return f"{count:,} image{'s' if count > 1 else ''} to the channels of the others{names}"


_TRAIN_KEYS = ("epochs", "batch_size", "optimizer", "lr", "weight_decay", "schedule", "augment")


def _norm(numbers: Numbers, label: str) -> str:
    norm = next((a.norm for a in numbers.attacks if a.label == label), None)
    return f" ({NORM_WORDS[norm]})" if norm in NORM_WORDS else ""


def _described(table: Mapping[str, Any]) -> str:
    label, name = table.get("label", "?"), table.get("name", "?")
    parts = [f"{label} ({name})" if label != name else str(label)]
    if isinstance(table.get("model"), str):
        parts.append(f"model {table['model']}")
    if table.get("weights"):
        parts.append(f"weights {table['weights']}")
    network = table.get("model")
    if isinstance(network, dict) and isinstance(network.get("params"), dict):
        network = {k: v for k, v in network.items() if k != "params"} | network["params"]
    for own in (table.get("params"), table.get("train"), network):
        parts += [f"{k} {_value(v)}" for k, v in own.items()] if isinstance(own, dict) else []
    return ", ".join(parts)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _called(data: Mapping[str, Any]) -> str:
    name, label = data.get("name"), data.get("label")
    return f"{label} ({name})" if label and label != name else str(name)


def _failure(failure: Mapping[str, Any]) -> str:
    return (
        f"{failure.get('label')}, seed {failure.get('seed')}, stage {failure.get('stage')}: "
        f"{failure.get('reason')}"
    )


def _capped(lines: list[str]) -> list[str]:
    if len(lines) <= MOST_LINES:
        return lines
    return [*lines[:MOST_LINES], f"And {len(lines) - MOST_LINES} more in results.json."]


def _provenance(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    data = provenance.get("data") or {}
    versions = [
        f"{k} {provenance[k]}"
        for k in ("robustloss", "torch", "torchvision", "numpy", "python")
        if provenance.get(k)
    ]
    times = [str(provenance[k]) for k in ("started", "finished") if provenance.get(k)]
    known = {"robustloss", "torch", "torchvision", "numpy", "python", "data", "started",
             "finished", "seconds", "spec", "command", "seeds", "attack_cost", "merged",
             "notes"}  # fmt: skip
    command = provenance.get("command") or []
    facts = [
        ("Command", " ".join(map(str, command)) if isinstance(command, list) else str(command)),
        ("Versions", ", ".join(versions)),
        *((k.replace("_", " ").capitalize(), _value(v)) for k, v in provenance.items()
          if k not in known and v is not None),
        ("Data", f"{_called(data)}, checksum {data.get('checksum')}" if data else ""),
        ("Seeds", ", ".join(map(str, provenance.get("seeds") or []))),
        ("Time", " to ".join(times)
         + (f" ({duration(provenance['seconds'])})" if provenance.get("seconds") else "")),
    ]  # fmt: skip
    return [(name, text) for name, text in facts if text]
