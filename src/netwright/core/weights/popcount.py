"""Loops over signs, 64 to a word: what xnor.py calls. Compiled by numba, which this file imports; one thread.

A product of signs is -1 where their bits differ, so that a sum of n of them is n less twice the number of bits that
differ: one exclusive or and one count for 64 products.
"""
# mypy: ignore-errors

from __future__ import annotations

import numba
import numpy as np
from numba import njit
from numba.extending import intrinsic

_TILE = 6000  # words of the input that stay in the first caches while every output channel reads them
_LANES = 32  # what is counted at a time is a multiple of this, so that no loop ends in single words


@intrinsic
def popcount(typing, word):
    """The bits that are set, by the processor's own instruction."""
    return numba.uint64(numba.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


@njit(cache=True, nogil=True)
def pack_channels(x, threshold, planes):
    """x (C, P), threshold (C,) -> planes (words, P): bit c % 64 of word c // 64 is whether x[c] >= threshold[c]."""
    channels, places = x.shape
    for w in range(len(planes)):
        for start in range(0, places, 512):
            end = min(places, start + 512)
            row = planes[w, start:end]
            row[:] = 0
            for c in range(64 * w, min(channels, 64 * w + 64)):
                least, values, bit = threshold[c], x[c, start:end], np.uint64(1) << np.uint64(c - 64 * w)
                for p in range(len(row)):
                    row[p] |= bit if values[p] >= least else np.uint64(0)


@njit(cache=True, nogil=True)
def pack_rows(x, threshold, rows):
    """x (R, C), threshold (C,) -> rows (R, words), as above."""
    for r in range(len(x)):
        for w in range(rows.shape[1]):
            values, least = x[r, 64 * w : 64 * w + 64], threshold[64 * w : 64 * w + 64]
            word = np.uint64(0)
            for c in range(len(values)):
                word |= np.uint64(values[c] >= least[c]) << np.uint64(c)
            rows[r, w] = word


@njit(cache=True, nogil=True)
def _lower(planes, height, width, geometry, first, rows, wide, patches):
    """The words that each tap reads, for some rows of the output: patches (K, >= rows wide), 0 outside of the image."""
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    k = 0
    for w in range(len(planes)):
        for i in range(kh):
            for j in range(kw):
                shift = j * dw - pw
                low = max(0, -(shift // sw))
                high = min(wide, max(0, (width - 1 - shift) // sw + 1))
                for r in range(rows):
                    y = (first + r) * sh - ph + i * dh
                    line = patches[k, r * wide : (r + 1) * wide]
                    line[:] = 0
                    if 0 <= y < height and low < high:
                        inside = line[low:high]
                        read = planes[w, y * width + low * sw + shift : (y + 1) * width]
                        if sw == 1:
                            for p in range(len(inside)):
                                inside[p] = read[p]
                        else:
                            for p in range(len(inside)):
                                inside[p] = read[p * sw]
                k += 1


@njit(cache=True, nogil=True)
def _count(patches, a, b, n, first, second):
    """The bits in which patches (K, n) differ from the words a, and from b, (K,): in first and second, (n,)."""
    for p in range(n):
        first[p] = second[p] = 0
    whole = len(a) - len(a) % 9
    for k in range(0, whole, 9):  # the taps of a 3x3 kernel: eighteen words stay in registers
        x0, x1, x2, x3, x4 = patches[k], patches[k + 1], patches[k + 2], patches[k + 3], patches[k + 4]
        x5, x6, x7, x8 = patches[k + 5], patches[k + 6], patches[k + 7], patches[k + 8]
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = (
            a[k], a[k + 1], a[k + 2], a[k + 3], a[k + 4], a[k + 5], a[k + 6], a[k + 7], a[k + 8],
        )  # fmt: skip
        b0, b1, b2, b3, b4, b5, b6, b7, b8 = (
            b[k], b[k + 1], b[k + 2], b[k + 3], b[k + 4], b[k + 5], b[k + 6], b[k + 7], b[k + 8],
        )  # fmt: skip
        for p in range(n):
            y0, y1, y2, y3, y4 = x0[p], x1[p], x2[p], x3[p], x4[p]
            y5, y6, y7, y8 = x5[p], x6[p], x7[p], x8[p]
            first[p] += (
                popcount(y0 ^ a0) + popcount(y1 ^ a1) + popcount(y2 ^ a2) + popcount(y3 ^ a3) + popcount(y4 ^ a4)
                + popcount(y5 ^ a5) + popcount(y6 ^ a6) + popcount(y7 ^ a7) + popcount(y8 ^ a8)
            )  # fmt: skip
            second[p] += (
                popcount(y0 ^ b0) + popcount(y1 ^ b1) + popcount(y2 ^ b2) + popcount(y3 ^ b3) + popcount(y4 ^ b4)
                + popcount(y5 ^ b5) + popcount(y6 ^ b6) + popcount(y7 ^ b7) + popcount(y8 ^ b8)
            )  # fmt: skip
    for k in range(whole, len(a)):
        x, u, v = patches[k], a[k], b[k]
        for p in range(n):
            first[p] += popcount(x[p] ^ u)
            second[p] += popcount(x[p] ^ v)


@njit(cache=True, nogil=True)
def convolve(planes, height, width, geometry, words, base, kind, scale, shift, out):
    """One image's planes (words, height width) by words (O, K), K the taps of each word: out (O, Ho, Wo) becomes
    (base - 2 x bits that differ) x scale + shift. base: (O, kinds, Wo), of the kind (Ho,) of each row; see
    xnor.borders. scale, shift: (O,)."""
    outputs, wide = len(words), out.shape[2]
    rows = max(1, min(out.shape[1], _TILE // (words.shape[1] * wide)))
    lanes = (rows * wide + _LANES - 1) // _LANES * _LANES
    patches = np.zeros((words.shape[1], lanes), np.uint64)
    differ = np.empty((2, lanes), np.uint64)
    for y in range(0, out.shape[1], rows):
        some = min(rows, out.shape[1] - y)
        _lower(planes, height, width, geometry, y, some, wide, patches)
        n = (some * wide + _LANES - 1) // _LANES * _LANES
        for o in range(0, outputs, 2):
            other = min(o + 1, outputs - 1)
            _count(patches, words[o], words[other], n, differ[0], differ[1])
            for q in range(2):
                at = o if q == 0 else other
                s, t = scale[at], shift[at]
                for r in range(some):
                    start, line = base[at, kind[y + r]], out[at, y + r]
                    counted = differ[q, r * wide : (r + 1) * wide]
                    for p in range(len(line)):
                        line[p] = np.float32(start[p] - np.int64(2 * counted[p])) * s + t


@njit(cache=True, nogil=True)
def multiply(rows, words, n, scale, shift, out):
    """rows (R, K), words (K, O), n signs in each: out (R, O) becomes (n - 2 x bits that differ) x scale + shift."""
    outputs = words.shape[1]
    differ = np.empty(outputs, np.uint64)
    for r in range(len(rows)):
        differ[:] = 0
        for k in range(len(words)):
            word, column = rows[r, k], words[k]
            for o in range(outputs):
                differ[o] += popcount(word ^ column[o])
        for o in range(outputs):
            out[r, o] = np.float32(n - np.int64(2 * differ[o])) * scale[o] + shift[o]
