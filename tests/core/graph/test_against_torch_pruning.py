"""The same channels removed by Torch-Pruning give the same shapes, and the same outputs."""

from __future__ import annotations

import copy

import pytest
import torch

from netwright.core.graph import dependencies, prune, trace
from netwright.models import build

torch_pruning = pytest.importorskip("torch_pruning")


def test_a_resnet() -> None:
    network = build("resnet", (3, 16, 16), 10, depth=14, width=8).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.randn(2, 3, 16, 16)
    found = dependencies(trace(network, x))
    modules = dict(network.named_modules())
    peer = copy.deepcopy(network)
    graph = torch_pruning.DependencyGraph().build_dependency(peer, example_inputs=x)
    peers = dict(peer.named_modules())
    theirs = sum(
        1 for _ in graph.get_all_groups(root_module_types=[torch.nn.Conv2d], ignored_layers=[peer.head])
    )
    assert len(found.groups) == theirs
    keep = {}
    for group in found.groups:
        keep[group.name] = torch.randperm(group.size)[: group.size // 2].sort().values
        gone = sorted(set(range(group.size)) - set(keep[group.name].tolist()))
        assert isinstance(modules[group.name], torch.nn.Conv2d)
        graph.get_pruning_group(peers[group.name], torch_pruning.prune_conv_out_channels, idxs=gone).prune()
    small = prune(network, x, keep, found)
    assert {k: v.shape for k, v in small.state_dict().items()} == {
        k: v.shape for k, v in peer.state_dict().items()
    }
    x = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(small(x), peer.eval()(x), atol=1e-5, rtol=1e-5)
