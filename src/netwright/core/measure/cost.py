"""What a network costs: parameters, bytes, multiply-accumulates and activation memory, counted by running it.

Latency is measured, not counted: `latency` (latency.py). Memory of a training step: memory.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from netwright.core.measure.latency import Latency, latency
from netwright.core.measure.machine import instruction_sets, processor_name
from netwright.core.network import (
    Inputs,
    as_tuple,
    call,
    device_of,
    evaluating,
    move,
    parameter_count,
    without_fast_path,
)

__all__ = [
    "Cost", "Latency", "cost", "instruction_sets", "latency", "macs", "peak_activation_bytes",
    "processor_name", "stored_bytes",
]  # fmt: skip

aten = torch.ops.aten


@dataclass(frozen=True)
class Cost:
    """parameters: distinct scalars. bytes: the state dict on disk. macs, peak_activation_bytes: of one example."""

    parameters: int
    bytes: int
    macs: int
    peak_activation_bytes: int


def cost(network: nn.Module, example: Inputs) -> Cost:
    """Count what the network costs.

    example: inputs (B, ...); the first row of each is used. Evaluation mode, no gradients.
    """
    one = as_tuple(move(tuple(t[:1].clone() for t in as_tuple(example)), device_of(network)))
    return Cost(
        parameters=parameter_count(network),
        bytes=stored_bytes(network),
        macs=macs(network, one),
        peak_activation_bytes=peak_activation_bytes(network, one),
    )


def stored_bytes(network: nn.Module) -> int:
    """Bytes of the state dict's tensors; one that several names share counts once.

    A weight packed as int8 counts one byte. A slice of a larger tensor counts as the slice, as it is saved.
    """
    seen = {
        (t.untyped_storage()._cdata, t.storage_offset(), tuple(t.shape), t.stride()): t.nbytes
        for t in network.state_dict().values()
        if isinstance(t, Tensor) and t.numel()
    }
    return sum(seen.values())


def macs(network: nn.Module, inputs: Inputs) -> int:
    """Multiply-accumulates of one forward pass on `inputs` as they are (divide by the batch for one example).

    Counted by torch's FlopCounterMode (two operations per multiply-accumulate) over the operators that really
    ran: convolutions and matrix products, those inside recurrent layers and attention too. Element-wise work,
    normalisation and pooling count nothing, as is the custom.
    """
    return sum(macs_by_operator(network, inputs).values())


def macs_by_operator(network: nn.Module, inputs: Inputs) -> dict[str, int]:
    """`macs`, apart for each of ATen's operators that has any: 'convolution', 'addmm', ..."""
    counter = FlopCounterMode(display=False, custom_mapping=_MORE)
    with _plain_operators(), evaluating(network), torch.no_grad(), counter:
        call(network, inputs)
    counts = counter.get_flop_counts().get("Global", {})
    return {str(operator).removeprefix("aten."): count // 2 for operator, count in counts.items()}


def peak_activation_bytes(network: nn.Module, inputs: Inputs) -> int:
    """The most bytes that inputs and intermediate results hold at one moment of a forward pass without gradients.

    Storages are followed from the operator that makes them to the moment when they are freed; views and
    in-place results cost nothing. Scratch space inside an operator is not seen.
    """
    given = (*network.parameters(), *network.buffers())
    meter = _Liveness({t.untyped_storage()._cdata for t in given})
    with _plain_operators(), evaluating(network), torch.no_grad(), meter:
        for tensor in as_tuple(inputs):
            meter.see(tensor)
        call(network, inputs)
    return meter.peak


@contextmanager
def _plain_operators() -> Iterator[None]:
    """Fused kernels (oneDNN and cuDNN recurrence, the fast path of attention) fall apart into what they compute."""
    kernels: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    before = [kernel.enabled for kernel in kernels]
    try:
        for kernel in kernels:
            kernel.enabled = False
        with without_fast_path():
            yield
    finally:
        for kernel, enabled in zip(kernels, before, strict=True):
            kernel.enabled = enabled


def _attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """(B, H, L, E), (B, H, S, E), (B, H, S, V): query by key, then weights by value."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[-2] * (width + value[-1])


def _matrix_vector(matrix: Any, vector: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * matrix[0] * matrix[1]


def _added_matrix_vector(
    _: Any, matrix: Any, vector: Any, *__: Any, out_shape: Any = None, **___: Any
) -> int:
    return 2 * matrix[0] * matrix[1]


def _bilinear(left: Any, weight: Any, right: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """(N, I), (O, I, J), (N, J): each weight is multiplied by both inputs."""
    return 2 * left[0] * 2 * weight[0] * weight[1] * weight[2]


# what torch's own table lacks
_MORE = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
    aten._trilinear: _bilinear,
    aten.mv: _matrix_vector,
    aten.addmv: _added_matrix_vector,
}


class _Liveness(TorchDispatchMode):
    """Follows every storage that an operator makes until it is freed."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.weights = weights
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights and storage._cdata not in self.live:
            self.live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.see(tensor)
        self.live = {key: entry for key, entry in self.live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result
