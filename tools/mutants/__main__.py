"""python -m tools.mutants SLUG... [--seed N] [--jobs N]: do a method's tests notice when the method is wrong?

Draws 20 faults from the files that hold a method's idea (sites.py, subject.py), adds those of named.toml, puts each
into a copy of the repository and runs the method's tests there (trial.py). Exit code 1 where fewer than 17 of 20 drawn
faults are noticed, or a named one is not. 'all': every method; with --table FILE the figures go there, too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tools.mutants.examine import Result, examine
from tools.mutants.trial import copy_of, warm_up

from netwright.core import catalogue
from netwright.core.errors import NetwrightError

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("slugs", nargs="+", metavar="SLUG", help="methods by slug, or 'all'")
    parser.add_argument("--seed", type=int, default=0, help="another draw")
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time")
    parser.add_argument("--table", type=Path, help="write the figures here (Markdown)")
    given = parser.parse_args()
    if data := os.environ.get("NETWRIGHT_DATA"):
        os.environ["NETWRIGHT_DATA"] = str(Path(data).resolve())
    known = catalogue.methods()
    try:
        slugs = list(known) if given.slugs == ["all"] else [catalogue.method(s).slug for s in given.slugs]
    except NetwrightError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    warm_up()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [Path(folder, str(job)) for job in range(given.jobs)]
        for copy in copies:
            copy.mkdir()
            copy_of(ROOT, copy)
        results = {slug: examine(ROOT, slug, copies, given.seed) for slug in slugs}
    table = table_of(results)
    if len(slugs) > 1:
        print(table)
    if given.table:
        given.table.parent.mkdir(parents=True, exist_ok=True)
        given.table.write_text(table, encoding="utf-8")
    return 0 if all(r is not None and r.enough for r in results.values()) else 1


def table_of(results: dict[str, Result | None]) -> str:
    lines = ["| method | killed | named, killed | seconds | enough |", "| --- | --- | --- | --- | --- |"]
    for slug, r in results.items():
        if r is None:
            lines.append(f"| {slug} | its tests fail | | | no |")
        else:
            named = f"{r.named_killed} of {r.named}" if r.named else ""
            enough = "yes" if r.enough else "no"
            lines.append(f"| {slug} | {r.killed} of {r.drawn} | {named} | {r.seconds:.0f} | {enough} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
