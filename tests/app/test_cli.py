"""The command line from outside: what people type, what they get, and how fast it answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import netwright

ROOT = Path(__file__).parents[2]


def run(*words, cwd=None):
    command = [sys.executable, "-m", "netwright.app.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd or ROOT, timeout=120)


def error_of(done):
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_help_and_lists_import_nothing_heavy():
    for words in ("['--help']", "['methods']"):
        code = (
            "import sys; sys.argv = ['netwright', *" + words + "]\n"
            "from netwright.app import cli\n"
            "try: cli.main()\n"
            "except SystemExit: pass\n"
            "heavy = {'torch', 'numpy', 'scipy', 'sklearn', 'onnx', 'plotly', 'pandas'} & set(sys.modules)\n"
            "sys.exit(str(heavy) if heavy else 0)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_methods_are_listed_found_and_shown_as_json():
    rows = json.loads(run("methods", "--json").stdout)
    assert {"slug", "goal", "summary"} <= set(rows[0])
    assert "temperature-scaling" in run("methods", "--search", "temperature").stdout
    card = json.loads(run("method", "temperature-scaling", "--json").stdout)
    assert card["venue"] == "arXiv 1706.04599"


def test_each_goal_is_named_once_and_its_methods_stand_together():
    lines = run("methods").stdout.splitlines()[2:]
    named = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert len(named) == len(set(named)) > 5
    rows = json.loads(run("methods", "--json").stdout)
    goals = [row["goal"] for row in rows]
    assert goals == sorted(goals, key=goals.index)
    assert named == list(dict.fromkeys(goals))


@pytest.mark.parametrize(
    "words", [("--search", "no such thing"), ("--goal", "explain", "--search", "pruning")]
)
def test_an_empty_search_says_so(words):
    done = run("methods", *words)
    assert done.returncode == 1
    assert f"that holds all of '{words[-1]}'" in done.stderr
    assert done.stdout == ""
    done = run("methods", *words, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, [])


def test_version_and_bare_call():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"netwright {netwright.__version__}\n")
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in done.stdout
    assert "improve" in done.stdout
    assert done.stdout == run("--help").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("improve", "--task", "digitz"), "Did you mean 'digits'"),
        (("improve", "--methods", "taylor-prunin"), "Did you mean 'taylor-pruning'"),
        (("improve", "--budget", "soon"), "Write 90s, 5m or 1h"),
        (("improve", "--max-drop", "2"), "Write 0.01 or 1%"),
        (("improve", "--faster", "0.5"), "give a factor above 1"),
        (("improve", "--smaller", "inf"), "give a factor above 1"),
        (("improve", "--methods", "rankmixup"), "is a method of the goal train"),
        (("improve", "--methods", ","), "names no method"),
        (("improve", "nowhere.onnx"), "nowhere.onnx"),
        (("method", "temperatur-scaling"), "Did you mean 'temperature-scaling'"),
        (("compress",), "Give --method"),
        (("calibrate", "--set", "hot=1"), "has no setting 'hot'"),
        (("calibrate", "--method", "taylor-pruning"), "is a method of the goal compress"),
        (("data", "lose"), "no action 'lose'"),
        (("improve", "--fast"), "--fast"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(words, said, tmp_path):
    assert said in error_of(run(*words, cwd=tmp_path))
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


def test_data_and_models_are_listed():
    assert {"digits"} <= {row["name"] for row in json.loads(run("data", "--json").stdout)}
    assert "resnet" in run("models").stdout.split()


def test_the_answer_no_is_exit_code_1(tmp_path):
    words = (
        "improve",
        "--methods",
        "dynamic-int8",
        "--smaller",
        "100",
        "--budget",
        "30s",
        "--out",
        tmp_path,
        "--json",
    )
    done = run(*words)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["met"] is False
