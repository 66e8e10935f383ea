"""LST: Ladder Side-Tuning for Parameter and Memory Efficient Transfer Learning (arXiv 2206.06522)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from netwright.adapt.lst.side_blocks import narrow, private, top
from netwright.adapt.lst.stack import Stack, first, stack_of
from netwright.core import progress
from netwright.core.budget import Budget
from netwright.core.errors import NotApplicable
from netwright.core.fit import Fit
from netwright.core.metrics import outputs_of
from netwright.core.network import call, clone, device_of, evaluating, move, seeded
from netwright.core.split import take
from netwright.core.task import Task


@dataclass(frozen=True)
class LST:
    """Train a thin ladder beside a frozen transformer; no gradient enters the big network.

    The backbone's hidden states h_0 (what enters the first block) and h_1..h_L (the blocks' outputs), each
    (B, T, d), are read without gradient. The side state s (B, T, d / reduction) starts as D_0 h_0; before side
    block i it is mixed, s <- g s + (1 - g) D_i h_i with g = sigmoid(a_i / temperature), one scalar a_i from 0. After
    the last rung U s (B, T, d) goes through what follows the blocks, which stays frozen. If the task has other
    outputs than the network, its last linear layer is replaced and trained too.

    Side blocks are narrow copies of the backbone's, cut by Fisher importance: squared gradients summed over
    `fisher_examples` training examples, one at a time; the chain of kept units starts at the embedding.
    drop: 0-based blocks that get no rung. fit: AdamW 3e-3, batch 100, 20 epochs. warmup: steps in which the rate
    rises to that, at most half of them all.

    Serves every network with a list of like blocks that run one after the other on (B, T, d), found by running it;
    NotApplicable where there is none, where the blocks read another stack's states (an encoder-decoder), or where no
    narrow copy of them runs.

    Differs from the authors' code: the backbone runs in evaluation mode (no dropout), so that its states repeat; the
    rate falls by a cosine, not linearly; where positions are rotary, side blocks have fewer heads instead of narrower
    ones; biases are cut with their rows.
    """

    reduction: int = 8
    temperature: float = 0.1
    drop: tuple[int, ...] = ()
    fisher_examples: int = 1024
    fit: Fit = Fit(epochs=20, lr=3e-3, batch_size=100, weight_decay=0.0)  # noqa: RUF009  frozen
    warmup: int = 500
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        meter = budget.start()
        ladder = self.attach(network, task)
        meter.spend(samples=min(self.fisher_examples, len(task.train)))
        self.schedule(len(task.train))(ladder, task, meter=meter)
        return ladder

    def schedule(self, examples: int) -> Fit:
        """The training of the ladder on so many examples: warm-up steps as the epochs in which `Fit` counts."""
        per_epoch = math.ceil(examples / self.fit.batch_size)
        return replace(self.fit, seed=self.seed, warmup=min(self.warmup / per_epoch, self.fit.epochs / 2))

    def attach(self, network: nn.Module, task: Task) -> Ladder:
        """The network with its ladder, before training."""
        backbone = clone(network).requires_grad_(False).eval()
        stack = stack_of(backbone, task.example(2))
        bad = [i for i in self.drop if not 0 <= i < len(stack.blocks) - 1]
        if bad:
            raise NotApplicable(
                f"blocks {bad} cannot be dropped: there are {len(stack.blocks)}, and the last one stays"
            )
        if self.reduction < 1 or stack.width % self.reduction:
            raise NotApplicable(
                f"hidden states of width {stack.width} cannot be {self.reduction} times narrower"
            )
        with seeded(self.seed):
            head = self._new_head(backbone, task)
            rungs = self._rungs(stack, *fisher(backbone, stack, task, self.fisher_examples))
        container = backbone.get_submodule(stack.name)
        for i, rung in enumerate(rungs):
            container[i] = rung
        return Ladder(backbone, head).to(device_of(network))

    def _rungs(self, stack: Stack, importance: list[dict[str, Tensor]], entry: Tensor) -> list[Rung]:
        """importance: per block, by parameter name. entry: of the hidden units (d,) that enter the first block."""
        side, last = stack.width // self.reduction, len(stack.blocks) - 1
        columns = top(entry, side)
        rungs = []
        for i, (block, given) in enumerate(zip(stack.blocks, stack.calls, strict=True)):
            thin = None
            if i not in self.drop:
                thin, columns = narrow(block, given, self.reduction, importance[i], columns)
            rungs.append(Rung(block, thin, stack.width, side, self.temperature, i == 0, i == last))
        return rungs

    def _new_head(self, backbone: nn.Module, task: Task) -> nn.Module | None:
        outputs, _ = outputs_of(backbone, take(task.val, 2), 2)
        if outputs.shape[1] == task.outputs:
            return None
        name, old = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Linear)][-1]
        if old.out_features != outputs.shape[1]:
            raise NotApplicable(
                f"the task has {task.outputs} outputs, and the network's head is no linear layer"
            )
        parent, _, leaf = name.rpartition(".")
        fresh = nn.Linear(old.in_features, task.outputs, bias=old.bias is not None)
        setattr(backbone.get_submodule(parent), leaf, fresh)
        return fresh


class Rung(nn.Module):
    """A frozen block and, beside it, the step of the ladder.

    The side state travels with the hidden state, as further columns: (B, T, d + d_s) between rungs. The first
    rung takes the plain hidden state (B, T, d), the last one gives U s (B, T, d).
    """

    def __init__(
        self, block: nn.Module, side: nn.Module | None, width: int, side_width: int, temperature: float,
        first: bool, last: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.block, self.side, self.width, self.temperature = block, side, width, temperature
        self.enter = nn.Linear(width, side_width) if first else None
        self.down = nn.Linear(width, side_width) if side is not None else None
        self.gate = nn.Parameter(torch.zeros(())) if side is not None else None
        self.up = nn.Linear(side_width, width) if last else None

    def reset_parameters(self) -> None:
        """The gate at its start; the layers inside have initialisers of their own."""
        if self.gate is not None:
            nn.init.zeros_(self.gate)

    def __getattr__(self, name: str) -> Any:
        """What a network asks of its blocks, the kind of their attention say, the block answers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):  # how to copy a rung is not the block's to say
                raise
            return getattr(super().__getattr__("block"), name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        hidden = x[..., : self.width].detach()
        # a copy: a view would keep the wide tensor in memory until the backward pass
        state = self.enter(hidden) if self.enter is not None else x[..., self.width :].contiguous()
        output = self.block(hidden, *args, **kwargs)
        hidden = first(output)
        if self.side is not None:
            g = torch.sigmoid(self.gate / self.temperature)
            down = self.down(hidden)
            mixed = down + g * (state - down)  # g s + (1 - g) D h, with one tensor less to keep
            state = first(self.side(mixed, *private(args), **private(kwargs)))
        result = self.up(state) if self.up is not None else torch.cat([hidden, state], -1)
        return (result, *output[1:]) if isinstance(output, tuple) else result


class Ladder(nn.Module):
    """The adapted network. Only rungs (and a new head) train; everything frozen stays in evaluation mode."""

    def __init__(self, backbone: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.backbone = backbone
        self._learning = [m for m in backbone.modules() if isinstance(m, Rung)]
        self._head = [head] if head is not None else []

    def forward(self, *inputs: Tensor) -> Any:
        return self.backbone(*inputs)

    def train(self, mode: bool = True) -> Ladder:
        super().train(False)
        self.training = mode
        for rung in self._learning:
            for part in (rung.side, rung.enter, rung.down, rung.up):
                if part is not None:
                    part.train(mode)
        for head in self._head:
            head.train(mode)
        return self


def fisher(
    network: nn.Module, stack: Stack, task: Task, count: int
) -> tuple[list[dict[str, Tensor]], Tensor]:
    """Squared gradients of the loss, summed over examples taken one at a time: per block, by parameter name; and of
    each hidden unit (d,) where the chain begins, in the embedding, or where there is none in what reads it."""
    probe = clone(network)
    blocks = list(probe.get_submodule(stack.name).children())
    wanted = [p for block in blocks for p in block.parameters()]
    if stack.embedding is not None:
        wanted.append(probe.get_parameter(stack.embedding[0]))
    for parameter in wanted:
        parameter.requires_grad_(True)
    device = device_of(network)
    sums = [torch.zeros_like(p) for p in wanted]
    examples = take(task.train, count, seed=0)
    with evaluating(probe):
        for done, (inputs, targets) in enumerate(examples.batches(1)):
            loss = task.loss(call(probe, move(inputs, device)), targets.to(device))
            for total, gradient in zip(
                sums, torch.autograd.grad(loss, wanted, allow_unused=True), strict=True
            ):
                if gradient is not None:
                    total += gradient.square()
            if done % 32 == 0:
                progress.step(done, len(examples), "Fisher importance")
    named = iter(sums)
    importance = [{name: next(named) for name, _ in block.named_parameters()} for block in blocks]
    if stack.embedding is None:
        readers = [v for v in importance[0].values() if v.dim() == 2 and v.shape[1] == stack.width]
        return importance, torch.stack([v.sum(0) for v in readers]).sum(0)
    return importance, next(named).movedim(stack.embedding[1], 0).flatten(1).sum(1)
