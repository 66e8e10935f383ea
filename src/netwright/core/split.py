"""A split: examples that come in batches, from memory or from the user's own DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from netwright.core.errors import BadInput, NotApplicable
from netwright.core.network import Inputs, as_tuple

Batch = tuple[Inputs, Tensor]


class Normalise(nn.Module):
    """(x[:, channels] * scale - mean) / std along dimension 1, for inputs (B, C, ...). Travels with a task into the
    export.

    mean, std: one value per channel, in units of the scaled input (images: scale 1/255, mean in [0, 1]), in the
    network's order. channels: the network's order of the data's channels, (2, 1, 0) for BGR of RGB; () for the same.
    """

    mean: Tensor
    std: Tensor
    order: Tensor

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], scale: float = 1.0, channels: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32))
        self.scale = scale
        self.channels = tuple(channels)
        if channels:
            self.register_buffer("order", torch.tensor(self.channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.channels:
            x = x.index_select(1, self.order)
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return (x.to(self.mean.dtype) * self.scale - self.mean.view(shape)) / self.std.view(shape)


class Permute(nn.Module):
    """The axes of a batch in another order; `axes` has the batch's own, 0, first."""

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.axes).contiguous()


@runtime_checkable
class Split(Protocol):
    """Examples of one role (train, validation or test)."""

    def __len__(self) -> int: ...

    def batches(self, size: int, *, shuffle: bool = False, seed: int = 0) -> Iterator[Batch]:
        """Batches on the CPU, the last one possibly smaller. The same seed gives the same order."""
        ...

    def select(self, indices: Tensor) -> Split:
        """The examples with these indices (N,) int64, in this order."""
        ...


def take(split: Split, count: int, seed: int | None = None) -> Split:
    """At most `count` examples: the first ones, or a seeded random choice."""
    if count >= len(split):
        return split
    if seed is None:
        return split.select(torch.arange(count))
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split.select(order[:count])


@dataclass(frozen=True)
class ArraySplit:
    """Examples held as tensors; images may stay uint8, `prepare` turns a batch into what a network takes.

    inputs: one tensor (N, ...) or several of equal N; targets: (N,) classes, (N, L) labels or (N[, O]) values.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    prepare: nn.Module | None = None

    def __post_init__(self) -> None:
        sizes = {t.shape[0] for t in (*self.inputs, self.targets)}
        if len(sizes) != 1:
            raise BadInput(f"inputs and targets have different lengths: {sorted(sizes)}")

    def __len__(self) -> int:
        return self.targets.shape[0]

    def _batch(self, index: Tensor | slice) -> Batch:
        x = tuple(t[index] for t in self.inputs)
        if self.prepare is not None:
            x = (self.prepare(x[0]), *x[1:])
        return (x if len(x) > 1 else x[0]), self.targets[index]

    def batches(self, size: int, *, shuffle: bool = False, seed: int = 0) -> Iterator[Batch]:
        n = len(self)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)) if shuffle else None
        for start in range(0, n, size):
            stop = min(start + size, n)
            yield self._batch(slice(start, stop) if order is None else order[start:stop])

    def select(self, indices: Tensor) -> ArraySplit:
        return replace(self, inputs=tuple(t[indices] for t in self.inputs), targets=self.targets[indices])


@dataclass(frozen=True)
class LoaderSplit:
    """Examples from a DataLoader of the user's, which keeps its own batch size and order.

    A loader yields (input, target), or (input_1, ..., input_n, target). A sampler that picks some of a data set's
    examples makes the split those examples; one whose choice cannot be read is refused.
    """

    loader: DataLoader[Any]
    prepare: nn.Module | None = None

    def __post_init__(self) -> None:
        loader = self.loader
        if isinstance(loader.dataset, IterableDataset):
            return
        if type(loader.batch_sampler) is not BatchSampler:
            raise BadInput(
                "this DataLoader makes its batches by a rule of its own; give one with a batch size, over the examples "
                "(torch.utils.data.Subset picks some of a data set)"
            )
        if isinstance(loader.sampler, SubsetRandomSampler):
            indices = sorted(int(i) for i in loader.sampler.indices)
            object.__setattr__(self, "loader", _shuffled(loader, Subset(loader.dataset, indices)))
        elif not isinstance(loader.sampler, _WHOLE):
            raise BadInput(
                f"this DataLoader's sampler ({type(loader.sampler).__name__}) may leave examples out; give a "
                "DataLoader over torch.utils.data.Subset(dataset, indices) instead"
            )

    def __len__(self) -> int:
        try:
            return len(self.loader.dataset)  # type: ignore[arg-type]
        except TypeError:
            raise NotApplicable("this DataLoader's data set has no length; give it __len__") from None

    def batches(self, size: int, *, shuffle: bool = False, seed: int = 0) -> Iterator[Batch]:
        loader = self.loader
        if isinstance(loader.dataset, IterableDataset):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                for items in loader:
                    yield self._batch(items)
            return
        if shuffle and loader.generator is not None:
            loader.generator.manual_seed(seed)
        if not shuffle:
            loader = DataLoader(
                loader.dataset, batch_size=size, shuffle=False, collate_fn=loader.collate_fn,
                num_workers=loader.num_workers,
            )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            iterator = iter(loader)
            head = next(iterator, None)  # the sampler draws its order when the first batch is asked for
        if head is not None:
            yield self._batch(head)
        for items in iterator:
            yield self._batch(items)

    def _batch(self, items: Any) -> Batch:
        if not isinstance(items, (tuple, list)) or len(items) < 2:
            raise BadInput("a DataLoader must yield (input, target) or (input_1, ..., input_n, target)")
        *inputs, target = items
        x = tuple(inputs)
        if self.prepare is not None:
            x = (self.prepare(x[0]), *x[1:])
        return (x if len(x) > 1 else x[0]), target

    def select(self, indices: Tensor) -> LoaderSplit:
        old = self.loader
        if isinstance(old.dataset, IterableDataset):
            raise NotApplicable("examples cannot be picked by index from an iterable data set")
        return replace(self, loader=_shuffled(old, Subset(old.dataset, indices.tolist())))


# samplers that come by every example of the data set (or draw from all of them)
_WHOLE = (SequentialSampler, RandomSampler, WeightedRandomSampler)


def _shuffled(old: DataLoader[Any], dataset: Dataset[Any]) -> DataLoader[Any]:
    """A loader like the old one, over other examples, in a random order."""
    return DataLoader(
        dataset, batch_size=old.batch_size, shuffle=True, generator=torch.Generator(), collate_fn=old.collate_fn,
        num_workers=old.num_workers,
    )  # fmt: skip


def sample(split: Split, count: int = 64) -> list[Tensor]:
    """Tensors that tell a split from another: all targets where they are at hand, and examples from all over it.

    Of a loader that shuffles, which may well change its inputs at random too, only the targets; of an iterable data
    set the first batch.
    """
    tensors = [targets] if isinstance(targets := getattr(split, "targets", None), Tensor) else []
    random = False
    if isinstance(split, LoaderSplit):
        random = not isinstance(split.loader.sampler, SequentialSampler)
    if not (isinstance(split, LoaderSplit) and isinstance(split.loader.dataset, IterableDataset)):
        split = split.select(torch.linspace(0, len(split) - 1, min(count, len(split))).long())
    inputs, targets = next(iter(split.batches(count)))
    return [*tensors, targets, *(() if random else as_tuple(inputs))]


def first(split: Split, count: int) -> tuple[Tensor, ...]:
    """The inputs of the first `count` examples, always as a tuple."""
    for inputs, _ in split.batches(count):
        return tuple(t[:count] for t in as_tuple(inputs))
    raise BadInput("the split is empty")
