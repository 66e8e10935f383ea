"""What a file takes and gives, for people: the report's table, and code that runs the file."""

from __future__ import annotations

from typing import Any

from netwright.core.signature import Feature, Input, Signature

_AXES = {"C": "channels", "H": "height", "W": "width", "F": "columns", "T": "steps"}
_MEANINGS = {
    "image": "a picture",
    "table": "a row of a table",
    "tokens": "a text as tokens",
    "sequence": "a sequence",
}


def rows(signature: Signature) -> list[dict[str, str]]:
    """Name and text of every part of the contract, inputs first."""
    found = [{"name": f"input '{i.name}'", "text": _input(i, signature)} for i in signature.inputs]
    found.append({"name": "normalisation", "text": _normalisation(signature)})
    for given in signature.inputs:
        if given.features:
            name = (
                "columns, in order" if len(signature.inputs) == 1 else f"columns of '{given.name}', in order"
            )
            found.append({"name": name, "text": "; ".join(map(_feature, given.features))})
    if signature.missing:
        found.append({"name": "missing values", "text": _missing(signature)})
    named = " and ".join(f"'{name}'" for name in signature.output_names)
    found.append({"name": f"output {named}", "text": _output(signature)})
    if signature.classes:
        found.append({"name": "classes, in order", "text": ", ".join(signature.classes)})
    return found


def _input(given: Input, signature: Signature) -> str:
    axes = [_AXES.get(letter, letter) for letter in given.layout] or [""] * len(given.shape)
    sizes = [f"{axis} {size}".strip() for axis, size in zip(axes, given.shape, strict=True)]
    meaning = _MEANINGS.get(signature.meaning, "an example")
    layout = f", layout N{given.layout}" if given.layout else ""
    if given.pixels:
        layout += ", pixels from 0 to 255"
    return f"{meaning}: {given.type}, (batch{''.join(f', {s}' for s in sizes)}){layout}"


def _normalisation(signature: Signature) -> str:
    n = signature.normalise
    if n is None:
        return "none in front of the network: feed the data as the network was trained with them"
    listed = lambda values: ", ".join(f"{v:.6g}" for v in values[:8]) + (", ..." if len(values) > 8 else "")
    order = f", channels in the order {list(n['channels'])}" if n.get("channels") else ""
    return (
        f"inside the file, feed the data as they are; it computes (x * {n['scale']:.6g} - mean) / deviation with "
        f"mean {listed(n['mean'])} and deviation {listed(n['std'])}{order}"
    )


def _feature(feature: Feature) -> str:
    if feature.value is not None:
        return f"{feature.column} = {feature.value} (1 or 0)"
    if feature.codes:
        return f"{feature.column} ({', '.join(f'{c} is {i}' for i, c in enumerate(feature.codes))})"
    return feature.column


def _missing(signature: Signature) -> str:
    if signature.missing == "drop":
        return "rows with one were left out: there may be none"
    fills = {f.column: f.fill for i in signature.inputs for f in i.features if f.fill is not None}
    listed = "; ".join(f"{c}: {v:.6g}" if isinstance(v, float) else f"{c}: {v}" for c, v in fills.items())
    return f"replaced by {listed}"


def _output(signature: Signature) -> str:
    target = f" of '{signature.target}'" if signature.target else ""
    return f"{signature.outputs}{target}"


def onnx_code(signature: Signature, name: str = "model.onnx") -> str:
    """Python that runs the ONNX file with ONNX Runtime alone."""
    zeros = "".join(
        f'    "{i.name}": np.zeros({(1, *i.shape)}, dtype="{i.type}"),\n' for i in signature.inputs
    )
    return (
        f'import numpy as np, onnxruntime as ort\nsession = ort.InferenceSession("{name}")\n'
        f"feed = {{  # your data, batch first\n{zeros}}}\n{_result(signature)} = session.run(None, feed)[0]"
    )


def torch_code(signature: Signature, name: str = "model.pt2") -> str:
    """Python that runs the exported program with torch alone."""
    zeros = ", ".join(f"torch.zeros({(1, *i.shape)}, dtype=torch.{i.type})" for i in signature.inputs)
    return (
        f'import torch\nnetwork = torch.export.load("{name}").module()\n'
        f"{_result(signature)} = network({zeros})  # your data, batch first"
    )


def command(signature: Signature, name: str = "model.onnx") -> str:
    data = "NEW.npz"
    if all(given.features for given in signature.inputs):
        data = "NEW.csv"
    elif signature.inputs[0].pixels:
        data = "PICTURES/"
    return f"netwright predict {name} {data} --out predictions.csv"


def _result(signature: Signature) -> Any:
    return "values" if signature.kind == "regression" else "logits"
