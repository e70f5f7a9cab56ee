"""What is read and not computed: `show`, `list`, `schema`, `guide` and `cite`."""

from difflib import get_close_matches
from typing import Annotated

from typer import Argument, Option

from robustloss.cli.mistakes import MistakeError, showing_mistakes, showing_spec_mistakes
from robustloss.cli.options import load_named_spec
from robustloss.cli.saying import DONE, say


def show(
    spec: Annotated[
        str | None, Argument(metavar="SPEC", help="a TOML file or a shipped spec's name")
    ] = None,
    keys: Annotated[
        bool, Option("--keys", help="Every key of a spec: type, default, meaning.")
    ] = False,
    data: Annotated[
        bool, Option("--data", help="Its data: counts, sizes, classes, checksum, where they lie.")
    ] = False,
    plugins: Annotated[
        bool, Option("--plugins", help="Load the spec's own code to time it.")
    ] = False,
    reference: Annotated[
        str | None,
        Option(metavar="REFERENCE", help="show a spec to start from, beside this reference"),
    ] = None,
) -> int:
    """Show a spec in full, and what it will cost.

    It prints a spec that runs: `robustloss show mnist > mine.toml` is where one of yours begins.
    """
    if keys:
        from robustloss.cli.terminal import console, keys_table
        from robustloss.spec.load import key_table

        console().print(keys_table(key_table()))
        return DONE
    if (spec is None) == (reference is None):
        raise MistakeError(
            "show: name a SPEC or a --reference, or use --keys for every key of a spec."
        )
    if spec is not None:
        loaded = load_named_spec(spec)
    else:
        from robustloss.runs.errors import RunError
        from robustloss.runs.references.find import open_reference
        from robustloss.runs.references.start import starting_spec

        assert reference is not None
        with showing_mistakes(ValueError, RunError):
            loaded = starting_spec(open_reference(reference), reference)
    from robustloss.cli.listing import data_lines, spec_lines

    with showing_spec_mistakes():
        show_lines = data_lines if data else spec_lines
        for line in show_lines(loaded, plugins=plugins):
            say(line)
    return DONE


def list_(
    what: Annotated[
        str | None,
        Argument(
            metavar="losses|attacks|scores|datasets|backbones|specs|metrics|references",
            help="all by default",
        ),
    ] = None,
) -> int:
    """List what a spec can name."""
    from robustloss.cli.listing import KINDS, all_entries, entries

    if what is None:
        for line in all_entries():
            print(line)
        return DONE
    what = what.casefold()
    if what not in KINDS:
        near = get_close_matches(what, KINDS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise MistakeError(f"list (={what}) must be one of {', '.join(KINDS)}{hint}")
    found = entries(what)
    if not found:
        print(f"No {what} come with this version; a file of `robustloss baseline` can be named.")
    width = max((len(name) for name in found), default=0)
    for name, meaning in found.items():
        print(f"{name:{width}}  {meaning}")
    return DONE


def schema() -> int:
    """Print the JSON Schema of results.json.

    It explains every column.
    """
    import json

    from robustloss.results.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return DONE


def guide(
    topic: Annotated[
        str | None, Argument(metavar="TOPIC", help="a page; without one, the list of all")
    ] = None,
) -> int:
    """Print a page of the guide, or their list."""
    from robustloss.cli.guide import list_topics, read_page

    if topic is not None:
        with showing_mistakes(ValueError):
            print(read_page(topic), end="")
        return DONE
    topics = list_topics()
    width = max(map(len, topics))
    for name, title in topics.items():
        print(f"{name:{width}}  {title}")
    print("\nRead one with: robustloss guide TOPIC")
    return DONE


def cite() -> int:
    """Print how to cite, as BibTeX."""
    from robustloss.cli.guide import BIBTEX

    print(BIBTEX)
    return DONE
