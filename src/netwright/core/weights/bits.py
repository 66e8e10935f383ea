"""Whole numbers of 1 to 8 bits side by side in bytes, and weights held so."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.weights.grids import Integers

WIDTHS = (8, 4, 2, 1)  # widths that divide a byte


def fields(bits: int) -> list[tuple[int, int]]:
    """(width, shift) of the parts that numbers of so many bits are kept in: 3 bits are 2 and 1."""
    if not 1 <= bits <= 8:
        raise BadInput(f"packed numbers have 1 to 8 bits, not {bits}")
    parts, shift = [], 0
    for width in WIDTHS:
        if bits & width:
            parts.append((width, shift))
            shift += width
    return parts


def pack(codes: Tensor, bits: int) -> list[Tensor]:
    """codes (n,) from 0 to 2^bits - 1 -> for each field its bytes (ceil(n width / 8),) uint8, the first in the lowest
    bits of a byte."""
    packed = []
    for width, shift in fields(bits):
        each = 8 // width
        part = (codes.to(torch.int32) >> shift) & (2**width - 1)
        part = torch.nn.functional.pad(part, (0, -len(part) % each)).view(-1, each)
        places = torch.arange(each, dtype=torch.int32, device=codes.device) * width
        packed.append((part << places).sum(1).to(torch.uint8))
    return packed


def unpack(packed: list[Tensor], bits: int, count: int) -> Tensor:
    """The codes (count,) again, as floats, exactly. In arithmetic that every runtime has for floats: multiplication by
    powers of two, floor and subtraction."""
    codes: Tensor | float = 0.0
    for part, (width, shift) in zip(packed, fields(bits), strict=True):
        codes = codes + _digits(part.float(), width)[:count] * 2.0**shift
    assert isinstance(codes, Tensor)
    return codes


def _digits(bytes_: Tensor, width: int) -> Tensor:
    """Whole numbers from 0 to 255 (m,) taken apart: (m 8 / width,), the lowest first."""
    places = torch.tensor([2.0**-place for place in range(0, 8, width)]).to(bytes_.device)
    rest = (bytes_[:, None] * places).floor()
    return (rest - (rest * 2.0**-width).floor() * 2.0**width).reshape(-1)


class PackedBits(nn.Module):
    """A weight of few bits that a float operator reads; () -> the weight (O, ...), exactly the integer twin's values.

    Holds, for rows (R, n) of the twin, R n codes and R zeros (where any is not 0) of `bits` bits each, R scales and
    the levels of a grid that is not uniform, both in half precision where that loses nothing. Levels that rows after
    one another have in common are held once, with the number of these rows, and a scale that all rows have in common
    once. `nbytes` is what that takes. Codes of a symmetric grid are kept 2^(bits-1) higher.

    It computes the weight anew at every pass in PyTorch; ONNX Runtime does so once, when it loads the file.
    """

    scale: Tensor
    levels: Tensor

    def __init__(self, twin: Integers, bits: int, shape: torch.Size) -> None:
        """shape: of the weight (O, ...); its rows are those of a channel (or of the whole), one after the other."""
        super().__init__()
        self.bits, self.shape = bits, tuple(shape)
        self.rows, self.width = twin.codes.shape
        self.uniform = twin.levels is None
        self.offset = 2 ** (bits - 1) if int(twin.codes.amin()) < 0 else 0
        self._hold("codes", twin.codes + self.offset)
        self.shifted = bool((twin.zero != 0).any())
        if self.shifted:
            self._hold("zeros", twin.zero)
        one = len(twin.scale) > 1 and torch.equal(twin.scale, twin.scale[:1].expand_as(twin.scale))
        self.register_buffer("scale", _short(twin.scale[:1] if one else twin.scale))
        self.runs: list[int] = []
        if twin.levels is not None:
            levels, counts = torch.unique_consecutive(twin.levels, dim=0, return_counts=True)
            self.runs = counts.tolist()
            if 1 < len(counts) < self.rows:
                self.register_buffer("counts", counts.to(torch.int32))
            self.register_buffer("levels", _short(levels))

    def _hold(self, name: str, numbers: Tensor) -> None:
        flat = numbers.reshape(-1)
        if int(flat.amin()) < 0 or int(flat.amax()) >= 2**self.bits:
            raise BadInput(f"these codes need more than {self.bits} bits")
        for i, part in enumerate(pack(flat, self.bits)):
            self.register_parameter(f"{name}{i}", nn.Parameter(part, requires_grad=False))

    def _numbers(self, name: str, count: int) -> Tensor:
        parts = [getattr(self, f"{name}{i}") for i in range(len(fields(self.bits)))]
        return unpack(parts, self.bits, count)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.parameters(), *self.buffers()))

    def forward(self) -> Tensor:
        codes = self._numbers("codes", self.rows * self.width).view(self.rows, self.width)
        scale = self.scale.float()
        if self.uniform:
            # whole numbers until here, so that the product is the only rounding
            values = codes - self.offset
            if self.shifted:
                values = values - self._numbers("zeros", self.rows)[:, None]
            rows = values * scale
        else:
            rows = self._levels().gather(1, codes.long()) * scale
        first = 1 if self.rows == 1 else self.shape[0]
        return rows.reshape(first, -1)[:, : math.prod(self.shape) // first].reshape(self.shape)

    def _levels(self) -> Tensor:
        """Of every row, (R, L)."""
        levels = self.levels.float()
        if len(self.runs) == self.rows:
            return levels
        parts = zip(levels.split(1), self.runs, strict=True)
        return torch.cat([part.expand(count, -1) for part, count in parts])

    def extra_repr(self) -> str:
        return f"{self.bits} bits {self.shape}"


def _short(numbers: Tensor) -> Tensor:
    """In half precision where that loses nothing."""
    half = numbers.half()
    return half if torch.equal(half.to(numbers.dtype), numbers) else numbers.float()
