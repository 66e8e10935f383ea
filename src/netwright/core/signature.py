"""What a network's file takes and gives, in words that a program can follow.

It travels with a task, inside every exported file, in result.json and in the report; `netwright predict` feeds raw
data by it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from netwright.core.errors import BadInput

VERSION = 1
SIGNATURE = "netwright.signature"  # where a file holds it: ONNX metadata, an extra file of a .pt2


@dataclass(frozen=True)
class Feature:
    """One number of a table's row as the network takes it.

    column: where it comes from. value: 1 where the column holds this text, else 0 (one-hot); None: the column's own
    number, or where `codes` are given the place of its text among them. fill: what stands for a missing value;
    None: there may be none.
    """

    column: str
    value: str | None = None
    codes: tuple[str, ...] = ()
    fill: float | str | None = None


@dataclass(frozen=True)
class Input:
    """One input of a file.

    shape: without the batch. type: as numpy says it. layout: the axes of `shape`, a letter each (CHW, HWC, F for
    features, T for time), '' where nobody knows. features: for a table, what each number is, in order.
    pixels: it takes the pixels of a picture as they are stored, from 0 to 255.
    """

    name: str
    shape: tuple[int, ...]
    type: str = "float32"
    layout: str = ""
    features: tuple[Feature, ...] = ()
    pixels: bool = False


@dataclass(frozen=True)
class Signature:
    """kind: classification, multilabel or regression. meaning: what an input is (image, table, tokens, ...).

    normalise: mean, std and scale, applied inside the file to its first input: feed the data as they are. None:
    nothing is. classes: in the order of the outputs. outputs: what they are, in words. target: the column (or array)
    that they predict, where it has a name. missing: what was done about missing values in tables ('', median, drop).
    output_names: what the file calls its outputs, in order.
    """

    kind: str
    meaning: str
    inputs: tuple[Input, ...]
    outputs: str
    classes: tuple[str, ...] = ()
    normalise: Mapping[str, Any] | None = None
    target: str = ""
    missing: str = ""
    output_names: tuple[str, ...] = ("output",)

    def to_json(self) -> dict[str, Any]:
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | str) -> Signature:
        """What `to_json` gave, as a dictionary or as text. BadInput for anything else."""
        try:
            held = dict(json.loads(document) if isinstance(document, str) else document)
            if held.pop("version") > VERSION:
                raise BadInput(
                    "the file's signature is of a later version of Netwright; bring yours up to date"
                )
            inputs = tuple(_input(given) for given in held.pop("inputs"))
            for name in {"classes", "output_names"} & held.keys():
                held[name] = tuple(held[name])
            return cls(inputs=inputs, **held)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"the file's signature is damaged ({type(error).__name__}: {error})") from error


def _input(given: Mapping[str, Any]) -> Input:
    features = tuple(
        replace(Feature(**f), codes=tuple(f.get("codes", ()))) for f in given.get("features", ())
    )
    return replace(Input(**given), shape=tuple(given["shape"]), features=features)
