"""One stranger: a network that another tool wrote, its owner's data, and fresh rows that netwright never gets."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROLES = ("train", "val", "test")


@dataclass(frozen=True)
class Case:
    """made: the exporter. model, task, options: what its owner types. kind: of the task.

    own: the fresh rows as the given network takes them (.npz: its inputs in their order, then y). raw: the same rows
    as the owner's files hold them (.npz with x and y, .csv, folder). scores: which output of the given network is
    looked at. unseen: whether the owner gives rows that the network has not seen (else a warning is due).
    tests: rows that the reported figures rest on.
    """

    name: str
    made: str
    kind: str
    model: str
    task: str
    own: str
    raw: str
    tests: int
    options: tuple[str, ...] = ()
    state: str = ""
    scores: int = 0
    unseen: bool = True
    facts: str = ""


Maker = Callable[[str, Path], Case]


def kept_in(makers: dict[str, Maker]) -> Callable[[Maker], Maker]:
    """Puts a function that makes a case, (name, folder) -> Case, among others, under its own name."""

    def keep(make: Maker) -> Maker:
        makers[make.__name__] = make
        return make

    return keep


def save(case: Case, where: Path) -> Case:
    (where / "case.json").write_text(json.dumps(asdict(case), indent=1) + "\n", encoding="utf-8")
    return case


def read(where: Path) -> Case:
    held = json.loads((where / "case.json").read_text(encoding="utf-8"))
    return Case(**{**held, "options": tuple(held["options"])})


def parts(count: int, sizes: Mapping[str, int]) -> dict[str, slice]:
    """The first rows by role in turn (data come shuffled), what is left as 'fresh'."""
    cut, start = {}, 0
    for role, size in sizes.items():
        cut[role] = slice(start, start + size)
        start += size
    return {**cut, "fresh": slice(start, count)}


def tests(sizes: Mapping[str, int]) -> int:
    """How many rows the figures before and after rest on: the test rows, or half of what was given to choose by."""
    return sizes.get("test") or sizes["val"] // 2


def arrays(
    where: Path, rows: Mapping[str, slice], given: Mapping[str, np.ndarray], y: np.ndarray
) -> tuple[str, str]:
    """The owner's .npz, and that of the fresh rows. given: one array per input by its name, 'x' for an only one.

    Roles beside 'pool' and 'unseen' carry their names: x_train, y_train; a pool alone is x and y.
    """
    files = {"data": {k: v for k, v in rows.items() if k not in ("fresh", "unseen")}}
    files |= {name: {"pool": rows[name]} for name in ("fresh", "unseen") if name in rows}
    for file, roles in files.items():
        held = {}
        for role, part in roles.items():
            end = "" if role == "pool" else f"_{role}"
            held |= {f"{name}{end}": values[part] for name, values in given.items()} | {f"y{end}": y[part]}
        np.savez(where / f"{file}.npz", **held)
    return str(where / "data.npz"), str(where / "fresh.npz")


def tables(
    where: Path, rows: Mapping[str, slice], table: Mapping[str, Sequence[Any]], target: str, y: Sequence[Any]
) -> tuple[str, str]:
    """The owner's .csv, one of the rows that the network has not seen, and one of the fresh rows."""
    for file, part in {"data": rows["pool"], "unseen": rows.get("unseen"), "fresh": rows["fresh"]}.items():
        if part is None:
            continue
        with open(where / f"{file}.csv", "w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow([*table, target])
            writer.writerows(zip(*(v[part] for v in table.values()), y[part], strict=True))
    return str(where / "data.csv"), str(where / "fresh.csv")


def own(where: Path, inputs: Mapping[str, np.ndarray], y: np.ndarray) -> str:
    np.savez(where / "own.npz", **inputs, y=y)
    return str(where / "own.npz")


def train(
    network: nn.Module, inputs: Sequence[np.ndarray], y: np.ndarray, kind: str, *, epochs: int,
    lr: float = 2e-3, seed: int = 0, decay: float = 1e-4,
) -> nn.Module:  # fmt: skip
    """A plain training loop, as an owner would write it; the network comes back in evaluation mode."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    xs = [torch.from_numpy(np.ascontiguousarray(x)) for x in inputs]
    target = torch.from_numpy(np.ascontiguousarray(y))
    target = target.long() if kind == "classification" else target.float()
    losses = {
        "classification": F.cross_entropy, "multilabel": F.binary_cross_entropy_with_logits, "regression": F.mse_loss,
    }  # fmt: skip
    optimiser = torch.optim.AdamW(network.parameters(), lr, weight_decay=decay)
    steps = epochs * (len(target) // 64 + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for part in torch.randperm(len(target)).split(64):
            if len(part) < 2:
                continue
            out = network(*(x[part] for x in xs))
            loss = losses[kind](
                out.reshape(target[part].shape) if kind == "regression" else out, target[part]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def initialised(build: Any, seed: int = 0, *args: Any) -> nn.Module:
    torch.manual_seed(seed)
    return build(*args)
