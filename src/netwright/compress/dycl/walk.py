"""Flows through a method that part at decisions and meet again."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from netwright.compress.dycl.program import (
    Closure,
    Decide,
    Flow,
    Goto,
    Local,
    LocalDict,
    Raise,
    Recorder,
    Value,
    values_in,
)
from netwright.compress.dycl.source import Names, Source, live, reads
from netwright.core.budget import check_time
from netwright.core.errors import NotApplicable

MOST = 64  # flows side by side
_DEEP = 40  # calls within calls
_PLAIN = (bool, int, float, str, range, torch.dtype, torch.device)


@dataclass(frozen=True)
class Alive:
    """Variables that may still be read: now, behind the current statement, and where a break or continue leads."""

    now: Names = frozenset()
    behind: Names = frozenset()
    leave: Names = frozenset()
    again: Names = frozenset()


class Walk:
    """What all flows share. turns: the most that a loop may take. title: what is said of no line.

    sources: of the calls that are being followed, the method's first; bases: where the operands of each begin. Of each,
    `after` holds the variables that are alive: others are forgotten when flows meet.
    """

    def __init__(self, recorder: Recorder, turns: int, title: str) -> None:
        self.recorder = recorder
        self.turns = turns
        self.title = title
        self.sources: list[Source] = []
        self.bases: list[int] = []
        self.after: list[Alive] = []

    def where(self, node: ast.AST) -> str:
        return self.sources[-1].where(node) if self.sources else self.title

    def refuse(self, node: ast.AST, why: str) -> NotApplicable:
        return NotApplicable(f"{self.where(node)}: {why}")

    def apply(self, flow: Flow, target: Any, *args: Any, node: ast.AST, hint: str = "v") -> Any:
        return self.recorder.apply(flow, target, args, {}, self.where(node), hint)

    def decide(self, flow: Flow, thing: Any, node: ast.AST) -> tuple[list[Flow], list[Flow]]:
        """The flow where a thing is true, and where it is false."""
        if not isinstance(thing, Value):
            if any(True for _ in values_in(thing)) and not isinstance(thing, (Local, LocalDict, tuple)):
                raise self.refuse(node, "its truth cannot be told")
            return ([flow], []) if thing else ([], [flow])
        if thing.fake.numel() != 1:
            raise self.refuse(
                node, f"it decides by a tensor of {thing.fake.numel()} entries; a decision takes a single one"
            )
        line = self.where(node)
        yes, no = self.recorder.block(line), self.recorder.block(line)
        flow.block.end = Decide(thing, yes, no)
        other = flow.fork(no)
        flow.block = yes
        return [flow], [other]

    def fail(self, flow: Flow, message: str) -> None:
        """The flow ends here, as the method would."""
        flow.block.end = Raise(message)

    def body(
        self,
        statements: Iterable[ast.stmt],
        flow: Flow,
        run: Callable[..., list[Flow]],
        after: Names = frozenset(),
        leave: Names | None = None,
        again: Names | None = None,
    ) -> list[Flow]:
        """Flows after the statements, those that left them among them.

        after: the variables alive behind the statements; leave and again: where break and continue lead, by default as
        around these statements.
        """
        check_time("compiling the network")
        steps, outer = tuple(statements), self.after[-1]
        leave = outer.leave if leave is None else leave
        again = outer.again if again is None else again
        flows, left = [flow], []
        for place, statement in enumerate(steps):
            behind = live(steps[place + 1 :], after, leave, again)
            self.after[-1] = Alive(behind | leave | again | reads(statement), behind, leave, again)
            flows = [made for f in flows for made in run(self, statement, f)]
            self.after[-1] = Alive(behind | leave | again, behind, leave, again)
            flows = self.merge(flows, statement)
            left += [f for f in flows if f.kind]
            flows = [f for f in flows if not f.kind]
            if not flows:
                break
        self.after[-1] = outer
        return flows + left

    def inline(
        self, source: Source, names: dict[str, Any], flow: Flow, node: ast.AST, run: Callable[..., list[Flow]]
    ) -> list[Flow]:
        """Follow a call into its function's source; each flow that comes back has the result on its stack."""
        if len(flow.frames) >= _DEEP:
            raise self.refuse(node, f"calls are nested deeper than {_DEEP}")
        self.bases.append(len(flow.stack))
        flow.frames.append(names)
        self.sources.append(source)
        self.after.append(Alive())
        flows = self.body(source.body, flow, run)
        base = self.bases.pop()
        self.sources.pop()
        self.after.pop()
        for f in flows:
            f.frames.pop()
            del f.stack[base:]
            f.push(f.result)
            f.kind, f.result = "", None
        return self.merge(flows, node)

    def merge(self, flows: list[Flow], node: ast.AST) -> list[Flow]:
        """Flows that hold the same, values aside, go on as one."""
        if len(flows) < 2:
            return flows
        groups: dict[Any, list[Flow]] = {}
        for flow in flows:
            self._forget(flow)
            groups.setdefault(key(flow), []).append(flow)
        if len(groups) > MOST:
            raise self.refuse(
                node,
                f"its decisions leave more than {MOST} states that differ in more than the values of tensors",
            )
        return [self._meet(group, node) if len(group) > 1 else group[0] for group in groups.values()]

    def _forget(self, flow: Flow) -> None:
        if not self.after:
            return
        alive, frame = self.after[-1].now, flow.frames[-1]
        for thing in frame.values():
            if isinstance(thing, Closure):
                alive |= reads(thing.node)
        for name in [n for n in frame if n not in alive or flow.kind == "return"]:
            del frame[name]

    def _meet(self, flows: list[Flow], node: ast.AST) -> Flow:
        """A new block that all of them lead to, where values that differ have one name."""
        block = self.recorder.block(self.where(node))
        columns = list(dict.fromkeys(zip(*(values_in(flow.held) for flow in flows), strict=True)))
        joined: dict[Value, Value] = {}
        for column in columns:
            first = column[0]
            if any(value is not first for value in column):
                joined[first] = self.recorder.value(first.name, first.fake, first.number)
                if any(value.storage in self.recorder.own for value in column):
                    self.recorder.own.add(first.storage)
        for place, flow in enumerate(flows):
            flow.block.moves = [(joined[c[0]], c[place]) for c in columns if c[0] in joined]
            flow.block.end = Goto(block)
        kept = flows[0]
        kept.replace(lambda value: joined.get(value, value))
        kept.block = block
        return kept


def key(flow: Flow) -> Any:
    """Equal for flows that differ in the values of tensors alone."""
    seen: dict[Any, int] = {}
    names = tuple(tuple(sorted(frame)) for frame in flow.frames)
    return flow.kind, names, _shape(flow.held, seen)


def _shape(thing: Any, seen: dict[Any, int]) -> Any:
    if isinstance(thing, Value):
        own = seen.setdefault(thing, len(seen)), seen.setdefault(("storage", thing.storage), len(seen))
        return "value", tuple(thing.fake.shape), thing.fake.dtype, thing.number, own
    if isinstance(thing, (Local, LocalDict)):
        if id(thing) in seen:
            return "again", seen[id(thing)]
        seen[id(thing)] = len(seen)
        inner = thing if isinstance(thing, Local) else thing.items()
        return type(thing), tuple(_shape(item, seen) for item in inner)
    if isinstance(thing, slice):
        return slice, _shape((thing.start, thing.stop, thing.step), seen)
    if isinstance(thing, tuple):
        return type(thing).__name__, tuple(_shape(item, seen) for item in thing)
    if thing is None or isinstance(thing, _PLAIN):
        return type(thing), repr(thing)
    if hasattr(thing, "__func__"):
        return id(thing.__func__), id(thing.__self__)
    return id(thing)
