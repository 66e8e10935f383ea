"""Is what `improve` says true? Its figures before and after, against the same files on rows that it never got.

    python benchmarks/strangers/truth.py [--cache DIR] [--only NAME ...] [--budget 30s] [--fresh-start]

For every network of networks.py: `netwright improve` in a process of its own; result.json's figure before against the
given file's on the fresh rows, as its owner feeds it; the figure after against model.onnx (onnxruntime alone) and
model.pt2 (torch alone) on the fresh rows, fed as the signature inside the file says. Both sides are estimates, so
the distance is counted in standard errors of their difference. Some forty comparisons are made: at two standard
errors one or two of them are expected to be out even where every figure is right; those are listed with their z.
Where the owner gave test rows as the network takes them, such a one is looked into: the same network with eight
other draws of its held-out rows as test and as fresh ones. A wrong figure stays out; one that chance put out does not.
Then the memoriser: x and y alone, and whether the warning stands in the terminal, result.json and report.html.
Writes docs/benchmarks/strangers_truth.json; goes on where it was stopped unless --fresh-start.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import contract
import numpy as np
import outsider
from case import Case
from command import netwright, of
from networks import arguments, cases, get
from record import Record

PRIMARY = {"classification": "accuracy", "multilabel": "accuracy", "regression": "r2"}
AGAIN = "at other draws"
WARNING = re.compile(r"may have (seen|learned|been trained)", re.I)


def compared(said: float, said_rows: int, scores: np.ndarray, y: np.ndarray, kind: str) -> dict[str, Any]:
    """A stated figure and the same of fresh rows; z: their difference in its standard errors."""
    true = outsider.figure(scores, y, kind)
    error = standard_error(said, true, said_rows, scores, y, kind)
    z = 0.0 if said == true else (said - true) / error if error else math.inf
    return {
        "said": said,
        "true": true,
        "rows": said_rows,
        "fresh_rows": len(y),
        "standard_error": error,
        "z": z,
    }


def standard_error(
    said: float, true: float, rows: int, scores: np.ndarray, y: np.ndarray, kind: str
) -> float:
    """Of the difference between a figure on `rows` rows and one on all of y: of pooled shares for accuracy; of rows'
    means for several labels; of R2 by bootstrap at either size."""
    fresh = len(y)
    if kind == "classification":
        p = (said * rows + true * fresh) / (rows + fresh)
        return math.sqrt(p * (1 - p) * (1 / rows + 1 / fresh))
    if kind == "multilabel":
        return float(outsider.hits(scores, y, kind).std(ddof=1)) * math.sqrt(1 / rows + 1 / fresh)
    rng = np.random.default_rng(0)
    spread = []
    for size in (rows, fresh):
        drawn = [rng.integers(0, fresh, size) for _ in range(400)]
        spread.append(np.var([outsider.figure(scores[i], y[i], kind) for i in drawn], ddof=1))
    return float(math.sqrt(sum(spread)))


def measure(case: Case, out: Path, budget: str) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    said = netwright("improve", *of(case), "--budget", budget, "--out", str(out), limit=900)
    row: dict[str, Any] = {
        "made": case.made,
        "kind": case.kind,
        "exit": said.code,
        "seconds": round(said.seconds, 1),
    }
    if not (out / "result.json").exists():
        return row | {"trouble": said.last[:400]}
    result = json.loads((out / "result.json").read_text())
    metric = PRIMARY[case.kind]
    tests = result.get("test_examples", case.tests)
    row["method"] = result["method"]
    row["before"] = compared(result["before"][metric], tests, *outsider.outputs_of_case(case), case.kind)
    for name in ("model.onnx", "model.pt2"):
        row[name] = _after(out / name, Path(case.raw), case.kind, result["after"][metric], tests)
    return row


def beyond(row: dict[str, Any]) -> dict[str, float]:
    """The comparisons of one network that are more than two standard errors out."""
    places = ("before", "model.onnx")
    return {p: row[p]["z"] for p in places if "z" in row.get(p, {}) and abs(row[p]["z"]) > 2}


def redrawn(case: Case, where: Path, seed: int) -> Case | None:
    """The case with other of its held-out rows as test rows, the rest as fresh ones; None where it gives no test rows,
    or the network does not take them as the owner's files hold them."""
    if not case.task.endswith(".npz") or not case.raw.endswith(".npz"):
        return None
    data, fresh, own = ({**np.load(f)} for f in (case.task, case.raw, case.own))
    names = [k for k in fresh if k != "y"]
    if any(f"{k}_test" not in data for k in fresh) or len(names) != len(own) - 1:
        return None
    if not all(
        np.array_equal(fresh[n], own[o]) for n, o in zip(names, (k for k in own if k != "y"), strict=True)
    ):
        return None
    tests = len(data["y_test"])
    order = np.random.default_rng(seed).permutation(tests + len(fresh["y"]))
    inputs = dict(zip(names, (k for k in own if k != "y"), strict=True)) | {"y": "y"}
    for name, given in inputs.items():
        held = np.concatenate([data[f"{name}_test"], fresh[name]])[order]
        data[f"{name}_test"], fresh[name], own[given] = held[:tests], held[tests:], held[tests:]
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    files = {name: str(where / f"{name}.npz") for name in ("task", "raw", "own")}
    for held, file in zip((data, fresh, own), files.values(), strict=True):
        np.savez(file, **held)
    return dataclasses.replace(case, **files)


def looked_into(case: Case, cache: Path, budget: str, draws: int = 8) -> dict[str, Any]:
    """How far out the figures of one network are at other draws of its rows."""
    found: dict[str, list[float]] = {}
    for seed in range(1, draws + 1):
        other = redrawn(case, cache / "out" / f"{case.name}-rows", seed)
        if other is None:
            return {"why": "no test rows in the form that the network takes: no other draw can be made"}
        row = measure(other, cache / "out" / case.name, budget)
        for place in ("before", "model.onnx"):
            found.setdefault(place, []).append(row.get(place, {}).get("z", math.inf))
    return {"z": found}


def _after(file: Path, raw: Path, kind: str, said: float, tests: int) -> dict[str, Any]:
    try:
        inputs, y = contract.feeds(contract.signature(file), raw)
        return compared(said, tests, outsider.outputs(str(file), inputs)[0], y, kind)
    except (contract.NoContract, RuntimeError) as trouble:
        return {"trouble": str(trouble)[:400]}


def memoriser(cache: Path, out: Path, budget: str) -> dict[str, Any]:
    """x and y alone: the network has learned all of them by heart, and nothing else is given."""
    case = get("fashion_pool", cache)
    shutil.rmtree(out, ignore_errors=True)
    words = of(case, without=("--unseen",))
    said = netwright("improve", *words, "--budget", budget, "--out", str(out), limit=900)
    texts = {"terminal": said.text}
    texts |= {n: (out / n).read_text() if (out / n).exists() else "" for n in ("result.json", "report.html")}
    warned = {place: bool(WARNING.search(_plain(text))) for place, text in texts.items()}
    return {"exit": said.code, "warned": warned, "line": next(
        (line.strip() for line in said.text.splitlines() if WARNING.search(line)), said.last[:300]
    )}  # fmt: skip


def _plain(text: str) -> str:
    """Text without tags, on one line: a terminal or a page may break a sentence anywhere."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def show(name: str, row: dict[str, Any]) -> None:
    if "before" not in row:
        print(f"{name:20} exit {row['exit']}  {row['seconds']:5.0f} s  {row['trouble']}", flush=True)
        return
    cells = []
    for place in ("before", "model.onnx", "model.pt2"):
        c = row[place]
        cells.append(f"{c['said']:.4f} / {c['true']:.4f}  z {c['z']:+.1f}" if "z" in c else c["trouble"][:60])
    print(f"{name:20} {row['method']:18} {row['seconds']:5.0f} s  " + "   ".join(cells), flush=True)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--budget", default="30s")
    parser.add_argument("--fresh-start", action="store_true", help="forget what an earlier run wrote")
    options = parser.parse_args()
    record = Record("strangers_truth", {"budget": options.budget}, options.fresh_start)
    print("said / true on fresh rows: before, after by model.onnx, after by model.pt2")
    for case in cases(options.only, options.cache):
        row = record.row(case.name, lambda c=case: measure(c, options.cache / "out" / c.name, options.budget))
        show(case.name, row)
        if beyond(row):
            again = record.row(
                f"{case.name} {AGAIN}", lambda c=case: looked_into(c, options.cache, options.budget)
            )
            print(f"  {again.get('why') or 'z at other draws of its rows: ' + str(again['z'])}", flush=True)
    out = options.cache / "out" / "alone"
    warned = record.row("x and y alone", lambda: memoriser(options.cache, out, options.budget))
    print(f"x and y alone: {warned['warned']}: {warned['line']}")
    return _summary(record, warned)


def _summary(record: Record, warned: dict[str, Any]) -> int:
    rows = {n: r for n, r in record.rows.items() if n != "x and y alone" and not n.endswith(AGAIN)}
    zs = {
        f"{n}, {p}": r[p]["z"]
        for n, r in rows.items()
        for p in ("before", "model.onnx")
        if "z" in r.get(p, {})
    }
    out = {f"{n}, {p}": z for n, r in rows.items() for p, z in beyond(r).items()}
    silent = [n for n, r in rows.items() if "before" not in r]
    closed = [
        f"{n}: {p}" for n, r in rows.items() for p in ("model.onnx", "model.pt2") if "trouble" in r.get(p, {})
    ]
    worst = max(zs, key=lambda k: abs(zs[k]), default="")
    print(f"\n{len(rows)} networks, {len(silent)} without an answer ({', '.join(silent)})")
    print(
        f"{len(zs)} comparisons: {len(out)} beyond 2 standard errors; chance alone gives {0.0455 * len(zs):.1f}"
    )
    for name, z in sorted(out.items(), key=lambda b: -abs(b[1])):
        print(f"  z {z:+.2f}  {name}")
    print(f"worst: {worst} {zs.get(worst, 0):+.2f}; sum of squares {sum(z * z for z in zs.values()):.1f}")
    print(f"files that could not be followed: {closed or 'none'}")
    record.summary({"comparisons": len(zs), "beyond": out, "worst": [worst, zs.get(worst)], "silent": silent,
                    "not_followed": closed, "warned": warned["warned"]})  # fmt: skip
    return 0 if not out and not silent and not closed and all(warned["warned"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
