"""Open what the user named: a network and its task, checked against each other before any work starts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from netwright.app.screen import View
from netwright.app.seen import Seen, look
from netwright.core import progress
from netwright.core.checkpoint import load_state, save_state
from netwright.core.errors import BadInput
from netwright.core.fit import Fit
from netwright.core.metrics import score
from netwright.core.network import parameter_count, seeded
from netwright.core.paths import check_writable
from netwright.core.plural import number_of
from netwright.core.task import Task

# What is trained when no network is given: by the meaning of the task's inputs, deliberately generous.
GENEROUS: dict[str, tuple[str, dict[str, Any]]] = {
    "image": ("cnn", {"widths": (64, 128, 256)}),
    "sequence": ("lstm", {}),
    "tokens": ("text-transformer", {}),
    "table": ("mlp", {}),
}
SMALL_IMAGE = 16  # pixels; below, a network has room for more channels at the same cost


@dataclass(frozen=True)
class Subject:
    """The network in question, its task as the network wants to be fed, and how it came here.

    given: by the user, not trained here. seen: what speaks against the figures (app/seen.py).
    """

    name: str
    network: nn.Module
    task: Task
    note: str = ""
    given: bool = True
    seen: Seen = field(default_factory=Seen)

    @property
    def may_have_seen(self) -> bool:
        """Whether the rows that judge the network may be among those that it was trained on."""
        return self.given and not self.task.unseen

    def warn(self, view: View) -> None:
        for warning in self.seen.warnings:
            view.say(f"note: {warning}")


def looked_at(subject: Subject) -> Subject:
    """The same with what is known about the rows that judge it."""
    return replace(subject, seen=look(subject.network, subject.task, subject.given))


def open_subject(
    model: str | nn.Module | None,
    task: str | Task,
    seed: int,
    out: Path | None,
    view: View,
    *,
    task_options: dict[str, Any] | None = None,
    state: Path | None = None,
    trust_pickle: bool = False,
) -> Subject:
    """Load or train the network, open the task, check that they fit, find out who normalises."""
    from netwright.data import takes
    from netwright.data import task as open_task

    if out is not None:
        check_writable(out)
    options = dict(task_options or {})
    network: nn.Module | None = None
    name = ""
    if model is not None:
        from netwright.core.load import check_fits, input_shapes, load

        network = load(model, state=state, trust_pickle=trust_pickle)
        name = Path(model).stem if isinstance(model, str) else type(model).__name__
        size = picture_size(input_shapes(network))
        if size is not None and isinstance(task, str) and "size" not in options and takes(task, "size"):
            options["size"] = size  # pictures are brought to the size that the network takes
    data = open_task(task, seed=seed, **options) if isinstance(task, str) else task
    if network is None:
        network, name = train_generous(data, seed, out, view)
        return looked_at(
            Subject(name, network, data, "trained here, because no network was given", given=False)
        )
    check_fits(network, data)
    if isinstance(model, nn.Module):
        return looked_at(Subject(name, network, data))
    return looked_at(as_the_network_wants(Subject(name, network, data)))


def picture_size(shapes: tuple[tuple[int | None, ...], ...] | None) -> tuple[int, int] | None:
    """Height and width of the pictures that a network's file asks for; None where it asks for none or leaves
    them free."""
    if not shapes or len(shapes[0]) != 3:
        return None
    _, height, width = shapes[0]
    return None if height is None or width is None else (height, width)


def train_generous(task: Task, seed: int, out: Path | None, view: View) -> tuple[nn.Module, str]:
    """Train a network with room to spare, once: an interrupted `improve` finds it again in `out`."""
    from netwright.models import build

    if task.meaning not in GENEROUS:
        raise BadInput(f"task '{task.name}' has inputs of shape {task.input_shape}: give a network for it")
    name, config = GENEROUS[task.meaning]
    if task.meaning == "image" and min(task.input_shape[1:]) < SMALL_IMAGE:
        config = {"widths": (96, 192, 384)}
    with seeded(seed):
        network = build(name, task.input_shape, task.outputs, **config)
    kept = None if out is None else out / f".given-{task.fingerprint()}-{seed}.safetensors"
    if kept is not None and kept.exists():
        network.load_state_dict(load_state(kept)[0])
    else:
        with (
            view.working(f"training a generous {name} on {task.name}") as listener,
            progress.listen(listener),
        ):
            Fit(epochs=15 if len(task.train) < 5_000 else 5, lr=3e-3, seed=seed)(network, task)
        if kept is not None:
            save_state(kept, network.state_dict())
    return network.eval(), f"{task.name}-{name}"


def as_the_network_wants(subject: Subject) -> Subject:
    """Does the file normalise its inputs itself? It says so, or validation scores tell: of the data normalised as
    the task does, only scaled (pixels from 0 to 1), and as they are (0 to 255), the best way is taken.

    Matters for tasks with a normalisation of their own only. Another way than the task's own must be better by
    more than two standard errors.
    """
    from netwright.core.load import normalises
    from netwright.core.metrics import outputs_of
    from netwright.core.split import take

    task = subject.task
    if task.normalise is None:
        return subject
    if normalises(subject.network):
        return Subject(
            subject.name, subject.network, task.raw(), "the file normalises its inputs itself, as it says"
        )
    ways = {"": task, "only scaled": task.scaled(), "as they are": task.raw()}
    scores = {}
    for name, way in ways.items():
        part = take(way.val, 500, seed=0)
        scores[name] = score(*outputs_of(subject.network, part), task.kind)[task.primary]
    best = max(scores, key=lambda name: scores[name])
    if scores[best] <= scores[""] + 2 * (0.25 / min(500, len(task.val))) ** 0.5:
        return subject
    note = f"inputs are fed {best}: so it scores {scores[best]:.3f} on validation data, normalised {scores['']:.3f}"
    return Subject(subject.name, subject.network, ways[best], note)


def describe(subject: Subject) -> str:
    """'digits-cnn (373 k parameters), task digits (1,797 examples, 10 classes)'."""
    task, count = subject.task, parameter_count(subject.network)
    size = f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k" if count >= 1e3 else str(count)
    total = len(task.train) + len(task.val) + len(task.test)
    outputs = number_of(
        task.outputs, {"classification": "class", "multilabel": "label"}.get(task.kind, "output")
    )
    return f"{subject.name} ({size} parameters), task {task.name} ({number_of(total, 'example')}, {outputs})"
