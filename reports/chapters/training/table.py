"""Tables of the whole run: training, and every row of results.json."""

from collections.abc import Mapping, Sequence

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NOTHING, duration, span


def training_table(numbers: Numbers) -> Table:
    """What training cost and reached, by loss."""
    logs = {k: [t for t in numbers.run.training if t.get("label") == k] for k in numbers.labels}
    attacked = any(log.get("adversarial") for each in logs.values() for log in each)
    words = (
        " Of a loss trained on attacked images, errors are those of the epoch kept: the training "
        "error on attacked images (TRADES: clean ones), the validation error clean and under "
        "PGD on the margin, which chose the epoch if one was chosen."
    )
    return Table(
        "training",
        "Training",
        "Errors in percent after the last epoch, lowest to highest seed; time is the mean of one "
        "training; GPU memory the most that one held in tensors, images included."
        + (words if attacked else ""),
        (
            *("loss", "seeds", "epochs", "parameters", "training error", "validation error"),
            *(("validation error under attack", "epoch kept") if attacked else ()),
            *("time", "GPU memory", "precision"),
        ),
        [_training_row(label, logs[label], attacked) for label in numbers.labels],
        [_training_data(log, attacked) for label in numbers.labels for log in logs[label]],
    )


def _training_row(label: str, logs: Sequence[Mapping], attacked: bool) -> list[Entry]:
    if logs and not any(map(_epochs, logs)):  # given, not trained here
        parameters = span([float(log["parameters"]) for log in logs if log.get("parameters")])
        texts = [str(len(logs)), "none", parameters, *[NOTHING] * (7 if attacked else 5)]
        return [Entry(label), *(Entry(text, kind="gap") for text in texts)]
    ends = [_end(log) for log in logs]
    seconds = [float(log["seconds"]) for log in logs if log.get("seconds") is not None]
    peaks = [int(log["peak_bytes"]) for log in logs if log.get("peak_bytes") is not None]
    texts = [
        str(len(logs)) if logs else NOTHING,
        span([float(_epochs(log)) for log in logs]),
        span([float(log["parameters"]) for log in logs if log.get("parameters")]),
        _range(ends, "train_error"),
        _range(ends, "validation_error"),
        *((_range(ends, "validation_robust_error"), _kept(logs)) if attacked else ()),
        duration(sum(seconds) / len(seconds)) if seconds else NOTHING,
        f"{max(peaks) / 2**20:.0f} MiB" if peaks else NOTHING,
        ", ".join(sorted({str(log.get("precision")) for log in logs})) or NOTHING,
    ]
    return [Entry(label), *(Entry(text, kind="" if logs else "gap") for text in texts)]


def _training_data(log: Mapping, attacked: bool) -> dict[str, object]:
    kept = ["loss", "label", "seed", "steps", "seconds", "peak_bytes", "precision", "parameters"]
    ends = ["train_error", "validation_error"]
    if attacked:
        kept += ["adversarial", "chosen_epoch"]
        ends += ["validation_robust_error", "validation_one_step_error", "zero_gradient_fraction"]
    return (
        {key: log.get(key) for key in kept}
        | {"epochs": _epochs(log), "final_loss": _end(log).get("loss")}
        | {key: _end(log).get(key) for key in ends}
    )


def _end(log: Mapping) -> dict:
    """The line of the learning curve at which the kept weights stood."""
    curve = log.get("curve") or [{}]
    chosen = [line for line in curve if line.get("epoch") == log.get("chosen_epoch")]
    return (chosen or curve)[-1]


def _kept(logs: Sequence[Mapping]) -> str:
    defended = [log for log in logs if log.get("adversarial")]
    return span([float(log.get("chosen_epoch") or _epochs(log)) for log in defended])


def _epochs(log: Mapping) -> int:
    return log.get("epochs") or len(log.get("curve") or [])


def _range(ends: Sequence[dict], key: str) -> str:
    return span([float(e[key]) for e in ends if e.get(key) is not None], 2, 100.0)
