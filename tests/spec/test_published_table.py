"""The file of published numbers that a spec names: what it may say, and what is refused."""

import json

import pytest

from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.spec.report import read_published
from tests.small_run import changed

ROW = {"loss": "L-GM", "attack": "FGSM", "eps": "1/10", "error": 23.63}
TABLE = {"source": "Doe et al. 2030, Table 2, page 7", "unit": "percent", "rows": [ROW]}


def read(folder, content, **keys):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "paper.json").write_text(text)
    spec = load_spec(changed(report={"published": "paper.json"}, **keys), folder=folder)
    return read_published(spec.report.published, spec.folder, spec.losses, spec.attacks)


def with_row(**keys):
    return {**TABLE, "rows": [{**ROW, **keys}]}


def without(key):
    return {name: value for name, value in TABLE.items() if name != key}


def test_rows_get_the_labels_of_the_run_and_fractions_to_the_digit(tmp_path):
    rows = [
        {"loss": "lgm", "error": 0.39, "low": 0.3, "high": 0.5},
        {"loss": "SOFTMAX", "attack": "fgsm", "eps": 0.2, "auroc": 0.91},
        {"loss": "ArcFace", "attack": "PGD", "eps": "8/255", "error": 12},
    ]
    (table,) = read(tmp_path, {**TABLE, "rows": [ROW, *rows], "caveat": "One run."})
    found = [(*map(row.get, ("label", "attack_label", "eps", "error", "auroc")),)
             for row in table["rows"]]  # fmt: skip
    assert found == [
        ("L-GM", "fgsm", 0.1, 0.2363, None),
        ("L-GM", "none", 0.0, 0.0039, None),
        ("softmax", "fgsm", 0.2, None, 0.91),
        ("ArcFace", "PGD", 8 / 255, 0.12, None),  # about no loss of the run: told by the report
    ]
    assert (table["rows"][1]["low"], table["rows"][1]["high"]) == (0.003, 0.005)
    assert (table["short"], table["caveat"]) == ("paper", "One run.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{not json", "is no JSON at line 1, column 2.*Mend it"),
        ("", "is no JSON at line 1"),
        ("[]", "must hold an object"),
        ("[" * 10_000, "too long or too deep"),
        ('{"source": %s}' % ("1" * 6000), "too long or too deep"),
        ('{"source": "a", "source": "b"}', '"source" stands twice.*Remove one'),
        (" " * (2**20 + 1), "has more than 1 MiB"),
        ({**TABLE, "sorce": ""}, "sorce: unknown key; did you mean 'source'"),
        (without("source"), 'source: missing. Write for example "source": "Wan'),
        (without("unit"), 'unit: missing. Write for example "unit": "percent"'),
        (without("rows"), 'rows: missing. Write for example "rows": \\[{"loss"'),
        ({**TABLE, "source": " "}, "source .* must be one line"),
        ({**TABLE, "unit": "%"}, 'unit .*must be one of "percent", "fraction"'),
        ({**TABLE, "rows": {}}, "rows .* must be a list"),
        ({**TABLE, "rows": ["L-GM"]}, r"rows\[0\] .* must be an object"),
        ({**TABLE, "rows": [ROW, {**ROW, "loss": "lgm"}]}, r"rows\[1\] .*repeats rows\[0\]"),
        (with_row(error=240), r"rows\[0\].error .*must lie in \[0, 100\]"),
        (with_row(error=-1), r"rows\[0\].error .*must lie in \[0, 100\]"),
        (with_row(error=0.2363), 'unit .*look like fractions. Write "fraction"'),
        ({**TABLE, "unit": "fraction"}, r'must lie in \[0, 1\].*Write "unit": "percent"'),
        (with_row(error="23"), "must be a number. Write 23, without quotes"),
        (json.dumps(with_row(error=float("nan"))), "must be a finite number"),
        (with_row(error=None), "must be given where auroc is not"),
        (with_row(auroc=91), r"auroc \(=91\) must lie in \[0, 1\].*Divide percent by 100"),
        (with_row(low=24, high=22), "must hold low .=24. <= error <= high .=22.. Swap"),
        (with_row(low=22), "high .*must be given with low"),
        (with_row(loss="x" * 501), r"rows\[0\].loss .*one line of 1 to 500 printable"),
        (with_row(loss="a\x1b[2J"), r"rows\[0\].loss .*one line of 1 to 500 printable"),
        (with_row(attack="none"), "must be an attack where eps"),
        (with_row(eps=-1), "must be >= 0"),
        (with_row(loss="ArcFace"), 'no row about this run. Its losses are "softmax", "L-GM"'),
        (with_row(eps="8/255"), r"no row about this run.* fgsm \(0, 0.1, 0.2\)"),
        (with_row(attack="PGD"), "no row about this run"),
    ],
)
def test_what_is_no_table_is_refused_with_its_place_and_what_to_write(tmp_path, content, said):
    with pytest.raises(SpecError, match=r'^report.published \(="paper.json"\): ') as caught:
        read(tmp_path, content)
    caught.match(said)
    assert str(caught.value).count("\n") < 3


def test_a_name_of_two_losses_asks_for_a_label(tmp_path):
    losses = [{"name": "lgm", "label": "A"}, {"name": "lgm", "label": "B"}]
    with pytest.raises(SpecError, match=r'is the name of "A" and "B". Write one of these labels'):
        read(tmp_path, {**TABLE, "rows": [{**ROW, "loss": "lgm"}]}, losses=losses)


def test_a_file_that_is_absent_or_a_folder_is_named(tmp_path):
    spec = load_spec(changed(report={"published": ["a.json"]}), folder=tmp_path)
    with pytest.raises(SpecError, match=r"a.json does not exist. Name a JSON file"):
        read_published(spec.report.published, spec.folder, spec.losses, spec.attacks)
    (tmp_path / "a.json").mkdir()
    with pytest.raises(SpecError, match=r"is no file. Name a JSON file"):
        read_published(spec.report.published, spec.folder, spec.losses, spec.attacks)
