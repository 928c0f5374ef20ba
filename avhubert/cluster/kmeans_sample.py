"""Reads feature blocks in batches and draws the uniform sample for seeding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from avhubert.errors import DataError

BATCH = 10_000  # rows of a mini-batch (the published recipe's), and of one transfer to the device


SAMPLE_PER_CLUSTER = 64  # rows of the sample for each cluster


SAMPLE_LEAST = 20_000


SAMPLE_BYTES = 1 << 28  # limit of the sample, whatever K and D


# --------------------------------------------------------------------------- reading
def rebatch(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same rows, float32, in batches of BATCH (the last one shorter); checked."""
    parts: list[np.ndarray] = []
    held, width = 0, None
    for block in blocks:
        if block.ndim != 2 or width not in (None, block.shape[1]):
            raise DataError(f"a block of features has shape {list(block.shape)}, expected [rows, {width or 'values'}]")
        width = block.shape[1]
        start = 0
        while start < len(block):
            part = block[start : start + BATCH - held].astype(np.float32)
            if not np.isfinite(part).all():
                raise DataError("features hold values that are not finite; the model or audio behind them is damaged")
            parts.append(part)
            held += len(part)
            start += len(part)
            if held == BATCH:
                yield parts[0] if len(parts) == 1 else np.concatenate(parts)
                parts, held = [], 0
    if held:
        yield np.concatenate(parts)


def draw_sample(batches: Iterator[np.ndarray], clusters: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A uniform sample of rows, in their order, float32 [S, D], and N: rows get random keys and the S least stay."""
    kept = np.empty((0, 0), np.float32)
    keys = np.empty(0)
    places = np.empty(0, np.int64)
    rows, filled = 0, 0
    for batch in batches:
        if not rows:
            size = min(max(SAMPLE_LEAST, SAMPLE_PER_CLUSTER * clusters), SAMPLE_BYTES // (4 * batch.shape[1]))
            size = max(size, clusters)
            kept, keys, places = np.empty((size, batch.shape[1]), np.float32), np.full(size, np.inf), np.full(size, -1)
        drawn = rng.random(len(batch))
        first = min(len(batch), len(keys) - filled)
        kept[filled : filled + first] = batch[:first]
        keys[filled : filled + first] = drawn[:first]
        places[filled : filled + first] = np.arange(rows, rows + first)
        filled += first
        rest = np.arange(first, len(batch))[drawn[first:] < keys.max()]
        if len(rest):
            everything = np.concatenate([keys, drawn[rest]])
            least = np.zeros(len(everything), bool)
            least[np.argpartition(everything, len(keys) - 1)[: len(keys)]] = True
            leave, enter = np.flatnonzero(~least[: len(keys)]), rest[least[len(keys) :]]
            kept[leave], keys[leave], places[leave] = batch[enter], drawn[enter], rows + enter
        rows += len(batch)
    if rows < clusters:
        raise DataError(f"{rows} frames cannot make {clusters} clusters; ask for fewer clusters or give more data")
    order = np.argsort(places[:filled])
    return kept[order], rows
