"""The guide's examples run, and every command that the docs show is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from netwright.app import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "guide").glob("*.md")),
]


def test_the_examples_of_data_formats_run_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETWRIGHT_CACHE", str(tmp_path / "cache"))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "guide" / "data.md").read_text(), re.DOTALL)
    assert len(blocks) > 5
    exec(compile("\n".join(blocks), "data.md", "exec"), {})


def commands() -> list[str]:
    """Lines 'netwright ...' of indented blocks; of 'a|b|c' each one, without what is said beside it."""
    lines = []
    for page in PAGES:
        if page.name in ("reference.md", "claims.md", "benchmarks.md", "index.md"):
            continue  # generated
        for line in re.findall(r"^ {4}(netwright .*)$", page.read_text(), re.MULTILINE):
            command = re.split(r"\s{3,}|\s+#|\s>\s|;", line)[0]
            names = command.split()[1].split("|")
            lines += [command.replace(command.split()[1], name, 1) for name in names if name != "..."]
    return list(dict.fromkeys(lines))


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_docs_is_one_that_is_taken(command):
    name, *words = shlex.split(command.replace("...", ""))[1:]
    known = typer.main.get_command(cli.app).commands
    assert name in known, f"there is no command '{name}'"
    known[name].make_context(name, words)  # complains of options and arguments that it does not know


def test_the_files_that_the_contributors_pages_name_are_there():
    source = ROOT / "src" / "netwright"
    for page in ("architecture.md", "adding-a-method.md"):
        text = (ROOT / "docs" / page).read_text()
        named = set(re.findall(r"`((?:core|app|data|claims|compress|search|tests)/[\w/]+(?:\.py)?/?)`", text))
        for name in named:
            home = ROOT if name.startswith("tests/") else source
            assert (home / name).exists(), f"{page} names {name}"
        assert len(named) > 3
