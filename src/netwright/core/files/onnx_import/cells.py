"""Recurrent layers that torch has none of."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResetFirstGRU(nn.Module):
    """A GRU whose reset gate acts on the state before the recurrent weight (ONNX's linear_before_reset 0, and the
    form of the paper that introduced it, arXiv 1406.1078); torch's nn.GRU resets behind it.

    x (T, B, I), or (B, T, I) with batch_first, and a state (D, B, H), zero if absent -> outputs (T, B, D * H) and the
    last states (D, B, H). Weights are named, laid out and ordered as nn.GRU's. Tracing it unrolls the steps.
    """

    def __init__(self, inputs: int, hidden: int, bias: bool = True, bidirectional: bool = False) -> None:
        super().__init__()
        self.bidirectional, self.batch_first = bidirectional, False
        for suffix in self._suffixes():
            for name, width in (("weight_ih", inputs), ("weight_hh", hidden)):
                self.register_parameter(f"{name}_l0{suffix}", nn.Parameter(torch.empty(3 * hidden, width)))
            for name in ("bias_ih", "bias_hh"):
                held = nn.Parameter(torch.empty(3 * hidden)) if bias else None
                self.register_parameter(f"{name}_l0{suffix}", held)
        self.reset_parameters()

    @property
    def hidden_size(self) -> int:
        return int(self.get_parameter("weight_hh_l0").shape[1])

    def reset_parameters(self) -> None:
        """As nn.GRU draws them."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def _suffixes(self) -> Iterator[str]:
        yield from ("", "_reverse") if self.bidirectional else ("",)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.batch_first:
            x = x.transpose(0, 1)
        made = [
            self._direction(x, suffix, None if state is None else state[d])
            for d, suffix in enumerate(self._suffixes())
        ]
        output = torch.cat([steps for steps, _ in made], -1)
        last = torch.stack([h for _, h in made])
        return (output.transpose(0, 1) if self.batch_first else output), last

    def _direction(self, x: Tensor, suffix: str, h: Tensor | None) -> tuple[Tensor, Tensor]:
        """All states (T, B, H) of one direction, and the one that it ends with."""
        w_in, w, b_in, b = (
            getattr(self, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        w_reset, w_update, w_new = w.chunk(3)
        b_reset, b_update, b_new = (None, None, None) if b is None else b.chunk(3)
        given = F.linear(x, w_in, b_in).unbind(0)
        states = []
        for at in reversed(given) if suffix else given:
            reset, update, new = at.chunk(3, -1)
            if h is None:  # a state of zeros
                h = torch.zeros_like(new)
            r = torch.sigmoid(reset + F.linear(h, w_reset, b_reset))
            z = torch.sigmoid(update + F.linear(h, w_update, b_update))
            n = torch.tanh(new + F.linear(r * h, w_new, b_new))
            h = (1 - z) * n + z * h
            states.append(h)
        assert h is not None
        return torch.stack(states[::-1] if suffix else states), h
