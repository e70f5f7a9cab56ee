"""What a command leaves behind: lines on stdout and stderr, and an exit status."""

import sys

from robustloss.notation import one_line, printable

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses; FAILED: a run or checks finished, but not all of it is well."""


def say(text: object) -> None:
    """Print what may hold somebody else's words, escaped, on stdout."""
    print(printable(str(text)), flush=True)


def complain(text: str) -> int:
    """Print a line on stderr, escaped; return the exit status of a mistake."""
    print(printable(text), file=sys.stderr, flush=True)
    return MISTAKE


def complain_of_failures(failures: list[dict], remedy: str) -> None:
    """Print which cells have no numbers, why, and what to do about it."""
    from robustloss.runs.executors.queue import NOT_BEGUN

    cells: dict[tuple[str, str], list[str]] = {}  # by stage and reason
    for failure in failures:
        same = cells.setdefault((failure["stage"], failure["reason"]), [])
        same.append(f"{failure['label']} seed {failure['seed']}")
    for (stage, reason), names in cells.items():
        told = f"failed: {', '.join(names)} ({stage}): {reason}"
        if stage == NOT_BEGUN:
            told = f"not begun: {', '.join(names)}, because {reason}"
        complain(one_line(told))
    if cells:
        complain(
            f"Exit status {FAILED} means this: what failed has no numbers. What is done is kept; "
            f"{remedy}"
        )
