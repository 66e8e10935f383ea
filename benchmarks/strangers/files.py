"""Do the files that `improve` writes open anywhere, and say what they take?

    python benchmarks/strangers/files.py [--cache DIR] [--only SLUG ...] [--budget 60s] [--fresh-start]

For every method with a place in `improve`: improve a small network with that one alone; model.onnx opens in an
interpreter that imports onnxruntime alone, model.pt2 in one that imports torch alone; both are fed the raw test rows
as the signature inside says, and give equal outputs to 1e-4 of the largest; `netwright predict` on the same rows
gives the accuracy that result.json states. Then predict on a CSV with text and on a folder of pictures: its
accuracy is that of the file fed by its signature, and the report's within two standard errors (the rows
behind the report's figure are a half of the owner's, which half is netwright's choice).
And the methods that leave 8-bit integers, on a residual network and on a transformer, by fresh rows: there a sum or a
mean of floats stands between two roundings, and two runtimes may round a value to different sides. Such rows are
counted; it passes only where there are none, or where the report itself says that the files differ.
Writes docs/benchmarks/strangers_files.json.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import contract
import numpy as np
import outsider
from case import Case
from command import Said, netwright, of
from networks import arguments, get
from record import Record
from truth import compared

from netwright.core import catalogue

NETWORK = "fashion_separable"  # its test rows are given, so that the report's figure can be had again exactly
INTEGERS = {"static-int8", "prune-then-int8"}
ROUNDING = ("fashion_residual", "mnist_vit")
RAW = {"CSV with text": "staff_one_hot", "image folder": "cifar_folder"}
CLOSE = 1e-4


def improved(case: Case, out: Path, budget: str, method: str) -> Said:
    shutil.rmtree(out, ignore_errors=True)
    words = ("--budget", budget, "--methods", method, "--max-drop", "100%", "--faster", "1.01")
    return netwright("improve", *of(case), *words, "--out", str(out), limit=900)


def opened(out: Path, raw: Path) -> dict[str, Any]:
    """Both files in fresh interpreters on the same raw rows; the largest distance between their outputs, relative to
    the largest output, and how many rows are further apart than CLOSE."""
    found = {}
    for name in ("model.onnx", "model.pt2"):
        try:
            inputs, y = contract.feeds(contract.signature(out / name), raw)
            found[name] = outsider.outputs(str(out / name), inputs)[0]
        except (contract.NoContract, RuntimeError) as trouble:
            return {"trouble": str(trouble)[:400]}
    a, b = found.values()
    apart = np.abs(a - b).max(1) / max(1e-12, np.abs(a).max())
    result = json.loads((out / "result.json").read_text())
    measured = [outsider.figure(found[n], y, "classification") for n in found]
    return {
        "applied": result["method"], "distance": float(apart.max()), "rows_apart": int((apart > CLOSE).sum()),
        "rows": len(y), "stated": result["after"]["accuracy"], "onnx": measured[0], "pt2": measured[1],
        "said": any("differ on" in note for note in result["notes"]),
    }  # fmt: skip


def predicted(file: Path, raw: Path) -> float | str:
    """The accuracy that `netwright predict` gives for raw rows with their targets, or its last line."""
    said = netwright("predict", str(file), str(raw), "--json", limit=300)
    try:
        return float(json.loads(said.out)["scores"]["accuracy"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return said.last[:300]


def test_rows(case: Case, where: Path) -> Path:
    """The owner's test rows in a file of their own."""
    with np.load(case.task) as held:
        np.savez(where, x=held["x_test"], y=held["y_test"])
    return where


def of_method(case: Case, out: Path, budget: str, method: str) -> dict[str, Any]:
    said = improved(case, out, budget, method)
    row: dict[str, Any] = {"exit": said.code, "seconds": round(said.seconds, 1)}
    if not (out / "result.json").exists():
        return row | {"trouble": said.last[:400]}
    rows = Path(case.raw) if case.name in ROUNDING else test_rows(case, out / "test.npz")
    row |= opened(out, rows)
    return row | {"predict": predicted(out / "model.onnx", rows)}


def of_raw(case: Case, out: Path, budget: str) -> dict[str, Any]:
    said = improved(case, out, budget, "taylor-pruning")
    row: dict[str, Any] = {"exit": said.code, "seconds": round(said.seconds, 1)}
    if not (out / "result.json").exists():
        return row | {"trouble": said.last[:400]}
    file, raw = out / "model.onnx", Path(case.raw)
    stated = json.loads((out / "result.json").read_text())["after"]["accuracy"]
    given = predicted(file, raw)
    try:
        inputs, y = contract.feeds(contract.signature(file), raw)
        scores = outsider.outputs(str(file), inputs)[0]
    except (contract.NoContract, RuntimeError) as trouble:
        return row | {"trouble": str(trouble)[:400], "predict": given}
    return row | {"predict": given, **compared(stated, case.tests, scores, y, case.kind)}


def fine(name: str, row: dict[str, Any]) -> bool:
    """A method that was not applied, because the budget was too small for it, is not held to have passed."""
    if "trouble" in row or not isinstance(row["predict"], float):
        return False
    if any(name.endswith(network) for network in ROUNDING):
        true = not row["rows_apart"] or row["said"]
        return true and abs(row["predict"] - row["onnx"]) < 1e-9 and row["applied"] == name.split()[0]
    if "distance" in row:
        same = row["stated"] == row["onnx"] and abs(row["predict"] - row["stated"]) < 1e-9
        return row["distance"] <= CLOSE and same and row["applied"] == name
    return abs(row["z"]) <= 2 and abs(row["predict"] - row["true"]) < 1e-9


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--fresh-start", action="store_true", help="forget what an earlier run wrote")
    options = parser.parse_args()
    record, out = (
        Record("strangers_files", {"budget": options.budget}, options.fresh_start),
        options.cache / "out",
    )
    slugs = sorted((m.improve, m.slug) for m in catalogue.of_goal("compress") if m.improve)
    wanted = [slug for _, slug in slugs if not options.only or slug in options.only]
    for slug in wanted:
        case = get(NETWORK, options.cache)
        row = record.row(slug, lambda s=slug, c=case: of_method(c, out / f"files-{s}", options.budget, s))
        show(slug, row)
    for network in ROUNDING:
        for slug in [s for s in wanted if s in INTEGERS]:
            case, name = get(network, options.cache), f"{slug} on {network}"
            row = record.row(
                name, lambda s=slug, c=case: of_method(c, out / f"files-{s}-{c.name}", options.budget, s)
            )
            show(name, row)
    for what, name in RAW.items():
        if not options.only or what in options.only:
            case = get(name, options.cache)
            show(what, record.row(what, lambda c=case: of_raw(c, out / f"files-{c.name}", options.budget)))
    bad = [name for name, row in record.rows.items() if not fine(name, row)]
    record.summary({"not_as_they_should": bad})
    return 1 if bad else 0


def show(name: str, row: dict[str, Any]) -> None:
    held = {k: v for k, v in row.items() if k not in ("exit", "revision")}
    words = "  ".join(f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in held.items())
    print(f"{'' if fine(name, row) else 'NOT '}as it should: {name:18} {words}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
