"""Slicing the tensors of a network, and telling its modules their new sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput, UnknownName
from netwright.core.graph.groups import Dependencies
from netwright.core.graph.ir import Graph

Keep = Mapping[str, Any]
Orders = dict[tuple[str, int], Tensor]


def check(found: Dependencies, keep: Keep) -> dict[str, Tensor]:
    """Unit indices (k,) int64 per group, in the order asked for."""
    known = {group.name: group for group in found.groups}
    chosen = {}
    for name, indices in keep.items():
        if name not in known:
            raise UnknownName("group in this network", name, known)
        kept = torch.as_tensor(indices, dtype=torch.int64).flatten().cpu()
        size = known[name].size
        if not len(kept):
            raise BadInput(f"group '{name}' must keep at least one of its {size} units")
        if int(kept.min()) < 0 or int(kept.max()) >= size or len(kept.unique()) < len(kept):
            raise BadInput(f"group '{name}' has units 0 to {size - 1}, each to be kept once at most")
        chosen[name] = kept
    return chosen


def removed_labels(found: Dependencies, keep: Mapping[str, Tensor]) -> Tensor:
    """Labels (as in the patterns) of all units that go."""
    gone = []
    for name, kept in keep.items():
        labels = found.units[name]
        mask = torch.ones(len(labels), dtype=torch.bool)
        mask[kept] = False
        gone.append(labels[mask])
    return torch.cat(gone) if gone else torch.empty(0, dtype=torch.int64)


def orders(found: Dependencies, keep: Mapping[str, Tensor]) -> Orders:
    """For every axis that changes: the old positions that it keeps, in their new order.

    Kept units take the places of the kept units in ascending order, so [2, 0] puts unit 2 where unit 0 was.
    """
    sizes = {name: tuple(t.shape) for name, t in _tensors(found.graph).items()}
    axes: Orders = {}
    drop: dict[tuple[str, int], list[Tensor]] = {}
    for group in found.groups:
        if group.name not in keep:
            continue
        kept = keep[group.name]
        gone = torch.ones(group.size, dtype=torch.bool)
        gone[kept] = False
        for part in group.slices:
            key = part.parameter, part.axis
            order = axes.setdefault(key, torch.arange(sizes[part.parameter][part.axis]))
            order[part.index[kept.sort().values]] = part.index[kept]
            drop.setdefault(key, []).append(part.index[gone].flatten())
    for key, order in axes.items():
        stays = torch.ones(len(order), dtype=torch.bool)
        stays[torch.cat(drop[key])] = False
        axes[key] = order[stays]
    return axes


def _tensors(graph: Graph) -> dict[str, Tensor]:
    return {**graph.parameters, **graph.buffers, **graph.constants}


def sliced(tensor: Tensor, name: str, axes: Orders) -> Tensor:
    """The tensor with every changed axis in its new order."""
    for (owner, axis), order in axes.items():
        if owner == name:
            tensor = tensor.index_select(axis, order.to(tensor.device))
    return tensor


def cut(network: nn.Module, graph: Graph, axes: Orders) -> None:
    """Slice the tensors of `network` (a clone of the traced one) in place, and set the sizes of its modules."""
    names: dict[str, list[str]] = {}
    for alias, name in graph.aliases.items():
        names.setdefault(name, []).append(alias)
    touched: dict[nn.Module, None] = {}
    before = {module: _groups_of(module) for module in network.modules()}
    for name in dict.fromkeys(name for name, _ in axes):
        places = [p for p in (name, *names.get(name, [])) if _has(network, p)]
        if not places:  # a constant of the trace, not of the network
            continue
        owner, attribute = _owner(network, places[0])
        old = getattr(owner, attribute)
        new: Tensor = sliced(old.detach(), name, axes).contiguous()
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        for place in places:
            owner, attribute = _owner(network, place)
            setattr(owner, attribute, new)
            touched[owner] = None
    for module in touched:
        for kind, resize in _SIZES.items():
            if isinstance(module, kind):
                resize(module, before[module])


def _owner(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return network.get_submodule(path), attribute


def _has(network: nn.Module, name: str) -> bool:
    try:
        owner, attribute = _owner(network, name)
    except AttributeError:
        return False
    return isinstance(getattr(owner, attribute, None), Tensor)


def _groups_of(module: nn.Module) -> bool:
    """Whether a convolution is depthwise, or a group normalisation has one channel a group."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups == module.num_channels
    return isinstance(module, nn.modules.conv._ConvNd) and module.groups == module.in_channels > 1


def _convolution(module: Any, depthwise: bool) -> None:
    rows, columns = module.weight.shape[:2]
    if module.transposed:
        if depthwise:
            module.groups = rows
        module.in_channels, module.out_channels = rows, columns * module.groups
    else:
        if depthwise:
            module.groups = rows * module.groups // module.out_channels
        module.in_channels, module.out_channels = columns * module.groups, rows


def _linear(module: Any, _: bool) -> None:
    module.out_features, module.in_features = module.weight.shape


def _norm(module: Any, _: bool) -> None:
    module.num_features = len(module.running_mean if module.weight is None else module.weight)


def _layer_norm(module: Any, _: bool) -> None:
    module.normalized_shape = tuple(module.weight.shape)


def _group_norm(module: Any, single: bool) -> None:
    module.num_channels = len(module.weight)
    if single:
        module.num_groups = module.num_channels


def _embedding(module: Any, _: bool) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _recurrent(module: Any, _: bool) -> None:
    module.input_size, module.hidden_size = module.weight_ih_l0.shape[1], module.weight_hh_l0.shape[1]
    if module.proj_size:
        module.hidden_size, module.proj_size = module.weight_hr_l0.shape[1], module.weight_hr_l0.shape[0]
    module.flatten_parameters()


def _prelu(module: Any, _: bool) -> None:
    module.num_parameters = len(module.weight)


_SIZES: dict[type[nn.Module], Callable[[Any, bool], None]] = {
    nn.modules.conv._ConvNd: _convolution, nn.Linear: _linear, nn.modules.batchnorm._NormBase: _norm,
    nn.LayerNorm: _layer_norm, nn.RMSNorm: _layer_norm, nn.GroupNorm: _group_norm, nn.Embedding: _embedding,
    nn.RNNBase: _recurrent, nn.PReLU: _prelu,
}  # fmt: skip
