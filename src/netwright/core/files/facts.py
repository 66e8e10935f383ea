"""What a file says of its network, carried along with it: inputs, batch, normalisation, the signature."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from netwright.core.errors import BadInput
from netwright.core.signature import SIGNATURE, Signature
from netwright.core.task import Task


def input_shapes(network: nn.Module) -> tuple[tuple[int | None, ...], ...] | None:
    """The shapes that the network's file declares, without the batch; None for a size that may vary.

    None altogether for a network that came from no file that says.
    """
    facts = facts_of(network)
    return tuple(tuple(shape) for _, shape in facts["inputs"]) if "inputs" in facts else None


def normalises(network: nn.Module) -> bool:
    """Whether the network's file carries the normalisation of its inputs, as those of `export` can."""
    return facts_of(network).get("normalise") == "inside"


def signature_for(network: nn.Module, task: Task) -> Signature:
    """The task's signature, with the inputs and outputs named as the network's file names them, and the normalisation
    that this file carries itself."""
    told, facts = task.signature, facts_of(network)
    own = signature_of(network)
    names = [i.name for i in own.inputs] if own else [name for name, _ in facts.get("inputs", ())]
    if len(names) == len(told.inputs) == len(set(names)):
        inputs = tuple(replace(i, name=name) for i, name in zip(told.inputs, names, strict=True))
        told = replace(told, inputs=inputs)
    outputs = own.output_names if own else tuple(facts.get("outputs", ()))
    if own and told.normalise is None:
        told = replace(told, normalise=own.normalise)
    return replace(told, output_names=outputs) if len(outputs) == 1 else told


def fixed_batch(network: nn.Module) -> int | None:
    """The batch size, for a network whose file takes no other."""
    return facts_of(network).get("batch")


def signature_of(source: nn.Module | str | Path) -> Signature | None:
    """What a file of `export` (or a network that was loaded from one) says that it takes and gives.

    None for one that carries no signature. A .pt2 is read as the archive that it is: nothing in it is run.
    BadInput for a damaged signature, and for what is no .onnx or .pt2 file.
    """
    text = facts_of(source).get("signature") if isinstance(source, nn.Module) else _carried(Path(source))
    return Signature.from_json(text) if text else None


def _carried(path: Path) -> str | None:
    """The text of the signature in a file."""
    try:
        if path.suffix.lower() == ".onnx":
            import onnx

            held = onnx.load(path, load_external_data=False).metadata_props
            return next((p.value for p in held if p.key == SIGNATURE), None)
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.endswith(f"extra/{SIGNATURE}")]
            return archive.read(inside[0]).decode() if inside else None
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except Exception as error:
        raise BadInput(f"{path} is no .onnx or .pt2 file, or only a part of one") from error


def describe(network: nn.Module, facts: dict[str, Any]) -> None:
    """Note what a network's file says: inputs (names and shapes without the batch), batch if fixed, normalise.

    In two places: a graph module's `meta` survives copies, a plain attribute survives pickling.
    """
    network.__dict__["file_facts"] = facts
    meta = getattr(network, "meta", None)
    if isinstance(meta, dict):
        meta["file_facts"] = facts


def facts_of(network: nn.Module) -> dict[str, Any]:
    """What `describe` noted; empty for a network that came from no file."""
    meta = getattr(network, "meta", None)
    noted = meta.get("file_facts") if isinstance(meta, dict) else None
    return noted or getattr(network, "file_facts", {})
