"""Words of somebody else on a terminal: nothing that it would obey reaches it."""

import io
import tomllib
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from robustloss import reports
from robustloss.cli import commands, terminal
from robustloss.data import files
from robustloss.losses.contract import check as contract
from robustloss.notation import printable
from robustloss.progress import Bars, Event, Lines
from robustloss.results.run import Run
from robustloss.runs import merge

# Clears the screen, sets the title, 8-bit control sequence, turns words around, takes a line back.
EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\r\u2028\udcff\x00\x7f\U000e0041"
TOML = "\\u001b[2J\\u001b]0;owned\\u0007\\u009b31m\\u202e\\r\\u2028\\u007f"


def harmless(text):
    return all(char.isprintable() or char in "\n\t" for char in text)


def test_what_is_not_visible_is_shown_by_its_escape():
    shown = printable(f"a{EVIL}b\n\tc")
    assert harmless(shown)
    assert shown.startswith(
        "a\\u001b[2J\\u001b]0;owned\\u0007\\u009b31m\\u202e\\u000d\\u2028\\udcff"
    )
    assert shown.endswith("\\u0000\\u007f\\U000e0041b\n\tc")


@pytest.mark.parametrize(
    "text", ["", "L-GM (α = 0.1), größer", "8\u202f255 a\u00a0b", "\n\t x 漢字 😀"]
)
def test_visible_words_are_left_alone(text):
    assert printable(text) == text


SPEC = """name = "x"
[data]
name = "digits"
[[losses]]
name = "{name}.py:Evil"
label = "mine"
params = {{ "{name}" = "{name}" }}
[[attacks]]
name = "fgsm"
eps = [0.1]
"""


@pytest.mark.parametrize("words", [("show",), ("run", "--no-plugins"), ("run", "--out", "run")])
def test_the_names_of_a_spec(command, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    Path("spec.toml").write_text(SPEC.format(name=TOML))
    code, out, err = command(words[0], "spec.toml", *words[1:])
    assert code == (0 if words == ("show",) else 2)
    assert "\\u001b[2J" in out + err
    assert harmless(out)
    assert harmless(err)
    if words == ("show",):  # the text is still the spec
        shown, given = (tomllib.loads(t)["losses"][0] for t in (out, SPEC.format(name=TOML)))
        assert {key: shown[key] for key in given} == given


@pytest.mark.parametrize("line", ['"{}" = 1', 'name = "{}"', "seeds = {}", 'data = "{}"'])
def test_the_mistakes_of_a_spec(command, tmp_path, line):
    (tmp_path / "spec.toml").write_text(line.format(TOML) + "\n" + SPEC.format(name="x"))
    code, out, err = command("show", tmp_path / "spec.toml")
    assert (code, out) == (2, "")
    assert harmless(err)


@pytest.mark.parametrize("words", [("show",), ("report",), ("compare", "x"), ("list",), ("--x",)])
def test_the_words_of_the_command_line(command, tmp_path, words):
    folder = tmp_path / EVIL.replace("\0", "")
    code, out, err = command(*words, folder)
    assert (code, out) == (2, "")
    assert harmless(err)


def test_notes_results_and_checks(command, tmp_path, monkeypatch, capsys):
    merged = merge.Merged(tmp_path / EVIL.replace("\0", ""), (f"one\nNote: two{EVIL}",))
    monkeypatch.setattr(merge, "merge_runs", lambda *given, **more: merged)
    monkeypatch.setattr(
        reports, "build_report", lambda run, **how: run / "report.html", raising=False
    )
    with monkeypatch.context() as there_is_no_run:
        there_is_no_run.setattr(terminal, "print_result", lambda run: None)
        code, out, _ = command("compare", "a", "b")
    assert (code, out.count("Note: "), out.count("\n"), harmless(out)) == (0, 2, 2, True)
    failed = [SimpleNamespace(name="shapes", passed=False, detail=EVIL, follows="")]
    monkeypatch.setattr(contract, "check_loss", lambda name: failed)
    assert harmless(command("check-loss", f"{EVIL}.py:X")[1])
    spec = {"attacks": [{"label": EVIL}], "losses": [{"label": EVIL}]}
    row = {"label": EVIL, "attack": "fgsm", "attack_label": EVIL, "norm": None, "eps": 0.1}
    summary = [row | {"metric": "error", "n_seeds": 1, "mean": 0.1, "low": None, "high": None}]
    tables = {"rows": [row], "summary": summary, "failures": [], "flags": []}
    run = Run(tmp_path, {"name": EVIL, "provenance": {"spec": spec}} | tables)
    terminal.print_result(run)
    out = capsys.readouterr().out
    assert "10.0" in out
    assert harmless(out)


def test_warnings_while_a_command_runs(command, monkeypatch):
    def warn(words):
        print(warnings.formatwarning(EVIL, UserWarning, "x.py", 1, ""))

    monkeypatch.setattr(commands, "_status", warn)
    before = warnings.formatwarning
    assert harmless(command("schema")[1])
    assert warnings.formatwarning is before


def test_progress_and_remarks(capsys, monkeypatch):
    stream = io.StringIO()
    for shown in (Lines(stream), Bars(Console(file=stream, width=300))):
        shown.start(1)
        shown(Event(f"{EVIL} seed 0", "train", 1, 2, EVIL))
        shown(Event(f"{EVIL} seed 0", "failed", text=EVIL))
        shown.stop()
    assert "owned" in stream.getvalue()
    assert harmless(stream.getvalue().replace("\r", ""))
    files.show_remark(f"Unpacking {EVIL}", quiet=False)
    assert harmless(capsys.readouterr().err)


def test_a_folder_whose_name_is_markup(capsys):
    with files.showing_progress(False) as bar:
        bar.add_task("Reading [/x]", total=1)
    capsys.readouterr()
