"""How many bits each weight gets: where rounding costs the loss least, under a limit of bytes.

HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks, arXiv 1911.03852, and HAWQ-V3, arXiv 2011.10680.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from netwright.compress.parts.int8_graph import attribute
from netwright.core.budget import Meter
from netwright.core.errors import BadInput
from netwright.core.network import batch_size, call
from netwright.core.split import Batch
from netwright.core.task import Task

_ALL: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}  # zero where nothing depends


def traces(
    module: fx.GraphModule,
    paths: Iterable[str],
    task: Task,
    batches: Iterable[Batch],
    seed: int,
    meter: Meter,
) -> dict[str, float]:
    """Trace of the loss's Hessian for each weight, by Hutchinson's estimate: the mean of v H v over v of random signs,
    one v for each batch and for all weights at once (what they have with each other has mean zero). The first batch
    is always taken, the rest while the budget lasts."""
    tensors = {path: attribute(module, path) for path in paths}
    generator = torch.Generator().manual_seed(seed)
    total, count = dict.fromkeys(tensors, 0.0), 0
    with _twice_differentiable(tensors.values()):
        for inputs, targets in batches:
            loss = task.loss(call(module, inputs), targets)
            slopes = torch.autograd.grad(loss, list(tensors.values()), create_graph=True, **_ALL)
            signs = [torch.randint(0, 2, t.shape, generator=generator).to(t) * 2 - 1 for t in slopes]
            along = sum((g * v).sum() for g, v in zip(slopes, signs, strict=True))
            curved = torch.autograd.grad(along, list(tensors.values()), **_ALL)  # type: ignore[arg-type]
            for path, v, hv in zip(tensors, signs, curved, strict=True):
                total[path] += float((v * hv).sum())
            count += 1
            meter.spend(samples=3 * batch_size(inputs))
            if meter.exhausted:
                break
    return {path: value / count for path, value in total.items()}


@contextmanager
def _twice_differentiable(tensors: Iterable[Tensor]) -> Iterator[None]:
    """The tensors require gradients, and fused kernels that have only one derivative are not used."""
    held = list(tensors)
    try:
        for tensor in held:
            tensor.requires_grad_()
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
            yield
    finally:
        for tensor in held:
            tensor.requires_grad_(False)


def allot(
    costs: Mapping[str, Mapping[int, float]], sizes: Mapping[str, Mapping[int, int]], limit: int
) -> dict[str, int]:
    """Bits for each weight: the least sum of costs whose sizes stay within the limit, by integer programming.

    costs, sizes: weight -> bits -> loss, bytes. Raises BadInput where even the smallest do not fit.
    """
    from scipy.optimize import LinearConstraint, milp

    choices = [(path, bits) for path in costs for bits in costs[path]]
    cost = np.array([costs[path][bits] for path, bits in choices])
    size = np.array([[sizes[path][bits] for path, bits in choices]], dtype=float)
    one = np.array([[float(path == other) for path, _ in choices] for other in costs])
    found = milp(
        cost / max(float(np.abs(cost).max()), 1e-30),
        constraints=[LinearConstraint(size, ub=limit), LinearConstraint(one, 1, 1)],
        integrality=np.ones(len(choices)),
        bounds=(0, 1),
    )
    if found.x is None:
        raise BadInput(f"no choice of bits stays within {limit} bytes; allow more bits")
    return {path: bits for (path, bits), taken in zip(choices, found.x, strict=True) if taken > 0.5}


def errors(weight: nn.Parameter | Tensor, rounded: Tensor) -> float:
    """Squared distance of a weight from what it is rounded to."""
    return float((weight.detach() - rounded).double().pow(2).sum())
