# SPDX-License-Identifier: Apache-2.0
"""Few values for many: codebooks of numbers, palettes of vectors. The same input gives the same output."""

import numpy as np

BOOK = 256
_ROUNDS = 20
_SAMPLE = 1 << 20


def codebook(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 256 numbers that stand for `values` with little squared error (Lloyd's method), and which stands for which.

    Args:
        values: Any shape.

    Returns:
        Ascending float32 [256], and uint8 indices in the shape of `values`.
    """
    flat = values.astype(np.float64).ravel()
    ordered = np.sort(flat[:: max(1, len(flat) // _SAMPLE)])
    ordered[[0, -1]] = flat.min(), flat.max()
    # Half of them where the values are, half evenly: rare values far out are seen too.
    even = np.linspace(ordered[0], ordered[-1], BOOK // 2)
    book = np.sort(np.concatenate([even, np.quantile(ordered, np.linspace(0, 1, BOOK // 2))]))
    sums = np.concatenate([[0.0], ordered.cumsum()])
    for _ in range(_ROUNDS):
        cuts = np.searchsorted(ordered, (book[1:] + book[:-1]) / 2)
        ends = np.concatenate([[0], cuts, [len(ordered)]])
        counts = np.diff(ends)
        means = np.diff(sums[ends]) / np.maximum(counts, 1)
        book = np.sort(np.where(counts > 0, means, book))
    book = book.astype(np.float32)
    middles = (book[1:].astype(np.float64) + book[:-1]) / 2
    return book, np.searchsorted(middles, values).astype(np.uint8)


def palette(vectors: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to `limit` vectors that stand for [N, D], and which stands for which [N].

    Where there are more vectors, their set is halved again and again across its widest direction among the axes, all
    parts at once; the means of the parts are the palette.
    """
    count = len(vectors)
    if count <= limit:
        return vectors, np.arange(count)
    order, starts = np.arange(count), np.zeros(1, np.int64)
    while 2 * len(starts) <= limit:
        sizes = np.diff(np.append(starts, count))
        part = np.repeat(np.arange(len(starts)), sizes)
        sorted_ = vectors[order].astype(np.float64)
        means = np.add.reduceat(sorted_, starts) / sizes[:, None]
        spread = np.add.reduceat(sorted_**2, starts) / sizes[:, None] - means**2
        along = sorted_[np.arange(count), spread.argmax(axis=1)[part]]
        order = order[np.lexsort((along, part))]
        halves = np.stack([starts, starts + sizes // 2], axis=1).ravel()
        starts = halves[np.append(True, np.diff(halves) > 0)]
    sizes = np.diff(np.append(starts, count))
    labels = np.empty(count, np.int64)
    labels[order] = np.repeat(np.arange(len(starts)), sizes)
    return np.add.reduceat(vectors[order].astype(np.float64), starts) / sizes[:, None], labels
