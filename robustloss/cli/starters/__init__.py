"""The files that `robustloss new` writes: each works as it is and shows what to change.

`write_starter` copies one under the user's name. The others are those files: `loss`, `attack`,
`score` and `data`; nothing imports them.
"""

import ast
import importlib.util
import keyword
import re
from pathlib import Path

# What the name in each file is replaced by the user's.
_PLACEHOLDERS = {"loss": "MyLoss", "attack": "my_attack", "score": "my_score", "data": "my_data"}
KINDS = tuple(_PLACEHOLDERS)


def write_starter(kind: str, name: str) -> tuple[Path, str]:
    """Write NAME.py into the working folder.

    Args:
        kind: One of KINDS.
        name: Of the file without its ending. A class is called by it in capitals: my_loss gives
            MyLoss.

    Returns:
        The file, and the name of the class or function in it.

    Raises:
        ValueError: No such kind, a name that cannot be one, or a file that is there already.
    """
    if kind not in KINDS:
        raise ValueError(f"new (={kind}) must be one of {', '.join(KINDS)}.")
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        near = re.sub(r"\W+", "_", name.removesuffix(".py"), flags=re.ASCII).strip("_")
        near = near if near.isidentifier() and not keyword.iskeyword(near) else f"my_{kind}"
        raise ValueError(
            f"NAME (={name}) must be a Python name of letters a-z, digits and '_': it names the "
            f"file and what stands in it. Write {near}."
        )
    path, placeholder = Path(f"{name}.py"), _PLACEHOLDERS[kind]
    own = name
    if kind == "loss":
        own = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    text = Path(__file__).with_name(f"{kind}.py").read_text(encoding="utf-8")
    if path.exists():
        raise ValueError(f"{path} is there already. Choose another name, or remove it.")
    if importlib.util.find_spec(name) is not None:
        raise ValueError(
            f"NAME (={name}) is the name of an installed module, which {path} would hide. Write "
            f"my_{name}."
        )
    if not own.isidentifier() or own in _names_in(text) - {placeholder}:
        raise ValueError(
            f"NAME (={name}) gives '{own}', which the file uses for something else. Write "
            f"my_{name.strip('_') or kind}."
        )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text.replace(placeholder, own))
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}.") from error
    return path, own


def _names_in(text: str) -> set[str]:
    """Return every name that Python code imports, defines, takes or uses."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        for field in ("id", "arg", "name", "asname"):
            if isinstance(value := getattr(node, field, None), str):
                found.add(value)
    return found
