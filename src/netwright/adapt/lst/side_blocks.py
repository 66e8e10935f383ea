"""Narrow copies of transformer blocks, cut from the wide ones by importance: the rungs of a side network.

A block is cut as LST's authors do: the output rows of a matrix with the largest summed importance are kept, and
are the input columns kept in the next matrix, chained from the embedding. Residual consistency is ignored.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from netwright.core.errors import NotApplicable

Where = Literal["in", "middle", "out"]


@dataclass(frozen=True)
class Anatomy:
    """Names of a block's parts. qkv: three layers, or one attention module with a packed in_proj_weight.

    norms: layer norm -> which width it normalises (the block's input, the attention's output, the block's output).
    """

    qkv: tuple[str, ...]
    out: str
    grow: str
    shrink: str
    norms: dict[str, Where] = field(default_factory=dict)


def anatomy(block: nn.Module) -> Anatomy:
    """What this block is made of; NotApplicable for a kind that has no entry here."""
    kind = type(block).__name__
    if isinstance(block, nn.TransformerEncoderLayer):
        places: tuple[Where, Where] = ("in", "middle") if block.norm_first else ("middle", "out")
        norms: dict[str, Where] = dict(zip(("norm1", "norm2"), places, strict=True))
        return Anatomy(("self_attn",), "self_attn.out_proj", "linear1", "linear2", norms)
    if kind == "Block" and hasattr(block, "attention"):
        qkv = ("attention.query", "attention.key", "attention.value")
        return Anatomy(qkv, "attention.out", "grow", "shrink", {"norm1": "in", "norm2": "middle"})
    if kind == "BertLayer":
        qkv = tuple(f"attention.self.{part}" for part in ("query", "key", "value"))
        norms = {"attention.output.LayerNorm": "middle", "output.LayerNorm": "out"}
        return Anatomy(qkv, "attention.output.dense", "intermediate.dense", "output.dense", norms)
    raise NotApplicable(
        f"it cannot build a narrow {kind}: known are this package's Block, nn.TransformerEncoderLayer and BertLayer"
    )


def blocks_of(network: nn.Module) -> tuple[str, list[nn.Module]]:
    """The name and members of the longest list of like transformer blocks."""
    best: tuple[str, list[nn.Module]] = ("", [])
    for name, module in network.named_modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            members = list(module)
            if len(members) > len(best[1]) and len({type(m) for m in members}) == 1:
                try:
                    anatomy(members[0])
                except NotApplicable:
                    continue
                best = name, members
    if len(best[1]) < 2:
        raise NotApplicable(
            "it taps the blocks of a transformer, and this network has no list of them that it knows"
        )
    return best


def width_of(block: nn.Module) -> int:
    return block.get_submodule(anatomy(block).shrink).out_features


def narrow_blank(block: nn.Module, factor: int) -> nn.Module:
    """A block of the same kind and number of heads, every width divided by `factor`, with new weights."""
    parts = anatomy(block)
    width = width_of(block) // factor
    hidden = block.get_submodule(parts.grow).out_features // factor
    heads = _heads(block)
    if width < heads or width % heads:
        raise NotApplicable(
            f"a side width of {width} (hidden size {width_of(block)} / {factor}) cannot be shared by {heads} heads"
        )
    if isinstance(block, nn.TransformerEncoderLayer):
        return nn.TransformerEncoderLayer(
            width, heads, hidden, block.dropout.p, block.activation, block.norm1.eps,
            batch_first=block.self_attn.batch_first, norm_first=block.norm_first,
        )  # fmt: skip
    if type(block).__name__ == "BertLayer":
        config = copy.deepcopy(block.attention.self.config)
        config.hidden_size, config.intermediate_size = width, hidden
        return type(block)(config)
    return type(block)(width, heads, hidden, block.drop.p)


def _heads(block: nn.Module) -> int:
    if isinstance(block, nn.TransformerEncoderLayer):
        return block.self_attn.num_heads
    if type(block).__name__ == "BertLayer":
        return block.attention.self.num_attention_heads
    return block.attention.heads


def cut(block: nn.Module, narrow: nn.Module, importance: dict[str, Tensor], columns: Tensor) -> Tensor:
    """Fill `narrow` with the important rows and columns of `block`; return the output rows that were kept.

    importance: squared gradients by parameter name in the block; columns (d_s,): hidden units kept so far.
    """
    parts = anatomy(block)
    kept: dict[Where, Tensor] = {"in": columns}
    inner = _cut_qkv(block, narrow, parts, importance, columns)
    kept["middle"] = _cut_linear(block, narrow, parts.out, importance, inner)
    hidden = _cut_linear(block, narrow, parts.grow, importance, kept["middle"])
    kept["out"] = _cut_linear(block, narrow, parts.shrink, importance, hidden)
    with torch.no_grad():
        for name, where in parts.norms.items():
            source, target = block.get_submodule(name), narrow.get_submodule(name)
            target.weight.copy_(source.weight[kept[where]])
            target.bias.copy_(source.bias[kept[where]])
    return kept["out"]


def top(scores: Tensor, count: int) -> Tensor:
    """Indices of the largest scores, in ascending order."""
    return scores.topk(count).indices.sort().values


def _rows(weight_importance: Tensor) -> Tensor:
    return weight_importance.sum(1)


@torch.no_grad()
def _cut_linear(
    block: nn.Module, narrow: nn.Module, name: str, importance: dict[str, Tensor], columns: Tensor
) -> Tensor:
    source, target = block.get_submodule(name), narrow.get_submodule(name)
    rows = top(_rows(importance[f"{name}.weight"]), target.out_features)
    target.weight.copy_(source.weight[rows][:, columns])
    if source.bias is not None:
        target.bias.copy_(source.bias[rows])
    return rows


@torch.no_grad()
def _cut_qkv(
    block: nn.Module, narrow: nn.Module, parts: Anatomy, importance: dict[str, Tensor], columns: Tensor
) -> Tensor:
    """Query, key and value keep the same rows: those whose product of importances is largest."""
    if len(parts.qkv) == 1:
        source, target = block.get_submodule(parts.qkv[0]), narrow.get_submodule(parts.qkv[0])
        scores = _rows(importance[f"{parts.qkv[0]}.in_proj_weight"]).view(3, -1).prod(0)
        rows = top(scores, target.embed_dim)
        packed = torch.cat([rows + i * source.embed_dim for i in range(3)])
        target.in_proj_weight.copy_(source.in_proj_weight[packed][:, columns])
        target.in_proj_bias.copy_(source.in_proj_bias[packed])
        return rows
    scores = torch.stack([_rows(importance[f"{name}.weight"]) for name in parts.qkv]).prod(0)
    rows = top(scores, narrow.get_submodule(parts.qkv[0]).out_features)
    for name in parts.qkv:
        source, target = block.get_submodule(name), narrow.get_submodule(name)
        target.weight.copy_(source.weight[rows][:, columns])
        target.bias.copy_(source.bias[rows])
    return rows
