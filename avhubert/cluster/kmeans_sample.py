"""Reading of feature blocks in batches, and the uniform sample of their rows on which k-means is seeded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from avhubert.errors import DataError

BATCH_ROWS = 10_000  # rows of a mini-batch (the published recipe's), and of one transfer to the device
SAMPLE_ROWS_PER_CLUSTER = 64
MIN_SAMPLE_ROWS = 20_000
SAMPLE_BYTES = 1 << 28  # limit of the sample, whatever K and D


def rebatch(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The rows of the blocks, float32, in batches of BATCH_ROWS (the last one is shorter).

    Raises:
        DataError: rows of differing width, or values that are not finite.
    """
    parts: list[np.ndarray] = []
    filled, width = 0, None
    for block in blocks:
        if block.ndim != 2 or width not in (None, block.shape[1]):
            raise DataError(f"a block of features has shape {list(block.shape)}, expected [rows, {width or 'values'}]")
        width = block.shape[1]
        start = 0
        while start < len(block):
            part = block[start : start + BATCH_ROWS - filled].astype(np.float32)
            if not np.isfinite(part).all():
                raise DataError("features hold values that are not finite; the model or audio behind them is damaged")
            parts.append(part)
            filled += len(part)
            start += len(part)
            if filled == BATCH_ROWS:
                yield parts[0] if len(parts) == 1 else np.concatenate(parts)
                parts, filled = [], 0
    if filled:
        yield np.concatenate(parts)


def draw_sample(batches: Iterator[np.ndarray], clusters: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A uniform sample of the rows, in their order, and the number of all rows.

    Every row gets a random key, and the rows with the smallest keys are the sample.

    Returns:
        The sample, float32 [S, D], and N.

    Raises:
        DataError: fewer rows than clusters.
    """
    sample = np.empty((0, 0), np.float32)
    keys = np.empty(0)
    positions = np.empty(0, np.int64)
    rows, filled = 0, 0
    for batch in batches:
        if not rows:
            size = _sample_size(clusters, batch.shape[1])
            sample = np.empty((size, batch.shape[1]), np.float32)
            keys, positions = np.full(size, np.inf), np.full(size, -1)
        drawn = rng.random(len(batch))
        first = min(len(batch), len(keys) - filled)
        sample[filled : filled + first] = batch[:first]
        keys[filled : filled + first] = drawn[:first]
        positions[filled : filled + first] = np.arange(rows, rows + first)
        filled += first
        rest = np.arange(first, len(batch))[drawn[first:] < keys.max()]
        if len(rest):
            all_keys = np.concatenate([keys, drawn[rest]])
            smallest = np.zeros(len(all_keys), bool)
            smallest[np.argpartition(all_keys, len(keys) - 1)[: len(keys)]] = True
            leave, enter = np.flatnonzero(~smallest[: len(keys)]), rest[smallest[len(keys) :]]
            sample[leave], keys[leave], positions[leave] = batch[enter], drawn[enter], rows + enter
        rows += len(batch)
    if rows < clusters:
        raise DataError(f"{rows} frames cannot make {clusters} clusters; ask for fewer clusters or give more data")
    order = np.argsort(positions[:filled])
    return sample[order], rows


def _sample_size(clusters: int, width: int) -> int:
    size = min(max(MIN_SAMPLE_ROWS, SAMPLE_ROWS_PER_CLUSTER * clusters), SAMPLE_BYTES // (4 * width))
    return max(size, clusters)
