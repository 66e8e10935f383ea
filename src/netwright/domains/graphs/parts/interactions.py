"""Who touched what: users and items as a sparse 0/1 matrix, read from the recommendation data sets' files.

A set of interactions is a `scipy.sparse.csr_array` (users, items) of float32 ones, indices sorted, no pair twice.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from scipy import sparse

from netwright.core.errors import BadInput, UnknownName

DATASETS = ("gowalla", "lastfm")


def interactions(users: np.ndarray, items: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    """From pairs (P,), (P,) of ids counted from 0; repeated pairs count once."""
    users, items = np.asarray(users, dtype=np.int64), np.asarray(items, dtype=np.int64)
    for name, ids, size in (("user", users, shape[0]), ("item", items, shape[1])):
        if ids.size and not (ids.min() >= 0 and ids.max() < size):
            raise BadInput(f"{name} ids must lie in [0, {size}), found {ids.min()} to {ids.max()}")
    matrix = sparse.csr_array((np.ones(len(users), np.float32), (users, items)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    matrix.sort_indices()
    return matrix


def check(matrix: object, what: str = "interactions") -> sparse.csr_array:
    """What an estimator is given (any scipy sparse or dense 2-d array of users by items), as interactions."""
    if not sparse.issparse(matrix):
        matrix = np.asarray(matrix)
        if matrix.ndim != 2:
            raise BadInput(f"{what} must be a matrix (users, items), got shape {matrix.shape}")
    coo = sparse.coo_array(matrix)
    if not np.isfinite(coo.data).all():
        raise BadInput(f"{what} hold NaN or Inf")
    kept = coo.data != 0
    if not kept.any():
        raise BadInput(f"{what} are empty: no user touched any item")
    return interactions(coo.row[kept], coo.col[kept], coo.shape)


def hold_out(
    matrix: sparse.csr_array, fraction: float, seed: int
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Take `fraction` of each user's items away (rounded down, so that nobody loses the last one): rest, taken."""
    rng = np.random.default_rng(seed)
    degree = np.diff(matrix.indptr)
    users = np.repeat(np.arange(matrix.shape[0]), degree)
    order = np.lexsort((rng.random(matrix.nnz), users))
    rank = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], degree)
    taken = rank < np.floor(fraction * degree)[users]
    items = matrix.indices[order]
    return (
        interactions(users[~taken], items[~taken], matrix.shape),
        interactions(users[taken], items[taken], matrix.shape),
    )


def load(name: str, root: str | Path | None = None) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Training and test interactions of 'gowalla' or 'lastfm' from `root` (default: $NETWRIGHT_DATA).

    The test files at hand may be parts (`test-two-thirds`): users who are not in them have no test items, and
    are left out of means over users.
    """
    if name not in DATASETS:
        raise UnknownName("interaction data set", name, DATASETS)
    base = root or os.environ.get("NETWRIGHT_DATA")
    if not base:
        raise BadInput(f"'{name}' is read from the folder that NETWRIGHT_DATA names, which is not set")
    folder = Path(base) / name
    if name == "gowalla":
        train, test = (_pairs(_either(folder, stem), _adjacency_list) for stem in ("train", "test"))
    else:
        train, test = (_pairs(_either(folder, stem), _weighted_pair) for stem in ("data1", "test1"))
    shape = tuple(int(max(train[:, i].max(), test[:, i].max())) + 1 for i in (0, 1))
    return interactions(*train.T, shape), interactions(*test.T, shape)


def _either(folder: Path, stem: str) -> Path:
    """The full file where it is at hand, else the part."""
    for path in (folder / f"{stem}.txt.gz", folder / f"{stem}-two-thirds.txt.gz"):
        if path.exists():
            return path
    raise BadInput(f"{folder}: neither {stem}.txt.gz nor {stem}-two-thirds.txt.gz is there")


def _pairs(path: Path, of_line: Callable[[list[str]], Iterable[tuple[int, int]]]) -> np.ndarray:
    """Pairs (P, 2) of every line of a packed text file."""
    try:
        with gzip.open(path, "rt") as file:
            pairs = [pair for line in file if line.strip() for pair in of_line(line.split())]
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    if not pairs:
        raise BadInput(f"{path} holds no interactions")
    return np.array(pairs, dtype=np.int64)


def _adjacency_list(words: list[str]) -> Iterable[tuple[int, int]]:
    """`user item item ...`, ids from 0."""
    user = int(words[0])
    return ((user, int(item)) for item in words[1:])


def _weighted_pair(words: list[str]) -> Iterable[tuple[int, int]]:
    """`user item weight`, ids from 1; the weight is not used."""
    return [(int(words[0]) - 1, int(words[1]) - 1)]
