"""The network that was read gives what ONNX Runtime gives for the file."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from netwright.core.errors import NetwrightError
from netwright.core.measure.difference import relative_error
from netwright.core.measure.latency import onnx_feed, onnx_session
from netwright.core.quiet import quiet

if TYPE_CHECKING:
    from netwright.core.files.onnx_import.plan import Input, Plan

TOLERANCE = 1e-3
# where a file rounds, a sum on the border between two steps may fall to either side
TOLERANCE_QUANTISED = 5e-2
TOLERANCE_HALF = 2e-2


def check_agreement(
    network: fx.GraphModule, session: Any, words: tuple[str, ...], inputs: list[Input], plan: Plan
) -> float:
    """The largest relative difference on random inputs; an error if it is more than the tolerance.

    words: the texts that codes stand for.
    Whole numbers are zeros and ones, which any vocabulary and any mask has. Inputs so poor can be where a network is
    ill-conditioned (a normalisation of equal values): what differs on them is tried on richer ones.
    """
    rounds = any("quant" in str(n.target) for n in network.graph.nodes)
    half = any(p.dtype in (torch.float16, torch.bfloat16) for p in network.parameters())
    allowed = TOLERANCE_QUANTISED if rounds else TOLERANCE_HALF if half else TOLERANCE
    worst = _difference(network, session, words, inputs, plan, 2)
    if not worst <= allowed and any(not i.dtype.is_floating_point for i in inputs):
        for count in (16, 256):
            with contextlib.suppress(Exception):  # a vocabulary may be smaller
                worst = min(worst, _difference(network, session, words, inputs, plan, count))
    if not worst <= allowed:
        raise NetwrightError(
            f"the network as read gives other outputs than ONNX Runtime (relative difference {worst:.2g}); "
            "please report this file"
        )
    return worst


def session_of(model: onnx.ModelProto, path: Path, whole: bool) -> Any:
    """ONNX Runtime's session of the file, or of the part of it that was read."""
    if whole:
        return onnx_session(path)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / path.name
        part.write_bytes(model.SerializeToString())
        return onnx_session(part)


def gives_probabilities(
    network: fx.GraphModule, words: tuple[str, ...], inputs: list[Input], plan: Plan
) -> bool:
    """Whether each row of outputs is a distribution, on random inputs."""
    generator = torch.Generator().manual_seed(1)
    given = [
        _random(i, s, generator, len(words) if i.texts else 2)
        for i, s in zip(inputs, plan.at(plan.batch or 16), strict=True)
    ]
    with quiet(), torch.no_grad():
        got = network(*given)
    if not isinstance(got, Tensor) or got.dim() != 2:
        return False
    return bool(((got >= 0) & (got <= 1)).all()) and bool(((got.sum(1) - 1).abs() < 1e-3).all())


def _difference(
    network: fx.GraphModule, session: Any, words: tuple[str, ...], inputs: list[Input], plan: Plan, count: int
) -> float:
    """Where the file fixes the batch and the network does not, two of the file's batches go through the network at
    once and through the file one by one.
    """
    runs = 2 if plan.free and plan.batch else 1
    batch = plan.batch or 3
    generator = torch.Generator().manual_seed(0)
    parts = [
        tuple(
            _random(i, s, generator, len(words) if i.texts else count)
            for i, s in zip(inputs, plan.at(batch), strict=True)
        )
        for _ in range(runs)
    ]
    given = [
        [torch.as_tensor(a) for a in session.run(None, _feed(session, part, inputs, words))] for part in parts
    ]
    expected = [torch.cat(p) if runs > 1 and p[0].dim() else p[0] for p in zip(*given, strict=True)]
    together = tuple(
        torch.cat(p) if runs > 1 and s and s[0] is None else p[0]
        for p, s in zip(zip(*parts, strict=True), plan.shapes, strict=True)
    )
    with quiet(), torch.no_grad():
        got = tree_leaves(network(*together))
    return max(relative_error(a, b) for a, b in zip(expected, got, strict=True))


def _feed(
    session: Any, part: tuple[Tensor, ...], inputs: list[Input], words: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """As onnx_feed, with texts for their codes."""
    if not any(i.texts for i in inputs):
        return onnx_feed(session, part)
    texts = np.array(words, dtype=object)
    return {i.name: texts[t.numpy()] if i.texts else t.numpy() for i, t in zip(inputs, part, strict=True)}


def _random(entry: Input, shape: tuple[int, ...], generator: torch.Generator, vocabulary: int) -> Tensor:
    """Normal for floats; whole numbers below `vocabulary` for the rest."""
    if entry.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(entry.dtype)
    return torch.randint(0, vocabulary, shape, generator=generator).to(entry.dtype)
