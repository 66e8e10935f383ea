"""A second device that every machine has: 'elsewhere'. Its tensors are the processor's in disguise, and an operator
that is given tensors of both devices fails, as it would with a GPU.

    with far.device():
        network.to(far.NAME)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "elsewhere"  # every module gets a method of this name, so it must be no layer's
aten = torch.ops.aten
# operators that a GPU lets have their indices on the processor
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class _Module(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


if not hasattr(torch, NAME):
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())


class Far(Tensor):
    """near: where the values really are."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        made = Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype,
            device=torch.device(NAME, 0), requires_grad=False,
        )  # fmt: skip
        made.near = near
        return made

    def __repr__(self) -> str:
        return f"Far({self.near})"

    def tolist(self) -> Any:
        return self.near.tolist()

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["near"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: Any) -> Far:
        return Far(inner["near"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _is_far(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    some = [isinstance(t, Far) for t in flat if t.dim() > 0]
    near = tree_map(lambda t: t.near if isinstance(t, Far) else t, (args, kwargs))
    far = any(isinstance(t, Far) for t in flat)
    device = kwargs.get("device")
    if device is not None:
        far = _is_far(device)
        near[1]["device"] = torch.device("cpu")
    elif far and not all(some) and func not in _INDEXED and func is not aten.copy_.default:
        raise RuntimeError(f"expected all tensors on one device: {func} was given two")
    result = func(*near[0], **near[1])
    if not far:
        return result
    given = {id(t.near): t for t in flat if isinstance(t, Far)}
    return tree_map(lambda t: given.get(id(t), Far(t)) if isinstance(t, Tensor) else t, result)


class _Far(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def device() -> Iterator[None]:
    """The block can place modules and tensors on the device."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with _Far():
            yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
