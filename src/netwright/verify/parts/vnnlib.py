"""VNN-LIB 1.0: what a verifier is asked in the competitions, read, decided and checked.

An instance describes what would be unsafe: inputs in a box whose outputs satisfy linear inequalities, in any nesting
of `and` and `or`. It is kept in disjunctive form: the instance is violated if some case has a point.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netwright.core.budget import Budget
from netwright.core.contracts import Answer, Box
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.network import device_of, evaluating
from netwright.verify.parts.attack import Attack
from netwright.verify.parts.bounds import Interval, crown_bounds, read, tightest


@dataclass(frozen=True)
class Case:
    """Unsafe: lower <= x <= upper (N,) and rows (R, M) @ y <= limits (R,), float64. No rows: any output is unsafe."""

    lower: np.ndarray
    upper: np.ndarray
    rows: np.ndarray
    limits: np.ndarray

    def met(self, x: np.ndarray, y: np.ndarray, tolerance: float = 0.0) -> bool:
        """Whether this input with this output is a point of the case."""
        inside = np.all(x >= self.lower - tolerance) and np.all(x <= self.upper + tolerance)
        return bool(inside and np.all(self.rows @ y.astype(float) <= self.limits + tolerance))


@dataclass(frozen=True)
class Decision:
    """holds: no point of any case. violated: `witness` (N,) is one, by a forward pass of the network."""

    answer: Answer
    witness: np.ndarray | None = None


Atom = tuple[dict[str, float], float]  # sum of coefficient * variable <= limit


def read_vnnlib(path: str | Path) -> list[Case]:
    """The cases of a .vnnlib file. A file that is not VNN-LIB 1.0 is a BadInput."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as text ({error})") from None
    try:
        forms = list(_forms(re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text))))
        names = [form[1] for form in forms if form[0] in ("declare-const", "declare-fun")]
        asserted = [_disjuncts(form[1]) for form in forms if form[0] == "assert"]
        sizes = tuple(sum(name.startswith(kind) for name in names) for kind in ("X_", "Y_"))
        return [_case([a for part in chosen for a in part], *sizes) for chosen in product(*asserted)]
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is no VNN-LIB 1.0 property ({error})") from None


def _forms(tokens: list[str]) -> Iterator[list[Any]]:
    """The s-expressions of the file."""
    stack: list[list[Any]] = [[]]
    for token in tokens:
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            if not stack:
                raise ValueError("a parenthesis closes nothing")
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    if len(stack) != 1:
        raise ValueError("a parenthesis is not closed")
    yield from stack[0]


def _disjuncts(form: list[Any]) -> list[list[Atom]]:
    """A formula as a list of conjunctions."""
    head = form[0]
    if head == "or":
        return [conjunction for part in form[1:] for conjunction in _disjuncts(part)]
    if head == "and":
        return [
            [a for c in chosen for a in c] for chosen in product(*(_disjuncts(part) for part in form[1:]))
        ]
    if head not in ("<=", ">=", "<", ">") or len(form) != 3:
        raise ValueError(f"cannot read ({head} ...)")
    left, right = (_linear(side) for side in form[1:])
    if head in (">=", ">"):
        left, right = right, left
    terms = {name: left.get(name, 0.0) - right.get(name, 0.0) for name in {*left, *right} - {""}}
    return [[(terms, right.get("", 0.0) - left.get("", 0.0))]]


def _linear(form: Any) -> dict[str, float]:
    """Variable -> coefficient; '' is the constant."""
    if isinstance(form, str):
        return {form: 1.0} if form[:2] in ("X_", "Y_") else {"": float(form)}
    head, parts = form[0], [_linear(part) for part in form[1:]]
    if head == "*":
        factor = float(np.prod([p[""] for p in parts if p.keys() == {""}]))
        (varying,) = [p for p in parts if p.keys() != {""}]
        return {name: factor * value for name, value in varying.items()}
    if head not in ("+", "-"):
        raise ValueError(f"cannot read ({head} ...)")
    signs = [1.0] + [1.0 if head == "+" else -1.0] * (len(parts) - 1)
    if head == "-" and len(parts) == 1:
        signs = [-1.0]
    total: dict[str, float] = {}
    for sign, part in zip(signs, parts, strict=True):
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + sign * value
    return total


def _case(atoms: list[Atom], inputs: int, outputs: int) -> Case:
    lower, upper = np.full(inputs, -np.inf), np.full(inputs, np.inf)
    rows, limits = [], []
    for terms, limit in atoms:
        kinds = {name[0] for name in terms}
        if kinds == {"X"} and len(terms) == 1:
            ((name, factor),) = terms.items()
            index, value = int(name[2:]), limit / factor
            if factor > 0:
                upper[index] = min(upper[index], value)
            else:
                lower[index] = max(lower[index], value)
        elif kinds == {"Y"}:
            row = np.zeros(outputs)
            for name, factor in terms.items():
                row[int(name[2:])] = factor
            rows.append(row)
            limits.append(limit)
        else:
            raise NotApplicable(
                "a constraint joins inputs with each other or with outputs; only boxes are served"
            )
    return Case(lower, upper, np.array(rows).reshape(len(rows), outputs), np.array(limits))


class _Unsafe(nn.Module):
    """Outputs (0, -max over rows of row . y - limit): class 0 loses where every inequality is strictly met."""

    def __init__(self, network: nn.Module, case: Case, shape: tuple[int, ...], like: Tensor) -> None:
        super().__init__()
        self.network, self.shape = network, shape
        self.register_buffer("rows", torch.as_tensor(case.rows).to(like))
        self.register_buffer("limits", torch.as_tensor(case.limits).to(like))

    def forward(self, x: Tensor) -> Tensor:
        y = self.network(x.reshape(-1, *self.shape)).flatten(1)
        worst = (y @ self.rows.T - self.limits).amax(1)
        return torch.stack([torch.zeros_like(worst), -worst], 1)


def decide(
    network: nn.Module,
    cases: list[Case],
    shape: tuple[int, ...],
    budget: Budget | None = None,
    attack: Attack | None = None,
) -> Decision:
    """Attack each case, then prove by CROWN that it has no point.

    shape: of one input, without the batch. The proof's box is rounded outward to the network's precision, the
    attack's inward; a witness is returned only if a forward pass of its own meets the case exactly.
    """
    meter, device = (budget or Budget()).start(), device_of(network)
    dtype = next((p.dtype for p in network.parameters()), torch.float32)
    attack = attack or Attack(steps=50, restarts=5, batch_size=1)
    open_ = []
    with evaluating(network):
        for case in cases:
            witness = _witness(
                network, case, shape, attack, meter.left(), torch.zeros(1, dtype=dtype, device=device)
            )
            if witness is not None:
                return Decision("violated", witness)
            open_.append(case)
        example = torch.zeros(1, *shape, dtype=dtype, device=device)
        program = read(network, example)
        proved = all(not meter.exhausted and _proved(program, case, example) for case in open_)
    return Decision("holds" if proved else "unknown")


def _rounded(values: np.ndarray, like: Tensor, up: bool) -> Tensor:
    """To the type of `like`, to the next value on the stated side where it is not exact."""
    exact = torch.as_tensor(values, dtype=torch.float64, device=like.device)
    near = exact.to(like.dtype)
    beyond = near.double() < exact if up else near.double() > exact
    way = torch.full_like(near, torch.inf if up else -torch.inf)
    return torch.where(beyond, torch.nextafter(near, way), near)


def _witness(
    network: nn.Module, case: Case, shape: tuple[int, ...], attack: Attack, budget: Budget, like: Tensor
) -> np.ndarray | None:
    lower, upper = _rounded(case.lower, like, up=True), _rounded(case.upper, like, up=False)
    if bool((lower > upper).any()):
        lower = upper = _rounded(case.upper, like, up=False)
    if len(case.rows):
        box = Box(lower[None], upper[None], torch.zeros(1, dtype=torch.int64))
        found = attack.attack(_Unsafe(network, case, shape, like), box, budget)[0][0]
    else:
        found = lower
    with torch.no_grad():
        y = network(found.to(like.device).reshape(1, *shape)).flatten()
    x = found.double().cpu().numpy()
    return x if case.met(x, y.double().cpu().numpy()) else None


def _proved(program: Any, case: Case, example: Tensor) -> bool:
    """Whether some inequality is out of reach over the whole box."""
    if not len(case.rows):
        return bool((case.lower > case.upper).any())
    sides = (_rounded(case.lower, example, up=False), _rounded(case.upper, example, up=True))
    box = Interval(*(t.reshape(example.shape) for t in sides))
    with torch.no_grad():
        rows = torch.as_tensor(case.rows).to(example)[None]
        least = tightest(program, rows, crown_bounds(program, box))
    return bool((least[0].double().cpu().numpy() > case.limits).any())


def run_onnx(path: str | Path, x: np.ndarray) -> np.ndarray:
    """The outputs, flattened, of an ONNX file on one input (N,) in ONNX Runtime: the second opinion on a witness."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in given.shape]
    return session.run(None, {given.name: x.astype(np.float32).reshape(shape)})[0].ravel()
