"""Small things that every part does with a network, which is a plain `torch.nn.Module`.

Inputs of a network are one tensor or a tuple of tensors, batch first; `call` feeds either.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput, NotApplicable

Inputs: TypeAlias = Tensor | tuple[Tensor, ...]


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def call(network: nn.Module, inputs: Inputs) -> Any:
    return network(*as_tuple(inputs))


def move(inputs: Inputs, device: torch.device) -> Inputs:
    """The inputs on a device (the same shape of thing: tensor or tuple)."""
    if isinstance(inputs, tuple):
        return tuple(t.to(device, non_blocking=True) for t in inputs)
    return inputs.to(device, non_blocking=True)


def batch_size(inputs: Inputs) -> int:
    return as_tuple(inputs)[0].shape[0]


def device_of(network: nn.Module) -> torch.device:
    """Where the network's first parameter or buffer lives; the CPU for a network without any."""
    for tensor in (*network.parameters(), *network.buffers()):
        return tensor.device
    return torch.device("cpu")


def device_named(name: str) -> torch.device:
    """The device of this name, such as 'cpu', 'cuda:1' or 'mps'; BadInput where this machine cannot compute on it."""
    try:
        device = torch.device(name)
        (torch.ones(1, device=device) + 1).item()
    except Exception as error:
        line = str(error).strip().partition("\n")[0].rstrip(".")
        raise BadInput(
            f"the device '{name}' cannot be used here ({line}); leave it out to train on the processor"
        ) from None
    return device


def clone(network: nn.Module) -> nn.Module:
    """An independent copy: a Transform changes this one, never the one it was given."""
    return copy.deepcopy(network)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode inside the block; every module's own mode afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield network
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Torch's own encoder layers run their parts, where hooks see them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global random numbers start from `seed` inside the block and are as before afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def parameter_count(network: nn.Module) -> int:
    """Distinct parameters; a tensor that two modules share counts once."""
    return sum(p.numel() for p in network.parameters())


def fingerprint(network: nn.Module) -> str:
    """A short hash of the structure and of every tensor: tells whether a study may continue."""
    digest = hashlib.sha256(repr(network).encode())
    for name, tensor in network.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def check_trainable(network: nn.Module) -> None:
    """NotApplicable for a network whose weights are 8-bit integers: no gradient passes its roundings."""
    if any(p.dtype in (torch.int8, torch.uint8) for p in network.parameters()):
        raise NotApplicable(
            "its weights are 8-bit integers, which cannot be trained; give the network that they were made from"
        )
