"""`reference`: losses are added to a reference, or only checked."""

from typing import Annotated

from typer import Argument, Option

from robustloss.cli.mistakes import MistakeError, showing_mistakes
from robustloss.cli.saying import DONE, say
from robustloss.notation import one_line


def reference(
    action: Annotated[str, Argument(metavar="add")],
    source: Annotated[
        str, Argument(metavar="RUN|FILE", help="a run folder, or a file that `baseline` wrote")
    ],
    check: Annotated[bool, Option("--check", help="Check only; write nothing.")] = False,
    name: Annotated[
        str | None, Option(metavar="NAME", help="of the reference  [default: that of the data]")
    ] = None,
    to: Annotated[
        str | None,
        Option(metavar="DIR", help="folder of the references  [default: that of the package]"),
    ] = None,
) -> int:
    """Add the losses of a run to a reference.

    Later runs can stand beside it. Data, network, training, attacks and test images must be those
    of the losses that the reference has. The numbers of the run must follow from what is kept of
    each image. Equal runs give equal bytes. A loss that is there already may gain seeds.
    """
    from robustloss.runs.references.add import add_to_reference
    from robustloss.runs.references.find import SHIPPED

    if action != "add":
        raise MistakeError(f"reference (={action}) must be add: robustloss reference add RUN|FILE.")
    with showing_mistakes(ValueError):
        added = add_to_reference(source, name=name, to=to or SHIPPED, check=check)
    for one in added:
        seeds = ", ".join(map(str, one.seeds))
        doubts = f"; in doubt: {', '.join(one.doubts)}" if one.doubts else ""
        state = "replaced" if one.before else "added"
        state = f"can be {state}" if check else state
        if not one.changed:
            state = "there already"
        elif one.before:
            state += f", seeds before: {', '.join(map(str, one.before))}"
        say(
            one_line(
                f"{one.label}: {state}; {one.file} ({one.size / 1e6:.2f} MB; seeds {seeds}; sha256 "
                f"{one.sha256[:16]}){doubts}"
            )
        )
    written = {one.file for one in added}
    if kept := [p.name for p in sorted(added[0].file.parent.glob("*.npz")) if p not in written]:
        say(one_line(f"Left as they are: {', '.join(kept)}"))
    return DONE
