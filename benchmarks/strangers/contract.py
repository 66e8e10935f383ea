"""Raw rows, as their owner's files hold them, brought into the form that a written file says it takes.

Follows the signature inside the file (ONNX metadata, an extra file of a .pt2) from its own words, and is written
without netwright, as anyone who is handed the file would.
"""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

KEY = "netwright.signature"


class NoContract(Exception):
    """The file does not say what it takes; the message says what is missing."""


def signature(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise NoContract(f"there is no {path.name}")
    if path.suffix == ".onnx":
        import onnx

        held = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    else:
        with zipfile.ZipFile(path) as archive:
            held = {
                Path(n).name: archive.read(n).decode()
                for n in archive.namelist()
                if n.endswith(f"extra/{KEY}")
            }
    if KEY not in held:
        raise NoContract(f"{path.name} says nothing about its inputs")
    return json.loads(held[KEY])


def feeds(told: dict[str, Any], raw: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """The file's inputs in their order, and the targets: classes by their places in the signature."""
    classes = told["classes"]
    if raw.is_dir():
        return _pictures(told, raw)
    if raw.suffix == ".csv":
        with open(raw, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        y = np.array([row[told["target"]] for row in rows])
        return [_table(i, rows) for i in told["inputs"]], _targets(y, told["kind"], classes)
    with np.load(raw) as held:
        arrays = {k: held[k] for k in held.files}
    inputs = told["inputs"]
    given = [arrays["x"]] if "x" in arrays else [arrays[i["name"]] for i in inputs]
    return [_array(x, i) for x, i in zip(given, inputs, strict=True)], _targets(
        arrays["y"], told["kind"], classes
    )


def _array(x: np.ndarray, told: dict[str, Any]) -> np.ndarray:
    """As the signature says: type, and axes in its order (a missing one of length 1 is put in)."""
    shape, layout = tuple(told["shape"]), told.get("layout", "")
    if x.shape[1:] != shape and len(shape) == 3:
        if x.ndim == 3 and 1 in (shape[0], shape[2]):
            x = x[:, None] if layout != "HWC" else x[..., None]
        elif layout == "CHW":
            x = x.transpose(0, 3, 1, 2)
        elif layout == "HWC":
            x = x.transpose(0, 2, 3, 1)
    if x.shape[1:] != shape:
        raise NoContract(f"rows of shape {x.shape[1:]} and an input of shape {shape}, layout '{layout}'")
    return np.ascontiguousarray(x.astype(told["type"]))


def _table(told: dict[str, Any], rows: list[dict[str, str]]) -> np.ndarray:
    if not told["features"]:
        raise NoContract(f"the signature does not name the columns of input '{told['name']}'")
    columns = [_feature(f, [row[f["column"]] for row in rows]) for f in told["features"]]
    if told["type"] in ("str", "string", "object"):
        return np.stack(columns, 1)
    return np.stack(columns, 1).astype(told["type"])


def _feature(told: dict[str, Any], texts: list[str]) -> np.ndarray:
    filled = [str(told["fill"]) if t == "" and told.get("fill") is not None else t for t in texts]
    if told["value"] is not None:
        return np.array([t == told["value"] for t in filled], np.float64)
    if told["codes"]:
        return np.array([told["codes"].index(t) for t in filled], np.float64)
    return np.array([float(t) for t in filled])


def _pictures(told: dict[str, Any], raw: Path) -> tuple[list[np.ndarray], np.ndarray]:
    from PIL import Image

    files = sorted(raw.glob("*/*.png"))
    x = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])
    y = np.array([f.parent.name for f in files])
    return [_array(x, told["inputs"][0])], _targets(y, told["kind"], told["classes"])


def _targets(y: np.ndarray, kind: str, classes: list[str]) -> np.ndarray:
    if kind != "classification":
        return y.astype(np.float64)
    if y.dtype.kind == "U":
        return np.array([classes.index(c) for c in y])
    return y
