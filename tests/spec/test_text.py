"""Specs as text: written and read back, labels as file names, the table of keys."""

import random
import re
import tomllib

import pytest

from robustloss.spec.load import key_table, load_spec
from robustloss.spec.text import literal, slug

MINIMAL = {
    "name": "minimal",
    "losses": [{"name": "softmax"}],
    "attacks": [{"name": "fgsm", "eps": [0.1]}],
}


# Characters that TOML, JSON or a terminal treat in a way of their own.
ODD = "aB0 .-_\"\\'#=[]{},\t\x1b\x7fé😀\u2028"


def odd_text(rng):
    return "".join(rng.choices(ODD, k=rng.randint(0, 8)))


def odd_value(rng, depth=0):
    kind = rng.randrange(4 if depth > 2 else 6)
    if kind == 0:
        return odd_text(rng)
    if kind == 1:
        return rng.choice([0, -1, 2**40, 10**20])
    if kind == 2:
        return rng.choice([0.1, 1e-300, -2.5e17, 5e-324, 1.0])
    if kind == 3:
        return rng.random() < 0.5
    if kind == 4:
        return [odd_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {odd_text(rng): odd_value(rng, depth + 1) for _ in range(rng.randint(0, 3))}


@pytest.mark.parametrize("number", range(200))
def test_a_spec_written_as_toml_reads_back(number):
    rng = random.Random(number)
    odd_label = f"{rng.randint(0, 9)}" + "".join(c for c in odd_text(rng) if c.isprintable())
    spec = load_spec(
        MINIMAL
        | {
            "seeds": rng.sample(range(2**32), 3),
            "train": {"lr": rng.choice([1e-7, 0.05, 3]), "epochs": rng.randint(1, 99)},
            "losses": [
                {
                    "name": odd_text(rng) + "x",
                    "label": odd_label,
                    "params": {odd_text(rng): odd_value(rng) for _ in range(3)},
                    "train": {"nesterov": False},
                }
            ],
            "attacks": [{"name": "fgsm", "eps": [f"{rng.randint(0, 255)}/255"]}],
        }
    )
    said = spec.plain()
    for table in (
        "data",
        "train",
        "checks",
        "resources",
        "tuning",
        "report",
        "reference",
    ):  # TOML has no null: a key without a value is left out
        said[table] = {key: value for key, value in said[table].items() if value is not None}
    del said["losses"][0]["weights"], said["losses"][0]["normalize"]
    del said["attacks"][0]["label"]  # left out; a label that is given would name files
    assert said["data"] == {
        "name": "digits",
        "label": "digits",
        "ten_crop": False,
        "in_memory": "auto",
        "params": {},
    }
    assert tomllib.loads(spec.text) == said
    assert load_spec(tomllib.loads(spec.text)).plain() == spec.plain()
    assert load_spec(spec.plain()).plain() == spec.plain()


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("L-GM (alpha 1)", "l-gm-alpha-1"),
        ("L-GM (alpha 0.1)", "l-gm-alpha-0.1"),
        ("L-GM α=0.1", "l-gm-0.1"),
        ("Möbius  ZÜRICH", "mobius-zurich"),
        ("my/losses.py:Mine", "my-losses-py-mine"),
        ("../../etc", "etc"),
        (".hidden.", "hidden"),
        ("1.", "1"),
        ("½ Straße", "1-2-strasse"),
        ("--__--", ""),
        ("αβγ", ""),
    ],
)
def test_slug(label, expected):
    assert slug(label) == expected


def test_a_slug_is_a_safe_file_name_and_its_own_slug():
    rng = random.Random(0)
    for _ in range(2000):
        found = slug("".join(rng.choices(ODD + "./\\:*?<>|\0\nAZ09", k=12)))
        assert re.fullmatch(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?", found)
        assert ".." not in found
        assert slug(found) == found
        assert slug(found.upper()) == found


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (1.0, "1.0"), ('a"b', '"a\\"b"'), ([1, "x"], '[1, "x"]'), ({}, "{}")],
)
def test_literal(value, text):
    assert literal(value) == text


def leaves(table, prefix=""):
    for key, value in table.items():
        if key in ("params", "where") or (
            prefix.startswith("losses") and key in ("train", "model", "search")
        ):
            yield prefix + key
        elif isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from leaves(value[0], f"{prefix}{key}[].")
        else:
            yield prefix + key


def test_the_key_table_has_every_key_with_a_meaning():
    rows = key_table()
    given = {"train.adversarial"}  # a table, but false is a value
    for attack in ("pgd", "trades"):  # each has a key that the other lacks
        table = {"adversarial": {"attack": attack, "eps": 0.1}}
        whole = MINIMAL | {"outside": [{"name": "mnist"}], "train": table}
        whole |= {"model": {"weights": "w.pt", "normalize": "imagenet", "freeze": True}}
        whole |= {"gates": [{"metric": "error", "max": 1}], "shifts": [{"name": "noise"}]}
        given |= set(leaves(load_spec(whole).plain()))
    # Keys that those above exclude.
    bounded = MINIMAL | {"model": {"spectral": 3.0}}
    bounded["losses"] = [{"head": "nearest_mean", "of": "Own"}, {"name": "lgm", "label": "Own"}]
    given |= {key for key in leaves(load_spec(bounded).plain()) if key.startswith(("mo", "lo"))}
    assert {row.key for row in rows} == given
    assert all(row.meaning and row.type and row.default for row in rows)


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("name", "text", "required"),
        ("seeds", "list of integers >= 0", "[0]"),
        ("data.train_size", "integer >= 1", "all of the data set"),
        ("train.momentum", "number >= 0, < 1", "0.9"),
        ("train.optimizer", '"sgd" | "adam"', '"sgd"'),
        ("train.max_grad_norm", 'number > 0 | false | "if_short"', "1.0"),
        ("train.warmup", "number >= 0, <= 0.9", "0.2 for one_cycle, else 0"),
        ("losses[].label", "text", "the name, as L-GM"),
        ("report.baseline", "text", "the first loss"),
        ("attacks[].eps", 'list of numbers or fractions as text ("8/255")', "required"),
    ],
)
def test_rows_of_the_key_table(key, kind, default):
    (row,) = [row for row in key_table() if row.key == key]
    assert (row.type, row.default) == (kind, default)


def test_defaults_in_the_key_table_are_the_defaults():
    plain = load_spec(MINIMAL | {"train": {"adversarial": {"eps": 0.1}}}).plain()
    plain["model"] |= {"freeze": False}  # left out of a spec without weights
    for row in key_table():
        if row.key == "train.adversarial":
            assert load_spec(MINIMAL).train.adversarial is None
            continue
        if row.default[0] in '0123456789"tf[{' and "[]" not in row.key and " " not in row.default:
            value = plain
            for part in row.key.split("."):
                value = value[part]
            assert tomllib.loads(f"x = {row.default}")["x"] == value, row.key
