"""Weights and inputs of all layers but the first and the last as signs, by one of eight operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from netwright.compress.parts.binary import OPERATORS, advance, learning, packed, schedule
from netwright.core import progress
from netwright.core.budget import Budget
from netwright.core.errors import BadInput
from netwright.core.fit import Fit
from netwright.core.task import Task
from netwright.core.weights import kernels


@dataclass(frozen=True)
class BiBench:
    """Train a network whose weights and inputs are -1 or 1, and keep a bit for each weight.

    BiBench (arXiv 2301.11233) puts eight published operators side by side; each is here with its own forward pass and
    its own gradient (compress/parts/binary/operators.py). For weights w and inputs x:

    - 'bnn': signs of both, gradients that stop beyond 1 (arXiv 1602.02830).
    - 'xnor': weights times the mean |w| of their output, outputs times the mean |x| of their window (arXiv 1603.05279).
    - 'dorefa': weights times the mean |w| of the layer, their gradient unchanged (arXiv 1606.06160).
    - 'bireal': the slope of two parabolas for inputs; gradients of weights know mean |w| (arXiv 1808.00278).
    - 'xnor++': learned scales for each output, row and column (arXiv 1909.13863).
    - 'react': learned shifts before the signs, ReLUs with a learned slope and shifts (arXiv 2003.03488).
    - 'recu': weights far out drawn back by a quantile that widens; a learned scale (arXiv 2103.12369).
    - 'fda': the slope of sign's Fourier series, and a noise that fades (arXiv 2103.00841).

    The first and the last layer of every path stay real, and so do grouped convolutions, recurrent layers and the
    projections inside `nn.MultiheadAttention`. Training starts from the given network's weights (Adam, cosine, no
    weight decay, which would hold scales and latent weights near 0); the budget may end it earlier, schedules squeezed
    into it. Raises NotApplicable where no layer is left or the network is not float32.

    A layer's inputs pass a batch norm without scale and shift before their signs, for every operator alike (XNOR-Net's
    order), since networks come with ReLUs, whose results are never negative; after training it is a threshold. Where we
    differ from the papers besides: 'dorefa' has inputs of -1 and 1, as BiBench has it, where its own paper has 0 and 1;
    ReLUs that are no modules, or run more than once, stay what they are with 'react'.

    On the processor layers run in words of 64 signs (core/weights/xnor.py; numba, the extra `kernels`), sums equal to
    those of floats to the bit. ONNX and .pt2 files hold the bits too, but unpack them and compute in float, for no
    standard operator multiplies signs: there what this saves is bytes. Files cannot be trained on.

    From Python, `Tracks` ranks the operators on networks of one's own, by the benchmark's six tracks.
    """

    operator: Literal["bnn", "xnor", "dorefa", "bireal", "xnor++", "react", "recu", "fda"] = "react"
    epochs: float = 200
    batch_size: int = 128
    lr: float = 1e-3
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        if not kernels.available():
            progress.remark("no faster without numba: pip install 'netwright[kernels]'")
        return self.pair(network, task, budget)[1]

    def pair(self, network: nn.Module, task: Task, budget: Budget) -> tuple[nn.Module, nn.Module]:
        """The trained network in float, and the one with bits."""
        if self.operator not in OPERATORS:
            raise BadInput(f"no operator named '{self.operator}'; use {', '.join(OPERATORS)}")
        meter = budget.start()
        trained = learning(network, task, OPERATORS[self.operator], self.seed)
        fit = Fit(
            epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, weight_decay=0.0, seed=self.seed
        )
        if not meter.exhausted:
            fit(trained, task, meter=meter, on_step=schedule(fit, task, meter))
        advance(trained, 1.0)
        return trained, packed(trained)
