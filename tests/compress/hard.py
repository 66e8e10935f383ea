"""Methods that are awkward to compile, and those that cannot be. Each takes (1, 4)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InPlace(nn.Module):
    """Changes in place, seen through another name; items of tensors; an else that changes nothing."""

    decisions = 2
    taken = "y_1,v_2 y_8 y_10,v_3 z_2 v_4"

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        alias = y
        if y.sum() > 0:
            y += 1
            y[:, 0] = 5.0
            y[:, 1] *= 3
        F.relu(y, inplace=True)
        z = torch.zeros(1, 4)
        if x.mean() > 0.2:
            z.add_(alias)
        return z + alias


class Numbers(nn.Module):
    """Arithmetic on numbers of the input, as Python does it."""

    decisions = 3
    taken = "a_1,b_1,c_1,k_1,n_11 n_12 n_13 c_3 v_23,n_15"

    def forward(self, x: Tensor) -> tuple[Tensor, float, int, bool]:
        a, b = x.max().item(), int(10 * x[0, 0])
        c = (a - 0.5) * 2 / 3
        k = b // 3 - b % 4
        if c > 0.1 and not (k < 0 or b == 2):
            c = -c
        return x * c + b, c, k, a > 0.25


class Lists(nn.Module):
    """Lists and dictionaries that grow differently, a while loop with a bound, words, a comprehension."""

    decisions = 6
    taken = "x_1,v_1 x_5,v_3 x_3,v_2 x_8,v_4 x_12,v_6 x_10,v_5 cat_1,v_20 cat_4,v_26 cat_2,v_23 cat_3,v_25"

    def __init__(self) -> None:
        super().__init__()
        for k in range(3):
            setattr(self, f"layer{k}", nn.Linear(4, 4))
        self.settings = {"last": 3}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        kept, k = [x], 0
        while k < self.settings["last"]:
            x = getattr(self, f"layer{k}")(kept[-1])
            k += 1
            if x.sum() < 0:
                continue
            kept.append(x)
        squares = [t * t for t in kept]
        return {"all": torch.cat(kept), "sum": sum(squares), "last": kept[-1]}


class Experts(nn.Module):
    """One of several layers, chosen by an index of the input; a value of two ways in one expression."""

    decisions = 4
    taken = "is_it_3,is_it_6,is_it_9 y_1 y_2 y_3 v_1 v_6 v_7"

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        mixed = lambda a, b: a + self.share * b
        chosen = int(x[:, :3].argmax())
        if (last := len(self.experts) - 1) == 2 and 0 < last <= 3:
            y = self.experts[chosen](x)
        return mixed(y, x if x.sum() > 0 else -x) / last

    @property
    def share(self) -> float:
        return 0.5


class Strict(nn.Module):
    """Ends in an error for some inputs, and calls a function with defaults."""

    decisions = 2
    taken = "v_1 v_2,v_4 v_5"

    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        if x.amin() < -2.5:
            raise ValueError("too low")
        first, *_ = x.shape
        (y,) = x.split(first)
        return clipped(y * scale, high=1.0)


def clipped(x: Tensor, low: float = -1.0, *, high: float) -> Tensor:
    if (x > high).any():
        return x.clamp(low, high)
    return x


class Cut(nn.Module):
    """A loop with break, continue and else; results that no way needs; a constant that decides."""

    decisions = 6
    taken = "x_1,v_5 v_6 x_4 x_6,v_10 v_11 x_9 x_11,v_15 v_16 x_14 x_16 v_19"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([1.0, 1.0, 0.0, 0.0]))
        self.ends = [torch.ones(4), torch.zeros(4)]

    def forward(self, x: Tensor) -> Tensor:
        unused = x.exp() @ x.T
        if self.mask.sum() > 3:
            return unused
        for k in range(3):
            x = x + self.mask * k
            if x.sum() > 3:
                break
            if x[0, k] < -1:
                continue
            x = x * 1.5
        else:
            x = x - 1
        return x.detach().clone() + torch.stack(self.ends).sum(0)


class Everyday(nn.Module):
    """What Python code does all the time, and none of which depends on the input, but for one choice."""

    decisions = 1
    taken = "x_2,x_4,v_9,v_16,v_17,number_5,total_1,n_2"

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Sequential(nn.Linear(4, 4), nn.Tanh())})
        self.bias = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        self.sizes = [3, 1, 2]

    def forward(self, x: Tensor, *, scale: float | None = None) -> dict[str, object]:
        """Says what it did."""
        assert isinstance(x, Tensor), "a tensor"
        assert not isinstance(x, (int, float))
        number = x.sum().item()
        facts: dict[str, object] = {"float": isinstance(number, float), "int": isinstance(number, int)}
        facts["rows"] = len(x)
        facts["size"] = list(x.size())
        facts["kind"] = str(x.dtype)
        facts["largest"] = max(self.sizes) - min(2, 1) + abs(-3)
        facts.update(dict([("sorted", sorted(self.sizes)), ("last", list(reversed(self.sizes))[-1])]))  # noqa: C406
        facts["known"] = torch.is_tensor(x) and torch.is_floating_point(x) and x.dim() == 2 and x.ndim != 3
        with torch.no_grad():
            for name, layer in self.layers.items():
                x = layer(x) * self.bias.exp() + getattr(self, "absent", 2)
                facts[f"after {name}"] = x.mean(-1)
        words = ["one", "two"]
        words.insert(0, "zero")
        words += [words.pop(), "end"]
        facts["words"] = words
        facts["place"] = words.index("two")
        a, b = x.unbind(-1)[0], x[..., -1:]
        facts["pair"] = torch.tensor([number, -number]) if scale is None else None
        facts["nested"] = torch.tensor([[int(number)]], dtype=torch.float32) + sum([a, a], b)
        facts["mixed"] = sum([1, 2, b])
        facts["root"] = math.sqrt(getattr(self, "sizes", None)[0])
        facts["unlike"] = [number == "text", number != "text"]
        facts["abs"] = abs(number)
        facts["either"] = scale or 5
        total = 0
        for row in x:
            total = total + row.T.sum()
        facts["total"] = total
        facts.pop("int")
        del a, b
        facts["choice"] = "up" if not number < 0 else "down"
        return facts


SERVED = (InPlace, Numbers, Lists, Experts, Strict, Cut, Everyday)


class Endless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while x.sum() < 100:
            x = x * 2
        return x


class InputBound(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x.sum())):
            x = x + 1
        return x


class Growing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while x.sum() < 100:
            x = torch.cat([x, x])
        return x


class Remembering(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        return x


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


class Buffering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x + self.calls


class Callers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu_()


class Viewed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        row = y[0]
        y.mul_(2)
        return row


class Recording(nn.Module):
    seen: ClassVar[list[Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x


class Printing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print(x)
        return x


class Chance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x)


class PythonsChance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if random.random() > 0.5 else -x


class Several(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x > 0 else -x


class Shaped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0].sum()


class Trying(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        try:
            return x + 1
        except RuntimeError:
            return x


class Yielding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return sum(self.parts(x))

    def parts(self, x: Tensor) -> Iterator[Tensor]:
        yield x


class Calling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.deeper(x)

    def deeper(self, x: Tensor) -> Tensor:
        return self.deeper(x)


class Nested(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([a + b for a in x for b in x])


class Words(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, f"layer{x.sum().item()}")(x)


class Known(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 7 // 0]


class Unset(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            y = x
        return y


class Long(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(21):
            x = x + 1
        return x


class States(nn.Module):
    """Every way is another list of words."""

    def forward(self, x: Tensor) -> tuple[Tensor, list[str]]:
        said = []
        for k in range(7):
            said.append("yes" if x[0, k % 4] > k / 10 else "no")
        return x, said


class Same(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.detach()
        return x if x is y else -x


class Equal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if [x.sum().item()] == [x.mean().item()] else -x


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.layer.register_forward_hook(lambda module, inputs, output: output + 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


REFUSED = {
    Endless: "no bound that is independent",
    InputBound: "turns depends on the input",
    Growing: "no bound that is independent",
    Remembering: "side effect",
    Counting: "side effect",
    Buffering: "changes a tensor of the network",
    Callers: "or the caller's",
    Viewed: "in use by another name",
    Recording: "has not made",
    Printing: "prints",
    Chance: "random numbers",
    PythonsChance: "no operation on tensors",
    Several: "a decision takes a single one",
    Shaped: "depends on values",
    Trying: "try cannot be compiled",
    Yielding: "Yield",
    Hooked: "hooks",
    Same: "one object",
    Equal: "a comparison of lists",
    Calling: "deeper than 40",
    Nested: "more than one loop",
    Words: "text that depends",
    Known: "ZeroDivisionError",
    Unset: "has no value here",
    Long: "a loop of 21 turns; at most 20",
    States: "more than 64 states",
}
