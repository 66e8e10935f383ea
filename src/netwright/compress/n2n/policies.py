"""The two recurrent policies, and the gradient by which they learn from rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical

HIDDEN = 30
MULTIPLIERS = (
    0.25,
    *(0.5,) * 5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
)  # five of eleven choices are a half, as its authors have it


@dataclass(frozen=True)
class Drawn:
    """actions: (L,), whether to keep, or the place of a multiplier. log: of their probability, with gradients."""

    actions: Tensor
    log: Tensor


class Removal(nn.Module):
    """Keep or drop each layer: a bidirectional LSTM of two layers reads the network, described (L, features)."""

    def __init__(self, features: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.reader = nn.LSTM(features, hidden, 2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, 1)

    def forward(self, described: Tensor) -> Tensor:
        """Probabilities (L,) of being kept, as logits."""
        return self.head(self.reader(described[None])[0])[0, :, 0]

    def draw(self, described: Tensor, free: Tensor, generator: torch.Generator) -> Drawn:
        """free (L,): layers about which there is a choice; the others are kept, and count for nothing."""
        logits = self(described)
        keep = torch.rand(len(logits), generator=generator) < logits.detach().sigmoid()
        return self.scored(described, free, torch.where(free, keep, True))

    def scored(self, described: Tensor, free: Tensor, keep: Tensor) -> Drawn:
        log = Bernoulli(logits=self(described)).log_prob(keep.float())
        return Drawn(keep, torch.where(free, log, 0.0).sum())


class Shrinkage(nn.Module):
    """A multiplier for each attribute, one after the other: an LSTM reads its description (features) and what was
    chosen for the one before."""

    def __init__(self, features: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(features + len(MULTIPLIERS), hidden)
        self.head = nn.Linear(hidden, len(MULTIPLIERS))

    def draw(self, described: Tensor, generator: torch.Generator) -> Drawn:
        return self._walk(described, None, generator)

    def scored(self, described: Tensor, actions: Tensor) -> Drawn:
        return self._walk(described, actions, None)

    def _walk(self, described: Tensor, given: Tensor | None, generator: torch.Generator | None) -> Drawn:
        state, before = None, torch.zeros(len(MULTIPLIERS))
        chosen, logs = [], []
        for place, features in enumerate(described):
            state = self.cell(torch.cat([features, before])[None], state)
            choice = Categorical(logits=self.head(state[0])[0])
            action = (
                torch.multinomial(choice.probs.detach(), 1, generator=generator)[0]
                if given is None
                else given[place]
            )
            logs.append(choice.log_prob(action))
            chosen.append(action)
            before = nn.functional.one_hot(action, len(MULTIPLIERS)).float()
        return Drawn(torch.stack(chosen), torch.stack(logs).sum())


class Baseline:
    """The mean reward of all batches so far."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def after(self, rewards: Sequence[float]) -> float:
        self.total += sum(rewards) / len(rewards)
        self.count += 1
        return self.total / self.count


def surrogate(drawn: Sequence[Drawn], rewards: Sequence[float], baseline: float) -> Tensor:
    """What to minimise: its gradient is REINFORCE's, each rollout credited with its own reward over the baseline."""
    advantages = torch.tensor(rewards) - baseline
    return -(torch.stack([d.log for d in drawn]) * advantages).mean()
