"""A convolution and a linear layer as simulated quantum circuits, and the same convolution without any quantum."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput, NotApplicable

PAULI = torch.tensor(
    [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=torch.complex128
)  # fmt: skip


def combined(angles: Tensor, qubits: int) -> Tensor:
    """angles (..., 4^n - 1) -> sum_k angle_k P_k, (..., 2^n, 2^n): Pauli strings in the order of base 4, the first
    qubit the most significant, without the identity. A qubit at a time, so that no string is ever written out."""
    basis = PAULI.to(torch.complex64 if angles.dtype == torch.float32 else PAULI.dtype).to(angles.device)
    batch = angles.shape[:-1]
    found = F.pad(angles, (1, 0)).reshape(-1, *[4] * qubits).to(basis.dtype)
    for _ in range(qubits):  # the first axis left becomes a row and a column at the end
        found = torch.tensordot(found, basis, dims=([1], [0]))
    rows, columns = range(1, 2 * qubits, 2), range(2, 2 * qubits + 1, 2)
    return found.permute(0, *rows, *columns).reshape(*batch, 2**qubits, 2**qubits)


class Quanvolution(nn.Module):
    """FlippedQuanv3x3: (B, I, H, W) -> (B, O, H', W'), of a kernel up to 4x4.

    angles (O, I, 15) make a state of two qubits each, psi = exp(i sum_k angle_k P_k)|00>. A patch, padded to 4x4 and
    made symmetric, is the observable: output = mean over input channels of <psi|(P + P')/2|psi>, and a bias. That is a
    convolution whose kernel is Re(psi* psi') / I, cut to the patch: symmetric, positive semi-definite, of rank 2 at
    most; so it runs as one. `simulate` computes the expectations themselves.
    """

    numbers = 15  # for each kernel

    def __init__(self, conv: nn.Conv2d) -> None:
        """In the place of a convolution, of the same shape, with new parameters."""
        super().__init__()
        if (
            max(conv.kernel_size) > 4
            or conv.groups > 1
            or max(conv.dilation) > 1
            or conv.padding_mode != "zeros"
        ):
            raise NotApplicable("a quanvolution has a kernel up to 4x4, one group and no dilation")
        self.inner, self.outer, self.size = conv.in_channels, conv.out_channels, conv.kernel_size
        self.stride: Any = conv.stride
        self.padding: Any = conv.padding
        self.angles = nn.Parameter(torch.empty(self.outer, self.inner, self.numbers))
        self.bias = nn.Parameter(torch.empty(self.outer))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.angles)
        nn.init.zeros_(self.bias)

    def states(self) -> Tensor:
        """psi (O, I, 4)."""
        return torch.matrix_exp(1j * combined(self.angles, 2))[..., 0]

    def kernel(self) -> Tensor:
        """(O, I, h, w)."""
        psi = self.states()
        whole = torch.einsum("oia,oib->oiab", psi.conj(), psi).real
        return whole[..., : self.size[0], : self.size[1]] / self.inner

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel(), self.bias, self.stride, self.padding)

    def simulate(self, x: Tensor) -> Tensor:
        """The same by expectation values, patch by patch."""
        height, width = self.size
        sides = self.padding if isinstance(self.padding, tuple) else None
        if sides is None:
            raise BadInput("patches are cut for a padding in numbers")
        patches = F.unfold(x, self.size, padding=sides, stride=self.stride)
        patches = patches.transpose(1, 2).unflatten(2, (self.inner, height, width))
        observable = F.pad(patches, (0, 4 - width, 0, 4 - height))
        observable = (observable + observable.mT) / 2
        psi = self.states()
        values = torch.einsum("oia,bliac,oic->blo", psi.conj(), observable.to(psi.dtype), psi).real
        rows = (x.shape[2] + 2 * sides[0] - height) // self.stride[0] + 1
        return (values / self.inner + self.bias).transpose(1, 2).unflatten(2, (rows, -1))


class Constrained(Quanvolution):
    """A plain convolution whose kernels are constrained as a quanvolution's are: (a a' + b b') / I, with
    |a|^2 + |b|^2 = 1, cut to the patch; nothing quantum about it."""

    numbers = 8

    def states(self) -> Tensor:
        a, b = F.normalize(self.angles, dim=-1).chunk(2, -1)
        return torch.complex(a, b)


class QuantumLinear(nn.Module):
    """DataReUploadingLinear: (B, ..., I) -> (B, ..., O).

    n qubits with 4^n >= I, padded inputs as a matrix (2^n, 2^n), made symmetric to H. From |+...+>, `steps` times:
    exp(i H / steps), then a free gate exp(i sum_k angle_k P_k) of its own, 4^n - 1 angles. The outputs are the
    probabilities of the first O basis states, and a bias.
    """

    def __init__(self, linear: nn.Linear, steps: int = 10) -> None:
        """In the place of a linear layer, of the same shape, with new parameters."""
        super().__init__()
        self.inner, self.outer, self.steps = linear.in_features, linear.out_features, steps
        self.qubits = 1
        while 4**self.qubits < self.inner or 2**self.qubits < self.outer:
            self.qubits += 1
        self.angles = nn.Parameter(torch.empty(steps, 4**self.qubits - 1))
        self.bias = nn.Parameter(torch.empty(self.outer))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.angles)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.inner)
        side = 2**self.qubits
        given = F.pad(flat, (0, side**2 - self.inner)).reshape(-1, side, side)
        upload = torch.matrix_exp(0.5j * (given + given.mT) / self.steps)
        gates = torch.matrix_exp(1j * combined(self.angles, self.qubits))
        psi = torch.full((len(flat), side, 1), side**-0.5, dtype=upload.dtype, device=x.device)
        for gate in gates:
            psi = gate @ (upload @ psi)
        chances = psi[:, : self.outer, 0].abs().square()
        return (chances + self.bias).reshape(*x.shape[:-1], self.outer)
