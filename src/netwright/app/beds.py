"""`netwright beds`: the trained networks that many claims share, and what their training showed."""

from __future__ import annotations

import json
from typing import Any

from netwright.app.screen import open_screen
from netwright.claims.beds.recipes import CONVERGED
from netwright.claims.beds.trained import bed_named, convergence, path_of, testbed
from netwright.core import progress


def beds(names: list[str], seeds: int, device: str, only_list: bool, as_json: bool) -> None:
    """Train what is missing, and show every bed with its figures."""
    chosen = names or list(CONVERGED)
    for name in chosen:  # a wrong name ends it before hours of training
        bed_named(name)
    with open_screen(quiet=as_json) as view:
        rows = []
        for name in chosen:
            if not as_json:
                view.say(f"{name}: {bed_named(name).about or 'quick, not converged'}")
            for seed in range(seeds):
                if not only_list and not path_of(name, seed).exists():
                    with view.working(f"training {name}, seed {seed}") as listener, progress.listen(listener):
                        testbed(name, seed, device)
                rows.append(row_of(name, seed))
        if as_json:
            print(json.dumps(rows, indent=1))
        else:
            view.table(rows)


def row_of(name: str, seed: int) -> dict[str, Any]:
    """One network: whether it is there, how good it is, and whether it is the bed that it should be."""
    if not path_of(name, seed).exists():
        return {"bed": name, "seed": seed, "state": "not trained"}
    found, wanted = convergence(name, seed), bed_named(name).at_least
    good = found.accuracy >= wanted and (found.last_quarter is None or found.last_quarter < 0.003)
    return {
        "bed": name, "seed": seed, "state": "ready" if good else "not converged", "accuracy": round(found.accuracy, 4),
        "wanted": wanted, "last_quarter": found.last_quarter, "minutes": round(found.seconds / 60, 1),
    }  # fmt: skip
