"""The table of training: what each loss cost, and what it reached."""

from collections.abc import Mapping, Sequence

from robustloss.reports.drawing.table import Entry, Table, without_empty_columns
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NOTHING, span

KEYS = ("loss", "label", "seed", "steps", "seconds", "peak_bytes", "precision", "parameters")
ERRORS = ("train_error", "validation_error")
ATTACKED = ("validation_robust_error", "validation_one_step_error", "zero_gradient_fraction")


def training_table(numbers: Numbers) -> Table:
    """Return what training cost and reached, by loss."""
    logs = {k: [t for t in numbers.run.training if t.get("label") == k] for k in numbers.labels}
    attacked = any(log.get("adversarial") for own in logs.values() for log in own)
    words = (
        " A loss trained on attacked images has the errors of the epoch kept: the training error "
        "on attacked images (TRADES: clean ones), the validation error clean and under the PGD on "
        "the margin that chose the epoch."
    )
    memory = " GPU memory: the most that one training held in tensors, images included."
    keys = (*KEYS, "adversarial", "chosen_epoch") if attacked else KEYS
    ends = (*ERRORS, *ATTACKED) if attacked else ERRORS
    rows, data = [], []
    for label, own in logs.items():
        texts = _row(own, attacked=attacked)
        # a given model was not trained here, a failed one has no log
        kind = "" if any(map(_epochs, own)) else "gap"
        rows.append([Entry(label), *(Entry(text, kind=kind) for text in texts)])
        data += [
            {key: log.get(key) for key in keys}
            | {"epochs": _epochs(log), "final_loss": _end(log).get("loss")}
            | {key: _end(log).get(key) for key in ends}
            for log in own
        ]
    return Table(
        "training",
        "Training",
        (
            "Errors in percent after the last epoch, lowest to highest seed."
            if any(row["epochs"] for row in data)
            else "No model was trained in this run."
        )
        + (memory if any(row["peak_bytes"] for row in data) else "")
        + (words if attacked else ""),
        *without_empty_columns(
            (
                *("loss", "seeds", "epochs", "parameters", "training error", "validation error"),
                *(("validation error under attack", "epoch kept") if attacked else ()),
                *("GPU memory", "precision"),
            ),
            rows,
        ),
        data,
    )


def _row(logs: Sequence[Mapping], *, attacked: bool) -> list[str]:
    parameters = span([float(log["parameters"]) for log in logs if log.get("parameters")])
    if logs and not any(map(_epochs, logs)):
        return [str(len(logs)), "none", parameters, *[NOTHING] * (6 if attacked else 4)]
    peaks = [int(log["peak_bytes"]) for log in logs if log.get("peak_bytes") is not None]
    kept = [log.get("chosen_epoch") or _epochs(log) for log in logs if log.get("adversarial")]
    return [
        str(len(logs)) if logs else NOTHING,
        span([_epochs(log) for log in logs]),
        parameters,
        _range(logs, "train_error"),
        _range(logs, "validation_error"),
        *((_range(logs, "validation_robust_error"), span(kept)) if attacked else ()),
        f"{max(peaks) / 2**20:.0f} MiB" if peaks else NOTHING,
        ", ".join(sorted({str(log.get("precision")) for log in logs})) or NOTHING,
    ]


def _range(logs: Sequence[Mapping], key: str) -> str:
    """Return an error in percent where the kept weights stood, lowest to highest seed."""
    found = [_end(log).get(key) for log in logs]
    return span([float(value) for value in found if value is not None], 2, 100.0)


def _end(log: Mapping) -> dict:
    """Return the line of the learning curve at which the kept weights stood."""
    curve = log.get("curve") or [{}]
    chosen = [line for line in curve if line.get("epoch") == log.get("chosen_epoch")]
    return (chosen or curve)[-1]


def _epochs(log: Mapping) -> int:
    return log.get("epochs") or len(log.get("curve") or [])
