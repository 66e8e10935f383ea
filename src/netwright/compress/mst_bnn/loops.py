"""Loops that compute channels from one another, in whole numbers of 16 bits, many places of an image at a time.

Compiled by numba, which this file imports; one thread. What wraps around on the way comes back: a result of n < 2^15
signs fits.
"""
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _sum(patches, positions, start, end, to, weight):
    """to += weight x (the sum of patches' rows at positions[start:end])."""
    whole = start + (end - start) // 4 * 4
    for k in range(start, whole, 4):
        a, b = patches[positions[k]], patches[positions[k + 1]]
        c, d = patches[positions[k + 2]], patches[positions[k + 3]]
        for p in range(len(to)):
            to[p] += weight * np.int16(np.int16(a[p] + b[p]) + np.int16(c[p] + d[p]))
    for k in range(whole, end):
        a = patches[positions[k]]
        for p in range(len(to)):
            to[p] += weight * a[p]


@njit(cache=True, nogil=True)
def follow(patches, order, parent, positions, starts, middles, ends, out):
    """patches: signs (n, P) int16, 0 outside of the image -> out (O, P) int16. See tree.Plan."""
    for i in range(len(order)):
        channel = order[i]
        to, root = out[channel], parent[channel] == channel
        weight = np.int16(1) if root else np.int16(2)
        if root:
            to[:] = 0
        else:
            to[:] = out[parent[channel]]
        _sum(patches, positions, starts[i], middles[i], to, weight)
        _sum(patches, positions, middles[i], ends[i], to, np.int16(-weight))
