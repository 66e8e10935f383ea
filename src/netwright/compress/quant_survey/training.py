"""Quantised weights trained on: rounded in every pass, with learned scales.

Learned Step Size Quantization, arXiv 1902.08153.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx
from torch.nn.utils import parametrize

from netwright.compress.parts.int8_graph import attribute
from netwright.compress.parts.weights import Rounded
from netwright.core.budget import Meter
from netwright.core.fit import Fit
from netwright.core.task import Task
from netwright.core.weights.parametrise import Quantiser


def trained(
    module: fx.GraphModule, quantisers: Mapping[str, Quantiser], task: Task, fit: Fit, meter: Meter
) -> dict[str, Rounded]:
    """Train the network, in place, under these quantisers; what its weights become. Weight decay is for weights alone.

    Batch norms are folded, or stay as they are in evaluation, so that the network that is trained is the one that is
    kept. The module's weights are rounded ones afterwards.
    """
    for path, quantiser in quantisers.items():
        owner, name = _place(module, path)
        parametrize.register_parametrization(owner, name, quantiser)
    held = [p for p in module.parameters() if p.is_floating_point()]
    for parameter in held:
        parameter.requires_grad_()
    plain = [p for p in held if p.dim() < 2 or any(p is q.learned for q in quantisers.values())]
    decayed = [p for p in held if not any(p is other for other in plain)]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    fit(module, task, parameters=groups, meter=meter)
    found = {}
    for path, quantiser in quantisers.items():
        owner, name = _place(module, path)
        latent = owner.parametrizations[name].original  # type: ignore[union-attr, index]
        found[path] = Rounded.of(latent.detach(), quantiser, quantiser.to_integer(latent))
        parametrize.remove_parametrizations(owner, name)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return found


def _place(module: fx.GraphModule, path: str) -> tuple[fx.GraphModule, str]:
    owner, _, name = path.rpartition(".")
    return (attribute(module, owner) if owner else module), name
