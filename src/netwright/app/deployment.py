"""How a network will be used: its latency is measured so, in ONNX Runtime and PyTorch alike."""

from __future__ import annotations

import os
from dataclasses import dataclass

from netwright.core.errors import BadInput


@dataclass(frozen=True)
class Deployment:
    """batch: examples in one call; threads: of the processor, for one call. A latency is that of one call."""

    batch: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("batch", "threads"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} {getattr(self, name)}: give a whole number from 1")

    def __str__(self) -> str:
        """'one thread, batch 1'"""
        return f"{'one thread' if self.threads == 1 else f'{self.threads} threads'}, batch {self.batch}"

    @property
    def usual(self) -> bool:
        """Whether it is what is measured where nobody says otherwise."""
        return self == Deployment()

    @property
    def question(self) -> dict[str, str]:
        """Its part of what a study is about: figures of another deployment do not compare."""
        return {} if self.usual else {"deployment": str(self)}


def check_threads(deployment: Deployment) -> None:
    """BadInput for more threads than this process may use at once: they would take turns, and tell nothing."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if deployment.threads > count:
        raise BadInput(
            f"threads {deployment.threads}: this machine has {count} to lend, so latency cannot be measured so here"
        )
