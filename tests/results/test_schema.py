"""The schema of results.json: a page for people, a contract for programs, and true of old runs."""

import copy
import gzip
import json
from pathlib import Path

import jsonschema
import pytest

from robustloss.results.run import load_run
from robustloss.results.schema import TABLES, json_schema

# A run as commit 831da1e wrote it: schema version 1, two losses, two seeds, a search.
OLD = Path(__file__).with_name("version_1.json.gz")


@pytest.fixture(scope="module")
def old():
    return json.loads(gzip.decompress(OLD.read_bytes()))


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_every_table_and_every_column_is_described_in_a_sentence():
    properties = json_schema()["properties"]
    assert properties.keys() == {"schema_version", "name", "provenance", "digest"} | TABLES.keys()
    for name, table in TABLES.items():
        columns = properties[name]["items"]["properties"]
        assert tuple(columns) == table.names
        for part in (properties[name], *columns.values()):
            sentence = part["description"]
            assert sentence[0].isupper() or sentence[0] == '"'
            assert sentence.endswith(".")
            assert len(sentence.split()) > 1


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_sorted_by_columns_of_its_own(name):
    table = TABLES[name]
    assert set(table.sorted_by) <= set(table.names)
    assert len(set(table.names)) == len(table.names)


def test_a_summarised_metric_means_one_thing():
    """A row of `summary` names its column but not its table.

    The attack names the worst case and the best of adaptive.
    """
    by_attack = ("worst_case", "adaptive")
    summarised = [c.name for name, table in TABLES.items() if name not in by_attack
                  for c in table.columns if c.summarised]  # fmt: skip
    assert len(set(summarised)) == len(summarised)


def test_an_old_run_fits_the_schema(old, validator):
    validator.validate(old)
    assert all(old[name] for name in TABLES if name in old and name not in ("crops", "flags"))
    assert all(table.optional for name, table in TABLES.items() if name not in old)


def test_an_old_run_is_read_and_stands_in_the_order_that_would_be_written(old, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(old))
    run = load_run(tmp_path)
    for name, table in TABLES.items():
        rows = getattr(run, name)
        assert rows == old.get(name, [])
        assert rows == table.arrange(rows[::-1] if table.sorted_by else rows)
        later = {column.name for column in table.columns if column.optional}
        for row in rows:
            assert tuple(row) == tuple(n for n in table.names if n in row or n not in later)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda r: r["rows"][0].pop("error"), ["rows", 0]),
        (lambda r: r["rows"][0].update(error=None), ["rows", 0, "error"]),
        (lambda r: r["rows"][0].update(seed=1.5), ["rows", 0, "seed"]),
        (lambda r: r["detection"][0].update(score=3), ["detection", 0, "score"]),
        (lambda r: r["summary"][0].update(values=["a"]), ["summary", 0, "values", 0]),
        (lambda r: r.update(flags={}), ["flags"]),
        (lambda r: r.pop("summary"), []),
        (lambda r: r.update(schema_version=2), ["schema_version"]),
    ],
)
def test_what_no_run_writes_breaks_the_schema(old, validator, change, place):
    few = {key: value[:2] if isinstance(value, list) else value for key, value in old.items()}
    changed = copy.deepcopy(few)
    change(changed)
    (error,) = validator.iter_errors(changed)
    assert list(error.absolute_path) == place


def test_columns_and_tables_that_older_runs_lack_may_be_missing(old, validator):
    few = {key: value[:2] if isinstance(value, list) else value for key, value in old.items()}
    for name, table in TABLES.items():
        if table.optional:
            few.pop(name, None)
        else:
            optional = {column.name for column in table.columns if column.optional}
            few[name] = [{c: v for c, v in row.items() if c not in optional} for row in few[name]]
    validator.validate(few)


def test_the_command_prints_it(command):
    status, out, err = command("schema")
    assert (status, err) == (0, "")
    assert json.loads(out) == json_schema()
