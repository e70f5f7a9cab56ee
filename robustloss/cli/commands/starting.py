"""`new`: a loss, attack, score or data set to begin with."""

from typing import Annotated

from typer import Argument

from robustloss.cli.mistakes import showing_mistakes
from robustloss.cli.saying import DONE, say


def new(
    kind: Annotated[str, Argument(metavar="loss|attack|score|data")],
    name: Annotated[str, Argument(metavar="NAME", help="a Python name: my_loss gives my_loss.py")],
) -> int:
    """Write a loss, attack, score or data set that works as it is."""
    from robustloss.cli.starters import write_starter

    kind = kind.casefold()
    with showing_mistakes(ValueError):
        path, own = write_starter(kind, name)
    plugin = f"{path}:{own}"
    say(f"Wrote {path} with the {kind} {own}.".replace("the data", "the data set"))
    if kind == "loss":
        say(f"Check it:     robustloss check-loss {plugin}\nTry it out:   robustloss try {plugin}")
        return DONE
    if kind == "attack":
        say(f'Add to a spec beside it:\n  [[attacks]]\n  name = "{plugin}"\n  eps = [0.1]')
    elif kind == "data":
        say(f"Look at it:   robustloss check-data {plugin}")
        say(f'Name it in a spec beside it:\n  [data]\n  name = "{plugin}"')
    else:
        say(f'Add "{plugin}" to the scores under [detection] in a spec beside it.')
    say(f"A spec to begin with:   robustloss show quickstart > {name}.toml")
    say(f"Then run it:            robustloss run {name}.toml --out runs/{name}")
    return DONE
