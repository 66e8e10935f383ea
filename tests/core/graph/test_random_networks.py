"""Random small CNNs with residual connections, concatenations and grouped convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netwright.core.graph import dependencies, mask, prune, trace

STEP = st.sampled_from(
    ["conv", "residual", "concat", "depthwise", "grouped", "norm", "pool", "gate", "halves"]
)


class Random(nn.Module):
    """Steps in a row on (B, 4n, H, W), each written the way people write it."""

    def __init__(self, steps: list[str], widths: list[int]) -> None:
        super().__init__()
        self.steps, self.layers, channels = steps, nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1)]), 8
        for step, width in zip(steps, widths, strict=True):
            if step == "conv":
                layer: nn.Module = nn.Conv2d(channels, 4 * width, 3, padding=1)
            elif step in ("residual", "depthwise"):
                groups = channels if step == "depthwise" else 1
                layer = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
            elif step == "concat":
                layer = nn.Conv2d(channels, 4 * width, 1)
            elif step == "grouped":
                layer = nn.Conv2d(channels, 4 * width, 3, padding=1, groups=4)
            elif step == "norm":
                layer = nn.BatchNorm2d(channels)
                nn.init.normal_(layer.running_mean)
                nn.init.uniform_(layer.running_var, 0.5, 2)
            elif step == "gate":
                layer = nn.Linear(channels, channels)
            else:
                layer = nn.Identity()
            self.layers.append(layer)
            channels = {"conv": 4 * width, "grouped": 4 * width, "concat": channels + 4 * width}.get(
                step, channels
            )
            if step == "halves":
                channels //= 2
                self.layers[-1] = nn.Conv2d(channels, 4 * width, 1)
                channels = 4 * width
        self.head = nn.Linear(channels * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x)
        for step, layer in zip(self.steps, self.layers[1:], strict=True):
            if step == "residual":
                x = F.relu(x + layer(x))
            elif step == "concat":
                x = torch.cat([x, F.relu(layer(x))], 1)
            elif step == "pool" and x.shape[-1] > 2:
                x = F.avg_pool2d(x, 2)
            elif step == "gate":
                x = x * torch.sigmoid(layer(x.mean((2, 3))))[:, :, None, None]
            elif step == "halves":
                u, v = x.chunk(2, 1)
                x = layer(u * torch.tanh(v))
            elif step != "pool":
                x = F.relu(layer(x))
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(STEP, min_size=1, max_size=6), width=st.integers(1, 3), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_pruned_equals_masked(steps: list[str], width: int, seed: int) -> None:
    torch.manual_seed(seed)
    widths = [1 + (width + i) % 3 for i in range(len(steps))]
    network, x = Random(steps, widths).eval(), torch.randn(2, 3, 8, 8)
    found = dependencies(trace(network, x))
    assert found.groups, found.blocked
    keep = {g.name: torch.randperm(g.size)[: int(torch.randint(1, g.size + 1, ()))] for g in found.groups}
    keep = {name: kept.sort().values for name, kept in keep.items()}
    small, masked = prune(network, x, keep, found), mask(network, keep, found)
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(x), masked(x), atol=1e-5, rtol=1e-5)
