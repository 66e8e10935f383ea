"""One method: draw faults, run its tests on each, say which of them lived."""

from __future__ import annotations

import difflib
import random
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tools.mutants.sites import Mutant, differs, mutants
from tools.mutants.subject import Subject, subject, tests_of
from tools.mutants.trial import Outcome, Run, plant, start

from netwright.core import catalogue

COUNT, NEEDED = 20, 17
NAMED = Path(__file__).with_name("named.toml")


@dataclass(frozen=True)
class Fault:
    """A mutant of a file (from the root of the repository). named: from named.toml; it must not live."""

    file: Path
    mutant: Mutant
    named: bool = False

    def __str__(self) -> str:
        return f"{_short(self.file)}:{self.mutant.line} {self.mutant.kind}"

    def difference(self, root: Path) -> str:
        before = (root / self.file).read_text(encoding="utf-8")
        after = self.mutant.of(before)
        name = str(self.file)
        return "\n".join(
            difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, n=2, lineterm="")
        )


@dataclass(frozen=True)
class Result:
    """How many faults were drawn and killed, and of those that are named."""

    slug: str
    drawn: int
    killed: int
    named: int
    named_killed: int
    seconds: float

    @property
    def enough(self) -> bool:
        return self.killed * COUNT >= NEEDED * self.drawn and self.named_killed == self.named

    def __str__(self) -> str:
        named = f", {self.named_killed} of {self.named} named" if self.named else ""
        verdict = "enough" if self.enough else "NOT enough"
        return f"{self.slug}: {self.killed} of {self.drawn} killed{named}: {verdict} ({self.seconds:.0f} s)"


def examine(root: Path, slug: str, copies: list[Path], seed: int, count: int = COUNT) -> Result | None:
    """None where the tests fail as the method is. copies: one for each run at a time."""
    began = time.monotonic()
    faults = named(root, slug)
    about = _with_files_of(root, subject(root, slug), faults)
    clean = _finished(start(copies[0], about, 1800.0, {}))
    if not clean.passed:
        print(f"{slug}: without a fault, too, {clean.by} fails\n{_end_of_output(copies[0])}")
        return None
    faults += drawn(root, subject(root, slug), count, seed)
    print(f"{slug}: {len(clean.durations)} tests in {clean.seconds:.0f} s, {len(faults)} faults in "
          f"{', '.join(_short(f) for f in about.files)}", flush=True)  # fmt: skip
    alive = [f for f, outcome in outcomes(root, faults, about, copies, clean) if outcome.passed]
    for fault in alive:
        print(f"\nsurvived: {fault}\n{fault.difference(root)}")
    killed = [f for f in faults if f not in alive]
    result = Result(
        slug, sum(not f.named for f in faults), sum(not f.named for f in killed), sum(f.named for f in faults),
        sum(f.named for f in killed), time.monotonic() - began,
    )  # fmt: skip
    print(f"\n{result}\n", flush=True)
    return result


def drawn(root: Path, about: Subject, count: int, seed: int) -> list[Fault]:
    """The kinds of faults in turn, so that the few of a rare kind are not lost among constants; in one line, one."""
    chance = random.Random(f"{about.slug} {seed}")
    kinds: dict[str, list[Fault]] = {}
    for file in about.files:
        for mutant in mutants((root / file).read_text(encoding="utf-8")):
            kinds.setdefault(mutant.kind, []).append(Fault(file, mutant))
    for faults in kinds.values():
        chance.shuffle(faults)
    turns = [kinds[kind] for kind in sorted(kinds)]
    chance.shuffle(turns)
    found: list[Fault] = []
    left: list[Fault] = []
    while len(found) < count and any(turns):
        for faults in (t for t in turns if t):
            fault = faults.pop()
            if not differs((root / fault.file).read_text(encoding="utf-8"), fault.mutant):
                continue
            near = any(f.file == fault.file and f.mutant.line == fault.mutant.line for f in found)
            (left if near else found).append(fault)
    return (found + left)[:count]


def named(root: Path, slug: str) -> list[Fault]:
    """Those of named.toml. Its entries hold text of the file, once: what no longer fits must be written anew."""
    faults = []
    for entry in tomllib.loads(NAMED.read_text(encoding="utf-8"))["fault"]:
        if entry["slug"] != slug:
            continue
        file = Path("src/netwright", entry["file"])
        source = (root / file).read_text(encoding="utf-8")
        if source.count(entry["old"]) != 1:
            raise SystemExit(f"named.toml: '{entry['what']}': {file} holds the old text not exactly once")
        place = source.index(entry["old"])
        line = source.count("\n", 0, place) + 1
        mutant = Mutant(entry["what"], line, place, place + len(entry["old"]), entry["new"])
        faults.append(Fault(file, mutant, named=True))
    return faults


def outcomes(
    root: Path, faults: list[Fault], about: Subject, copies: list[Path], clean: Outcome
) -> Iterator[tuple[Fault, Outcome]]:
    """Each fault with what came of it, in the order in which the runs end."""
    waiting, free = list(faults), list(copies)
    running: list[tuple[Fault, Path, Run]] = []
    try:
        while waiting or running:
            while waiting and free:
                fault, copy = waiting.pop(0), free.pop()
                source = (root / fault.file).read_text(encoding="utf-8")
                plant(copy / fault.file, fault.mutant.of(source))
                running.append((fault, copy, start(copy, about, 20 + 4 * clean.seconds, clean.durations)))
            time.sleep(0.02)
            for entry in list(running):
                fault, copy, going = entry
                outcome = going.outcome()
                if outcome is not None:
                    running.remove(entry)
                    plant(copy / fault.file, (root / fault.file).read_text(encoding="utf-8"))
                    free.append(copy)
                    word = "survived" if outcome.passed else "killed"
                    print(f"  {word:8} {outcome.seconds:5.1f} s  {fault}  {outcome.by}", flush=True)
                    yield fault, outcome
    finally:
        for _, _, going in running:
            going.end()


def _with_files_of(root: Path, about: Subject, faults: list[Fault]) -> Subject:
    files = tuple(dict.fromkeys((*about.files, *(f.file for f in faults))))
    return replace(about, files=files, tests=tests_of(root, catalogue.method(about.slug), files))


def _finished(run: Run) -> Outcome:
    try:
        while (outcome := run.outcome()) is None:
            time.sleep(0.02)
    except BaseException:
        run.end()
        raise
    return outcome


def _end_of_output(copy: Path) -> str:
    return (copy / "output.txt").read_text(encoding="utf-8", errors="replace")[-3000:]


def _short(file: Path) -> str:
    return "/".join(file.parts[2:])
