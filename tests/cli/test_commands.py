"""The command line: what it prints, and its exit status."""

import re
import signal
import subprocess
import sys

import pytest

from robustloss.cli import commands
from robustloss.results.schema import TABLES
from robustloss.runs import runner
from robustloss.spec.load import load_spec
from robustloss.spec.text import to_toml
from tests.small_run import changed
from tests.written import write_results


def row(label, seed, attack, eps, error):
    columns = dict.fromkeys(TABLES["rows"].names)
    place = {"loss": label.lower(), "label": label, "seed": seed, "n": 1000}
    attack = {"attack": attack.lower(), "attack_label": attack, "norm": None, "eps": eps}
    numbers = {"error": error, "error_low": error - 0.01, "error_high": error + 0.01}
    return columns | place | attack | numbers


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Stands in for the runner; gives what it was called with."""
    folder, calls, failures = tmp_path / "runs", [], []

    def run(spec, **options):
        calls.append((spec, options))
        rows = [
            row(label, seed, attack, eps, error + seed / 100)
            for seed in options["seeds"] or spec.seeds
            for label, attack, eps, error in [
                ("Softmax", "none", 0.0, 0.005),
                ("Softmax", "FGSM [x]", 0.0, 0.005),
                ("Softmax", "FGSM [x]", 0.1, 0.144),
                ("L-GM", "none", 0.0, 0.004),
                ("L-GM", "FGSM [x]", 0.1, 0.066),
            ]
        ]
        plain = load_spec(
            {
                "name": "finished",
                "losses": [{"name": "softmax", "label": "Softmax"}, {"name": "l", "label": "L-GM"}],
                "attacks": [{"name": "fgsm", "label": "FGSM [x]", "eps": [0, 0.1]}],
            }
        ).plain()
        folder.mkdir(exist_ok=True)
        write_results(
            folder,
            name="finished",
            provenance={"spec": plain},
            cells=[{"rows": rows, "detection": [], "flags": []}],
            training=[],
            failures=failures,
        )
        report = folder / "report" / "index.html"
        return runner.RunOutcome(folder, report, failures, 1 if failures else 0)

    monkeypatch.setattr(runner, "run", run)
    return calls, failures


def test_a_run_ends_with_its_errors_and_the_report(command, finished):
    status, out, err = command("run", "quickstart", "--seeds", "0")
    assert status == 0
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith(
        "Errors in percent, one training seed. [low, high] is a 95 % interval over"
    )
    heads = next(number for number, line in enumerate(lines) if line.startswith("loss"))
    assert lines[heads].split()[:3] == ["loss", "clean", "0.1"]
    assert "error, FGSM [x]" in lines[heads - 1]
    assert lines[heads + 1].startswith("Softmax  0.50 [−0.50, 1.50]  14.4 [13.4, 15.4]")
    assert lines[heads + 2].startswith("L-GM     0.40 [−0.60, 1.40]  6.60 [5.60, 7.60]")
    assert lines[-1].startswith("Report: ")
    assert lines[-1].endswith("index.html")
    assert "\x1b" not in out


def test_errors_are_means_over_seeds_with_t_intervals(command, finished):
    # 14.4, 15.4, 16.4: mean 15.4, standard deviation 1, t(0.975, 2) = 4.3027 -> +- 2.484
    _, out, _ = command("run", "quickstart", "--seeds", "0,1,2")
    assert "means over 3 training seeds" in out
    assert "15.4 [12.9, 17.9]" in out


def test_options_reach_the_runner(command, finished, tmp_path):
    calls, _ = finished
    words = f"--out {tmp_path} --device cpu --data d --seeds 2,1 --executor processes:2 --reuse r"
    status, out, _ = command("run", "quickstart", *words.split(), "--quiet")
    assert status == 0
    ((spec, options),) = calls
    assert spec.name == "quickstart"
    progress = options.pop("progress")
    assert type(progress).__name__ == "Silent"
    assert options == {
        "out": str(tmp_path),
        "device": "cpu",
        "data": "d",
        "seeds": (2, 1),
        "executor": "processes:2",
        "reuse": "r",
        "plugins": True,
        "log": None,
        "beside": None,
    }
    assert out.splitlines()[-1].endswith("report/index.html")
    assert len(out.splitlines()) == 1
    command("run", "quickstart", "--no-plugins")
    assert calls[-1][1]["plugins"] is False


def test_failed_cells_are_named_and_the_status_is_1(command, finished):
    finished[1].append(
        {"loss": "l", "label": "L-GM", "seed": 3, "stage": "train", "reason": "the loss is NaN"}
    )
    status, out, err = command("run", "quickstart")
    assert status == 1
    assert "Report: " in out
    first, last = err.splitlines()
    assert first == "failed: L-GM seed 3 (train): the loss is NaN"
    assert last.startswith("Exit status 1 means this: what failed has no numbers.")


def test_a_bug_is_not_hidden(monkeypatch):
    def run(*words, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(runner, "run", run)
    with pytest.raises(RuntimeError, match="a bug"):
        commands.main(["run", "quickstart"])


FULL = "No space left on device. Make room, then run the command again: what is finished is kept.\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((28, "No space left on device"), FULL),
        ((28, "No space left on device", "a.npz"), f"a.npz: {FULL}"),
        ((13, "Permission denied", "a.npz"), "a.npz: Permission denied.\n"),
    ],
)
def test_a_disk_that_refuses_is_told(command, monkeypatch, words, message):
    def run(*given, **options):
        raise OSError(*words)

    monkeypatch.setattr(runner, "run", run)
    assert command("run", "quickstart") == (2, "", message)


# -- interrupts, start-up --------------------------------------------------------------------


def test_ctrl_c_says_how_to_go_on(command, monkeypatch):
    def run(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", run)
    status, _, err = command("run", "quickstart", "--out", "my runs/x")
    assert status == 130
    assert err == (
        "Interrupted. Finished work is kept; go on with: "
        "robustloss run quickstart --out 'my runs/x'\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_with_130(number):
    code = (
        "import signal, time, robustloss.runs.runner as runner\n"
        # A shell starts its background jobs deaf to Ctrl-C, and their children inherit it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def run(*words, **options): print('ready', flush=True); time.sleep(60)\n"
        "runner.run = run\n"
        "from robustloss.cli.commands import main; main(['run', 'quickstart'])"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "go on with: robustloss run quickstart" in err
    assert "Traceback" not in err


def test_sigterm_is_as_before_afterwards(command):
    before = signal.getsignal(signal.SIGTERM)
    command("--version")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        ("--help", []),
        ("", []),
        ("run --help", ["pydantic"]),  # typer's own import, in its later versions
        ("show --help", ["pydantic"]),
        ("--version", ["pydantic"]),
    ],
)
def test_help_imports_nothing_heavy(words, allowed):
    code = (
        "import sys\n"
        "from robustloss.cli.commands import main\n"
        "try:\n"
        f"    main({words.split()})\n"
        "except SystemExit as end:\n"
        "    heavy = ('torch', 'pydantic', 'numpy', 'matplotlib', 'rich', 'scipy')\n"
        "    print(end.code, *[name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, *imported = done.stdout.splitlines()[-1].split()
    assert status == "0"
    assert set(imported) <= set(allowed)


def test_help_names_the_commands_that_work(command):
    _, out, _ = command("--help")
    listed = re.findall(r"^  ([a-z][a-z-]+)  ", out, re.MULTILINE)
    assert listed == [*commands._COMMANDS]
    for name in listed:
        status, out, _ = command(name, "--help")
        assert (status, out.startswith(f"Usage: robustloss {name} ")) == (0, True)


@pytest.mark.parametrize(
    ("words", "status"),
    [(["--version"], 0), (["run", "quickstrat"], 2), (["show"], 2), (["frobnicate"], 2)],
)
def test_exit_status_of_the_module(words, status):
    done = subprocess.run(
        [sys.executable, "-m", "robustloss", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert bool(done.stderr) == (status != 0)


def test_a_rate_that_is_too_high_is_told_wherever_the_result_is(command, tmp_path):
    spec = changed(seeds=[0], checks={"images": 0}, detection={"noise": False})
    spec["train"] |= {"lr": 50.0, "max_grad_norm": 1.0}
    (tmp_path / "spec.toml").write_text(to_toml(spec))
    folder = tmp_path / "run"
    status, out, _ = command("run", tmp_path / "spec.toml", "--out", folder, "--device", "cpu")
    told = re.search(r"^.* not learnt: clean error .* guessing is 90 %\. Lower .*$", out, re.M)
    assert status == 0
    assert told
    assert told[0] in (folder / "report" / "summary.md").read_text("utf-8").replace("\\", "")
    page = (folder / "report" / "index.html").read_text("utf-8")
    assert f"<strong>Read with care.</strong> {told[0]} " in page
