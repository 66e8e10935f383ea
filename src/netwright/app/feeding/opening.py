"""Open what the user named: a network and its task, checked against each other before any work starts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from netwright.app.feeding.seen import Seen, look
from netwright.app.feeding.suspicion import guesses
from netwright.app.screen import View
from netwright.core import progress
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.files.checkpoint import load_state, save_state
from netwright.core.files.paths import check_writable
from netwright.core.fit import Fit
from netwright.core.metrics import outputs_of
from netwright.core.network import parameter_count, seeded
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

    given: by the user, not trained here. seen: what speaks against the figures (app/feeding/seen.py).
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
    as_it_is: bool = False,
    device: str = "cpu",
) -> Subject:
    """Load or train the network, open the task, check that they fit, find out how the network is to be fed.

    as_it_is: it is fed as the task has the data, whatever comes of it. device: where a network is trained, if none is
    given; it is on the CPU when it comes back.
    """
    from netwright.data import takes
    from netwright.data import task as open_task

    if out is not None:
        check_writable(out)
    options = dict(task_options or {})
    network: nn.Module | None = None
    name = ""
    if model is not None:
        from netwright.core.files.load import load

        network = load(model, state=state, trust_pickle=trust_pickle)
        name = Path(model).stem if isinstance(model, str) else type(model).__name__
        if isinstance(task, str):
            wanted = {**asked_pictures(network), **asked_columns(network), **asked_arrays(network)}
            options = {**{k: v for k, v in wanted.items() if takes(task, k)}, **options}
    data = open_task(task, seed=seed, **options) if isinstance(task, str) else task
    refuse_positions(data)
    if network is None:
        network, name = train_generous(data, seed, out, view, device)
        return looked_at(
            Subject(name, network, data, "trained here, because no network was given", given=False)
        )
    return looked_at(as_the_network_wants(name, network, data, as_it_is, view))


def refuse_positions(task: Task) -> None:
    """NotApplicable where each position of an input has a class of its own, as in language."""
    targets = getattr(task.val, "targets", None)
    if task.kind == "classification" and isinstance(targets, Tensor) and targets.dim() > 1:
        raise NotApplicable(
            f"'{task.name}' asks for an answer at every position, which this command cannot judge yet; call the "
            "method from Python, which takes such a task"
        )


def asked_pictures(network: nn.Module) -> dict[str, Any]:
    """Size and channels of the pictures that a network's file asks for, with the channels first or last; empty where
    it asks for none or leaves them free."""
    from netwright.core.files.load import input_shapes

    shapes = input_shapes(network)
    if not shapes or len(shapes[0]) != 3:
        return {}
    first, second, third = shapes[0]
    last = third in (1, 3) and first not in (1, 3)
    channels, height, width = (third, first, second) if last else (first, second, third)
    if height is None or width is None:
        return {}
    return {"size": (height, width), **({"channels": channels} if channels in (1, 3) else {})}


def asked_columns(network: nn.Module) -> dict[str, Any]:
    """A table's columns as the network's file names them: by its signature, or one input for each column."""
    from netwright.core.files.facts import facts_of, signature_of
    from netwright.core.signature import Feature

    told = signature_of(network)
    if told is not None and all(i.features for i in told.inputs):
        own = {i.name: i.features for i in told.inputs}
        return {"columns": own if len(own) > 1 else next(iter(own.values()))}
    facts = facts_of(network)
    inputs = facts.get("inputs", ())
    if len(inputs) < 2 or any(tuple(shape) != (1,) for _, shape in inputs):
        return {}
    codes = tuple(facts.get("vocabulary", ()))
    types = facts.get("types", [""] * len(inputs))
    return {
        "columns": {
            name: (Feature(name, codes=codes if kind == "text" else ()),)
            for (name, _), kind in zip(inputs, types, strict=True)
        }
    }


def asked_arrays(network: nn.Module) -> dict[str, Any]:
    """The names of a network's inputs, by which an .npz holds them."""
    from netwright.core.files.facts import facts_of

    names = [name for name, _ in facts_of(network).get("inputs", ())]
    return {"inputs": names} if names else {}


def train_generous(
    task: Task, seed: int, out: Path | None, view: View, device: str = "cpu"
) -> tuple[nn.Module, str]:
    """Train a network with room to spare, once: an interrupted `improve` finds it again in `out`. BadInput where the
    time for it ends before it knows anything."""
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
        began = time.monotonic()
        with (
            view.working(f"training a generous {name} on {task.name}") as listener,
            progress.listen(listener),
        ):
            network.to(device)
            history = Fit(epochs=15 if len(task.train) < 5_000 else 5, lr=3e-3, seed=seed)(network, task)
            network.cpu()
        if history.stopped == "budget" and guesses(*outputs_of(network, task.val), task.kind):
            raise BadInput(
                f"the network trained here has learned nothing in {time.monotonic() - began:.0f} s; give a "
                "larger --budget, or a network"
            )
        if kept is not None:
            save_state(kept, network.state_dict())
    return network.eval(), f"{task.name}-{name}"


def as_the_network_wants(name: str, network: nn.Module, task: Task, as_it_is: bool, view: View) -> Subject:
    """Network and task brought together: precision, layout of pictures, outputs as scores, and the way that the inputs
    are fed. Does the file normalise them itself? It says so, or the scores of several ways tell."""
    from netwright.app.feeding.fed import fed
    from netwright.core.files.facts import facts_of, normalises
    from netwright.core.files.layouts import laid_out
    from netwright.core.files.rows import in_batches
    from netwright.core.files.scores import scores_for
    from netwright.core.files.single import single

    notes = []
    inside = normalises(network) and task.normalise is not None
    if inside:
        task = task.raw()
        notes.append("the file normalises its inputs itself, as it says")
    elif task.normalise is not None and facts_of(network).get("types", ())[:1] == ["uint8"]:
        task, inside = task.raw(), True
        notes.append("the file takes bytes: pixels as they are")
    network, rows = in_batches(network, task)
    network, text = single(network, task.example(8))
    said = [facts_of(network).get("scores", ""), rows, text]
    network, task, text = laid_out(network, task)
    said.append(text)
    try:
        network, task, text = scores_for(network, task)
        said.append(text)
    except Exception:
        pass  # it does not run on the task as it is: `fed` finds a way that it does, or says why not
    found = fed(network, task, believed=inside, as_it_is=as_it_is)
    said += [found.note, found.warning and f"warning: {found.warning}"]
    for text in filter(None, said):
        view.say(text)
        notes.append(text)
    return Subject(name, network, found.task, "; ".join(notes))


def describe(subject: Subject) -> str:
    """'digits-cnn (373 k parameters), task digits (1,797 examples, 10 classes)'."""
    task, count = subject.task, parameter_count(subject.network)
    size = f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k" if count >= 1e3 else str(count)
    total = len(task.train) + len(task.val) + len(task.test)
    outputs = number_of(
        task.outputs, {"classification": "class", "multilabel": "label"}.get(task.kind, "output")
    )
    return f"{subject.name} ({size} parameters), task {task.name} ({number_of(total, 'example')}, {outputs})"
