"""The networks that many claims share: which, on which data, how trained, and how good they must be to be a bed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from netwright.core.fit import Fit


@dataclass(frozen=True)
class Bed:
    """A network (by name and configuration), a task (by name and options), and how it is trained.

    at_least: test accuracy without which a converged bed is none; 0 for the quick ones, which are not converged and
    say so by their figures. about: one line for a person.
    """

    model: str
    task: str
    fit: Fit
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    at_least: float = 0.0
    about: str = ""


_STEPS = {"schedule": "steps", "milestones": (0.5, 0.74), "mixed_precision": True, "validate": True}

# Trained to the end: the rate falls for the last time before the last quarter, so that what the last quarter gains is
# what going on would gain. `netwright beds` trains them, once per machine.
CONVERGED = {
    "fashion": Bed(
        "resnet", "fashion-mnist", Fit(epochs=14, lr=4e-3, weight_decay=2e-2, warmup=1.0, **_STEPS),  # type: ignore[arg-type]
        {"depth": 8, "width": 16}, at_least=0.92,
        about="ResNet-8 on all of Fashion-MNIST, flips and crops; 6 to 10 minutes a seed on one core with bfloat16",
    ),
    "sst2": Bed(
        "text-transformer", "sst2",
        Fit(epochs=16, batch_size=64, lr=1e-3, weight_decay=0.1, warmup=1.0, label_smoothing=0.1, clip=1.0,
            schedule="steps", milestones=(0.5, 0.74), validate=True),
        {"width": 64, "depth": 2, "dropout": 0.3}, at_least=0.77,
        about="two-layer transformer on the sentences of sst2, from new weights; 2 minutes a seed on one core",
    ),
    "overconfident": Bed(
        "resnet", "fashion-mnist",
        Fit(epochs=30, lr=3e-3, weight_decay=0.0, augment=False, schedule="steps", milestones=(0.5, 0.74),
            validate=True),
        {"depth": 8, "width": 16}, {"limit": 5000}, at_least=0.85,
        about="ResNet-8 on 5,000 images without augmentation or decay: right on all of them; 5 minutes a seed",
    ),
    "language": Bed(
        "causal-transformer", "python-source",
        Fit(epochs=4, batch_size=32, lr=2e-3, weight_decay=0.1, warmup=0.25, clip=1.0, **_STEPS),  # type: ignore[arg-type]
        {"width": 128, "depth": 4, "heads": 4}, {"limit": 12_800}, at_least=0.55,
        about="decoder with SwiGLU of 384 on 1.6 MB of Python sources, byte by byte; accuracy is that of the next byte",
    ),
    "cifar10": Bed(
        "resnet", "cifar10",
        Fit(epochs=60, optimiser="sgd", lr=0.1, weight_decay=5e-4, warmup=2.0, **_STEPS),  # type: ignore[arg-type]
        {"depth": 20, "width": 16}, at_least=0.85,
        about="ResNet-20 on CIFAR-10, flips and crops; for a GPU, or a night",
    ),
}  # fmt: skip

# Seconds to a minute; not converged.
QUICK = {
    # 8x8 digits, a few seconds
    "digits-cnn": Bed("cnn", "digits", Fit(epochs=15, lr=3e-3), {"widths": (16, 32, 64)}),
    "digits-resnet": Bed("resnet", "digits", Fit(epochs=15, lr=3e-3), {"depth": 8, "width": 16}),
    "digits-vit": Bed("vit", "digits", Fit(epochs=40, batch_size=64, lr=2e-3, warmup=2)),
    # eight layers alike, for claims that compare layers; relu1 to relu8 are their outputs
    "digits-cnn-deep": Bed("cnn", "digits", Fit(epochs=15, lr=3e-3), {"widths": (16,) * 8}),
    # 28x28 Fashion-MNIST, 10,000 training images, under a minute
    "fashion-resnet": Bed(
        "resnet", "fashion-mnist", Fit(epochs=5, lr=3e-3), {"depth": 8, "width": 16}, {"limit": 10_000}
    ),
    # trained long on little data: nearly perfect there, too sure of itself elsewhere; half a minute
    "fashion-overconfident": Bed(
        "cnn", "fashion-mnist", Fit(epochs=20, lr=3e-3, weight_decay=0.0, schedule="constant", augment=False),
        {"widths": (16, 32, 64)}, {"limit": 3000},
    ),
    # over 90 %, with room to spare: about 10 minutes on one core
    "fashion-resnet-wide": Bed(
        "resnet", "fashion-mnist", Fit(epochs=4, lr=4e-3, schedule="one-cycle"),
        {"depth": 8, "width": 32}, {"limit": 30_000},
    ),
}  # fmt: skip

BEDS = {**QUICK, **CONVERGED}
