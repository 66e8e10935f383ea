"""How much memory a step of training needs: what autograd keeps for the backward pass, and the rest."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.network import device_of


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes. saved: activations kept for the backward pass, at their peak. peak: of all together.

    On a GPU `peak` is what the allocator reports; on the CPU, whose allocator keeps no record, it is the sum of
    the four parts.
    """

    saved: int
    weights: int
    gradients: int
    optimiser: int
    peak: int


class SavedTensors:
    """Counts the distinct storages that autograd holds for the backward pass while `counting` is open."""

    def __init__(self, apart: Iterable[Tensor] = ()) -> None:
        """apart: tensors that do not count (weights), nor do views of them."""
        self.peak = self.held = 0
        self._apart = {t.untyped_storage()._cdata for t in apart}
        self._holders: dict[int, int] = {}

    @contextmanager
    def counting(self) -> Iterator[SavedTensors]:
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda saved: saved.tensor):
            yield self

    def _pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._apart:
            if key not in self._holders:
                self.held += size
                self.peak = max(self.peak, self.held)
            self._holders[key] = self._holders.get(key, 0) + 1
            weakref.finalize(saved, self._free, key, size)
        return saved

    def _free(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.held -= size


class _Saved:
    """What autograd holds in a tensor's place: it dies when the graph lets go."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def training_memory(
    step: Callable[[], Any], network: nn.Module, optimiser: torch.optim.Optimizer | None = None
) -> TrainingMemory:
    """Run `step` (forward, backward, optimiser step) once and say what memory it needed.

    Checkpointed and repeated forward passes are counted at their real peak. Gradients that `step` sets to None
    again before it returns do not count.
    """
    device = device_of(network)
    weights = [*network.parameters(), *network.buffers()]
    ledger = SavedTensors(weights)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with ledger.counting():
        step()
    slots = [v for state in (optimiser.state.values() if optimiser else ()) for v in state.values()]
    parts = {
        "saved": ledger.peak,
        "weights": _distinct(weights),
        "gradients": _distinct(p.grad for p in network.parameters() if p.grad is not None),
        "optimiser": _distinct(v for v in slots if isinstance(v, Tensor)),
    }
    measured = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else sum(parts.values())
    return TrainingMemory(**parts, peak=measured)


def _distinct(tensors: Iterable[Tensor]) -> int:
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
