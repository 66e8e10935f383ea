"""Foreign networks with their owners' data: made by other tools, never with netwright.

    python benchmarks/strangers/networks.py [--cache DIR] [--only NAME ...]

Makes (or finds in the cache) each one and prints what it is and how it does on the rows that it was trained on and
on fresh ones. Needs netwright's own dependencies, NETWRIGHT_DATA for the real pictures and sentences, and skl2onnx
(pip install skl2onnx) for scikit-learn's networks; what is not there is skipped, and said. Minutes the first time.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pictures
import rows
import tables
from case import Case, Maker, read, save

import data

MAKERS: dict[str, Maker] = pictures.MAKERS | rows.MAKERS | tables.MAKERS


def get(name: str, cache: Path, makers: dict[str, Maker] = MAKERS) -> Case:
    """From the cache, else made there. data.Absent where a tool or a data set is missing."""
    where = cache / name
    if not (where / "case.json").exists():
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(parents=True)
        return save(makers[name](name, where), where)
    return read(where)


def cases(names: list[str] | None, cache: Path, makers: dict[str, Maker] = MAKERS) -> Iterator[Case]:
    """Those that can be had here, one by one; says which cannot."""
    for name in names or list(makers):
        try:
            yield get(name, cache, makers)
        except data.Absent as reason:
            print(f"{name:20} skipped: {reason}", flush=True)


def arguments(text: str) -> argparse.ArgumentParser:
    """What every script here takes."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "netwright-strangers")
    parser.add_argument("--only", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)}")
    return parser


def main() -> None:
    from outsider import figure, outputs_of_case

    options = arguments(__doc__).parse_args()
    for case in cases(options.only, options.cache):
        outputs, y = outputs_of_case(case)
        fresh = f"{figure(outputs, y, case.kind):.4f} on {len(y):,} fresh rows"
        print(f"{case.name:20} {case.made:60} {fresh}  {case.facts}", flush=True)


if __name__ == "__main__":
    main()
