"""python -m netwright.claims [SLUG ...]: re-measure claims; without slugs, all of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from netwright.claims.record import Scale, run
from netwright.core import catalogue


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m netwright.claims", description=__doc__)
    parser.add_argument("slugs", nargs="*", metavar="SLUG")
    parser.add_argument("--full", action="store_true", help="the scale for a GPU or a long run")
    parser.add_argument("--seeds", type=int, default=0, help="as many as the claim asks for, unless told")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("docs/claims"))
    options = parser.parse_args()
    scale = Scale("full" if options.full else "quick", tuple(range(options.seeds)), options.device)
    for slug in options.slugs or catalogue.methods():
        result = run(slug, scale, options.out)
        print(f"{slug}: {result['verdict']} ({result['seconds']} s): {result['summary']}", flush=True)


if __name__ == "__main__":
    main()
