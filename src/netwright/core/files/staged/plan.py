"""The plan of a staged network: which static part runs when. Data, never code: it is interpreted, step by step.

A plan is a list of blocks. A block runs at most one part (an ONNX file), renames values, and ends: it goes to a later
block, chooses one of two by a value, gives the result, or fails as the network itself would have. Since every block
leads to later ones only, every plan ends.

Results are values by name, numbers, or tuples, lists and dictionaries of them; as JSON: "name", {"number": "name"},
{"tuple": [...]}, {"list": [...]}, {"dict": {...}}, {"is": constant}.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from netwright.core.errors import BadInput

VERSION = 1


@dataclass(frozen=True)
class Name:
    """A value of the plan. number: it is handed out as a Python number."""

    name: str
    number: bool = False


@dataclass(frozen=True)
class Jump:
    to: str


@dataclass(frozen=True)
class Choice:
    """To `yes` where the value `test` (one entry) is true, else to `no`."""

    test: str
    yes: str
    no: str


@dataclass(frozen=True)
class Give:
    """The end: the result, in which every value is a `Name`."""

    result: Any


@dataclass(frozen=True)
class Fail:
    """The network itself would have raised an error here."""

    message: str


End: TypeAlias = Jump | Choice | Give | Fail


@dataclass(frozen=True)
class Block:
    """run: the part, '' for none; it is given the values `given` and its results are called `taken`.

    moves: (new name, value) pairs, all at once. line: of the source, for readers.
    """

    name: str
    line: str
    run: str
    given: tuple[str, ...]
    taken: tuple[str, ...]
    moves: tuple[tuple[str, str], ...]
    end: End


@dataclass(frozen=True)
class Input:
    name: str
    shape: tuple[int, ...]
    type: str


@dataclass(frozen=True)
class Plan:
    """batch: the only one that the parts take; None: any. constants: values that stand from the start."""

    inputs: tuple[Input, ...]
    batch: int | None
    constants: tuple[str, ...]
    blocks: tuple[Block, ...]

    @cached_property
    def by_name(self) -> dict[str, Block]:
        return {block.name: block for block in self.blocks}

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(block.run for block in self.blocks if block.run))

    @property
    def decisions(self) -> int:
        return sum(isinstance(block.end, Choice) for block in self.blocks)

    def __str__(self) -> str:
        """For people: the plan as a page of text."""
        lines = [f"inputs: {', '.join(f'{i.name} {i.type} {list(i.shape)}' for i in self.inputs)}", ""]
        for block in self.blocks:
            lines.append(f"{block.name}:" + (f"  # {block.line}" if block.line else ""))
            if block.run:
                taken, given = ", ".join(block.taken), ", ".join(block.given)
                lines.append(f"    {taken} = {block.run}({given})")
            lines += [f"    {target} = {source}" for target, source in block.moves]
            lines.append(f"    {_words(block.end)}")
        return "\n".join(lines) + "\n"


def _words(end: End) -> str:
    match end:
        case Jump(to):
            return f"go to {to}"
        case Choice(test, yes, no):
            return f"if {test}: go to {yes}, else: go to {no}"
        case Give(result):
            return f"return {_result_words(result)}"
        case Fail(message):
            return f"fail: {message}"


def _result_words(result: Any) -> str:
    match result:
        case Name(name, number):
            return f"number({name})" if number else name
        case tuple():
            return f"({', '.join(map(_result_words, result))}{',' if len(result) == 1 else ''})"
        case list():
            return f"[{', '.join(map(_result_words, result))}]"
        case dict():
            return f"{{{', '.join(f'{k!r}: {_result_words(v)}' for k, v in result.items())}}}"
    return repr(result)


def names_of(result: Any) -> Iterator[str]:
    """The values in a result."""
    match result:
        case Name(name, _):
            yield name
        case tuple() | list():
            for item in result:
                yield from names_of(item)
        case dict():
            for item in result.values():
                yield from names_of(item)


def to_json(plan: Plan) -> dict[str, Any]:
    return {
        "version": VERSION,
        "inputs": [{"name": i.name, "shape": list(i.shape), "type": i.type} for i in plan.inputs],
        "batch": plan.batch,
        "constants": list(plan.constants),
        "blocks": [_block_json(block) for block in plan.blocks],
    }


def _block_json(block: Block) -> dict[str, Any]:
    made: dict[str, Any] = {"name": block.name, "line": block.line}
    if block.run:
        made |= {"run": block.run, "given": list(block.given), "taken": list(block.taken)}
    if block.moves:
        made["moves"] = dict(block.moves)
    match block.end:
        case Jump(to):
            made["then"] = {"go": to}
        case Choice(test, yes, no):
            made["then"] = {"if": test, "yes": yes, "no": no}
        case Give(result):
            made["then"] = {"return": _result_json(result)}
        case Fail(message):
            made["then"] = {"fail": message}
    return made


def _result_json(result: Any) -> Any:
    match result:
        case Name(name, number):
            return {"number": name} if number else name
        case tuple():
            return {"tuple": [_result_json(item) for item in result]}
        case list():
            return {"list": [_result_json(item) for item in result]}
        case dict():
            return {"dict": {key: _result_json(item) for key, item in result.items()}}
    return {"is": result}


def from_json(found: Any) -> Plan:
    """The plan that JSON tells; BadInput where it tells none, or one that could not run to its end."""
    try:
        if found["version"] != VERSION:
            raise BadInput(f"the plan has version {found['version']}; this Netwright reads version {VERSION}")
        batch = found["batch"]
        plan = Plan(
            tuple(_input(i) for i in found["inputs"]),
            None if batch is None else int(batch),
            tuple(map(_text, found["constants"])),
            tuple(_block(b) for b in found["blocks"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"the plan cannot be read ({type(error).__name__}: {error})") from None
    check(plan)
    return plan


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"a name was expected, not {value!r}")
    return value


def _input(found: Any) -> Input:
    return Input(_text(found["name"]), tuple(map(int, found["shape"])), _text(found["type"]))


def _block(found: Any) -> Block:
    then = found["then"]
    end: End
    if "go" in then:
        end = Jump(_text(then["go"]))
    elif "if" in then:
        end = Choice(_text(then["if"]), _text(then["yes"]), _text(then["no"]))
    elif "return" in then:
        end = Give(_result(then["return"]))
    else:
        end = Fail(str(then["fail"]))
    run = found.get("run", "")
    return Block(
        _text(found["name"]),
        str(found.get("line", "")),
        _text(run) if run else "",
        tuple(map(_text, found.get("given", ()))),
        tuple(map(_text, found.get("taken", ()))),
        tuple((_text(k), _text(v)) for k, v in found.get("moves", {}).items()),
        end,
    )


def _result(found: Any) -> Any:
    if isinstance(found, str):
        return Name(_text(found))
    (kind, inner), *rest = found.items()
    if rest:
        raise ValueError(f"a result is one thing, not {found!r}")
    match kind:
        case "number":
            return Name(_text(inner), number=True)
        case "tuple":
            return tuple(map(_result, inner))
        case "list":
            return list(map(_result, inner))
        case "dict":
            return {key: _result(item) for key, item in inner.items()}
        case "is":
            if inner is not None and not isinstance(inner, (bool, int, float, str)):
                raise ValueError(f"{inner!r} is no constant")
            return inner
    raise ValueError(f"a result of kind '{kind}' is not known")


def check(plan: Plan) -> None:
    """BadInput unless every block leads to later ones and reads only what stands on every way to it."""
    order = {block.name: i for i, block in enumerate(plan.blocks)}
    if not plan.blocks or len(order) != len(plan.blocks):
        raise BadInput("the plan has no blocks, or two of one name")
    start = {*plan.constants, *(i.name for i in plan.inputs)}
    standing: dict[str, set[str]] = {plan.blocks[0].name: start}
    for place, block in enumerate(plan.blocks):
        known = standing.get(block.name)
        if known is None:
            continue  # nothing leads here
        _need(block, block.given, known)
        known = known | set(block.taken)
        _need(block, (source for _, source in block.moves), known)
        known = known | {target for target, _ in block.moves}
        following: tuple[str, ...]
        match block.end:
            case Give(result):
                _need(block, names_of(result), known)
                continue
            case Fail():
                continue
            case Choice(test, yes, no):
                _need(block, (test,), known)
                following = (yes, no)
            case Jump(to):
                following = (to,)
        for name in following:
            if order.get(name, -1) <= place:
                raise BadInput(f"the plan's block '{block.name}' leads to '{name}', which is no later block")
            standing[name] = standing[name] & known if name in standing else set(known)


def _need(block: Block, names: Any, known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise BadInput(f"the plan's block '{block.name}' reads '{name}' before it is there")
