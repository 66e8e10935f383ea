"""Activations and gradients recorded at named places, one batch at a time.

A place is a module's name as in `named_modules()`; its output is what is recorded (of a tuple, such as an
LSTM's, the first tensor). A module that runs several times in one pass gives several records, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.budget import in_time
from netwright.core.errors import UnknownName
from netwright.core.network import call, device_of, evaluating, move
from netwright.core.split import Split

Edit = Callable[[Tensor], Tensor]


def places(network: nn.Module, *kinds: type[nn.Module]) -> list[str]:
    """Names of the modules of these kinds, in order of definition; without kinds, of all leaves."""
    if kinds:
        return [name for name, module in network.named_modules() if isinstance(module, kinds)]
    return [name for name, module in network.named_modules() if name and not any(module.children())]


class Taps:
    """Record (and edit) what passes the named places while the context is open.

        with Taps(network, ["layer1", "layer2"]) as taps:
            network(x)
        taps["layer1"]        # (B, C, H, W)

    gradients: also keep d loss / d output at each place, in `taps.gradient(place)` after a backward pass.
    detach: records are cut from the autograd graph (False for losses on hidden states).
    edits: place -> function that replaces the output.
    inputs: record the module's first input instead of its output.
    """

    def __init__(
        self,
        network: nn.Module,
        where: Sequence[str] = (),
        *,
        gradients: bool = False,
        detach: bool = True,
        inputs: bool = False,
        edits: dict[str, Edit] | None = None,
    ) -> None:
        self.gradients, self.detach, self.inputs = gradients, detach and not gradients, inputs
        self.edits = edits or {}
        self.where = list(dict.fromkeys([*where, *self.edits]))
        modules = dict(network.named_modules())
        for name in self.where:
            if name not in modules:
                raise UnknownName("place in the network", name, modules)
        self._modules = {name: modules[name] for name in self.where}
        self._records: dict[str, list[Tensor]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Taps:
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            value = args[0] if self.inputs else output
            value = value[0] if isinstance(value, (tuple, list)) else value
            edit, changed = self.edits.get(name), None
            if edit is not None:
                value = edit(value)
                changed = (value, *output[1:]) if isinstance(output, tuple) else value
            if self.gradients and value.requires_grad:
                value.retain_grad()
            self._records.setdefault(name, []).append(value.detach() if self.detach else value)
            return changed

        return hook

    def all(self, place: str) -> list[Tensor]:
        """Every record of this place since the last `clear`, in order."""
        if place not in self.where:
            raise UnknownName("tap", place, self.where)
        return self._records.get(place, [])

    def __getitem__(self, place: str) -> Tensor:
        """The latest record of this place."""
        records = self.all(place)
        if not records:
            raise KeyError(f"nothing has passed '{place}' yet")
        return records[-1]

    def __contains__(self, place: str) -> bool:
        return bool(self._records.get(place))

    def gradient(self, place: str) -> Tensor:
        """d loss / d output at this place, after a backward pass (needs gradients=True)."""
        grad = self[place].grad
        if grad is None:
            raise KeyError(f"no gradient reached '{place}'")
        return grad

    def clear(self) -> None:
        self._records.clear()


@contextmanager
def watching(
    network: nn.Module, where: Sequence[str], observe: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Show each place's output to `observe(place, output)` the moment it is made, and keep nothing.

    For reductions over many large activations: the output is still in the processor's cache, and no batch of
    activations is held. Nothing is detached and nothing can be replaced; Taps does both.
    """
    modules = dict(network.named_modules())
    for name in where:
        if name not in modules:
            raise UnknownName("place in the network", name, modules)

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def show(_module: nn.Module, _args: Any, output: Any) -> None:
            value = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(value, Tensor):
                observe(name, value)

        return show

    handles = [modules[name].register_forward_hook(hook(name)) for name in where]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def stream(
    network: nn.Module, split: Split, where: Sequence[str], batch_size: int = 128
) -> Iterator[dict[str, Tensor]]:
    """Pass a split through the network; per batch, the activations at each place that ran.

    Holds one batch at a time: reduce before the next. Evaluation mode, no gradients. Ends early, after one batch at
    least, when the time set around it (core/budget.py) is over.
    """
    device = device_of(network)
    with evaluating(network), torch.no_grad(), Taps(network, where) as taps:
        for inputs, _ in in_time(split.batches(batch_size)):
            taps.clear()
            call(network, move(inputs, device))
            yield {name: taps[name] for name in where if name in taps}


def leaves_that_run(
    network: nn.Module, example: tuple[Tensor, ...], kinds: Iterable[type[nn.Module]] = ()
) -> list[str]:
    """The places of these kinds that run on the example, in the order in which they first run."""
    order: list[str] = []
    wanted = places(network, *kinds)
    modules = dict(network.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda _m, _a, _o, name=name: order.append(name))
        for name in wanted
    ]
    try:
        with evaluating(network), torch.no_grad():
            call(network, move(tuple(example), device_of(network)))
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order))
