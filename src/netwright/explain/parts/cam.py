"""What the class activation maps share: the pass that gives activation and gradient, and the drawing of the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput, NotApplicable
from netwright.core.network import Inputs, as_tuple, call, device_of, evaluating, move
from netwright.core.plural import number_of
from netwright.core.split import Permute
from netwright.core.taps import Taps


@dataclass(frozen=True)
class Look:
    """One pass: activation and d score / d activation at a layer (B, K, h, w), score (B,) before the softmax."""

    activation: Tensor
    gradient: Tensor
    score: Tensor
    target: Tensor


def first_tensor(output: object) -> object:
    """Of several outputs, the first: what Taps records of a tuple."""
    return output[0] if isinstance(output, (tuple, list)) and output else output


def spatial_places(network: nn.Module, inputs: Inputs) -> list[str]:
    """Names of the modules that give maps (B, K, h, w) of more than one cell, in the order in which they end.

    A block ends after its parts, so that the sum and the ReLU of a residual block are seen. Maps (B, h, w, K), of
    layers that work along the last dimension and of what follows them value by value, are none.
    """
    ended: list[str] = []
    last: list[Tensor] = []  # maps with their channels last

    def hook(name: str) -> object:
        def record(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            value = first_tensor(output)
            if not isinstance(value, Tensor):
                return
            follows = any(args[:1] and args[0] is t and value.shape == t.shape for t in last)
            by_value = follows and not list(module.children())
            if isinstance(module, (nn.Linear, nn.LayerNorm, Permute)) or by_value:
                last.append(value)
            elif value.dim() == 4 and value.shape[2] * value.shape[3] > 1:
                ended.append(name)

        return record

    handles = [m.register_forward_hook(hook(n)) for n, m in network.named_modules() if n]  # type: ignore[arg-type]
    try:
        with evaluating(network), torch.no_grad():
            call(network, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(reversed(ended)))[::-1]


def choose_layer(network: nn.Module, inputs: Inputs, layer: str | None) -> str:
    """The named layer, or the last one that gives maps."""
    if layer is not None:
        return layer
    places = spatial_places(network, inputs)
    if not places:
        raise NotApplicable("class activation maps need a layer that gives maps (B, K, h, w); there is none")
    return places[-1]


def look(network: nn.Module, inputs: Inputs, layer: str, target: Tensor | None) -> Look:
    """Run the network once and differentiate the target's score by the layer's output.

    The graph is cut at the layer: parameters get no gradient, frozen networks work, and a later in-place
    operation does not reach the recorded activation. A layer that runs several times (a ReLU that all layers
    share) counts in the last run that gives maps.
    """
    held: list[Tensor] = []
    others: list[tuple[int, ...]] = []

    def cut(value: Tensor) -> Tensor:
        if value.dim() != 4:
            others.append(tuple(value.shape))
            return value
        held.append(value.detach().clone().requires_grad_(True))
        return held[-1].clone()

    with evaluating(network), torch.enable_grad(), Taps(network, edits={layer: cut}):
        outputs = scores_of(call(network, inputs))
        if not held and others:
            raise NotApplicable(
                f"layer '{layer}' gives shape {others[-1]}; a class activation map needs (B, K, h, w)"
            )
        if not held:
            raise NotApplicable(f"layer '{layer}' does not run on these inputs")
        activation = held[-1]
        target = choose_target(outputs, target)
        score = outputs.gather(1, target[:, None])[:, 0]
        if score.requires_grad:
            (gradient,) = torch.autograd.grad(score.sum(), activation, allow_unused=True)
        else:
            gradient = None
    if gradient is None:
        raise NotApplicable(f"the class score does not depend on layer '{layer}'")
    return Look(activation.detach(), gradient, score.detach(), target)


def scores_of(output: object) -> Tensor:
    """Class scores (B, C) of whatever the network gives; of several outputs the first."""
    value = first_tensor(output)
    if not isinstance(value, Tensor) or value.dim() not in (1, 2):
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise NotApplicable(f"an explanation needs class scores (batch, classes); this network gives {found}")
    return value if value.dim() == 2 else value[:, None]


def choose_target(outputs: Tensor, target: Tensor | None) -> Tensor:
    """The classes asked for (B,), checked, or the predicted ones."""
    if target is None:
        return outputs.argmax(1)
    target = torch.as_tensor(target, device=outputs.device).long()
    if target.shape != outputs.shape[:1]:
        raise BadInput(
            f"target has shape {tuple(target.shape)}; expected one class per example, ({len(outputs)},)"
        )
    if not bool(((target >= 0) & (target < outputs.shape[1])).all()):
        raise BadInput(f"target out of range: the network has {number_of(outputs.shape[1], 'output')}")
    return target


def on_device(network: nn.Module, inputs: Inputs) -> Inputs:
    return move(inputs, device_of(network))


def picture_index(inputs: Inputs) -> int | None:
    """Which input is the picture: the first floating one of four dimensions."""
    for i, tensor in enumerate(as_tuple(inputs)):
        if tensor.dim() == 4 and tensor.is_floating_point():
            return i
    return None


def plus_plus(activation: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Grad-CAM++ weights (B, K) from the activation and three derivatives of e^score, all (B, K, h, w).

    alpha(ij) = D2 / (2 D2 + sum_ab A(ab) D3), 0 where the denominator is 0; weight = sum_ij alpha ReLU(D1).
    """
    denominator = 2 * second + activation.sum((2, 3), keepdim=True) * third
    alpha = torch.where(denominator == 0, 0.0, second / denominator)
    return (alpha * first.relu()).sum((2, 3))


def weighted_map(
    activation: Tensor,
    weights: Tensor,
    channels: Sequence[int] | None = None,
    window: tuple[int, int, int, int] | None = None,
) -> Tensor:
    """ReLU of the weighted sum of channels (B, h, w); outside the window (top, left, bottom, right) it is 0."""
    kept = list(range(activation.shape[1])) if channels is None else list(channels)
    if not kept or min(kept) < 0 or max(kept) >= activation.shape[1]:
        raise BadInput(f"channels {kept} are not among the layer's {activation.shape[1]}")
    heat = torch.einsum("bkhw,bk->bhw", activation[:, kept], weights[:, kept]).relu()
    if window is None:
        return heat
    top, left, bottom, right = window
    if not (0 <= top < bottom <= heat.shape[1] and 0 <= left < right <= heat.shape[2]):
        raise BadInput(f"window {window} does not fit the layer's {heat.shape[1]} x {heat.shape[2]} cells")
    masked = torch.zeros_like(heat)
    masked[:, top:bottom, left:right] = heat[:, top:bottom, left:right]
    return masked


def draw(heat: Tensor, inputs: Inputs) -> Tensor:
    """Each map scaled to [0, 1], then enlarged bilinearly to the picture's (B, H, W); without a picture, as it is."""
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    # a constant map says nothing, wherever it lies
    scaled = torch.where(high > low, (heat - low) / (high - low), 0.0).float()
    index = picture_index(inputs)
    if index is None:
        return scaled
    size = as_tuple(inputs)[index].shape[2:]
    return F.interpolate(scaled[:, None], size=size, mode="bilinear")[:, 0]
