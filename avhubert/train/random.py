"""Random numbers of training, keyed by (seed, step, micro-batch)."""

from __future__ import annotations

import numpy as np
import torch

TRAINING, VALIDATION, INITIAL, TRIAL = 0, 1, 2, 3  # the first key: what the numbers are for


def seed_all(seed: int, *key: int) -> np.random.Generator:
    """Seed torch (weights, dropout, LayerDrop) with (seed, *key); returns a generator for masks and other draws."""
    sequence = np.random.SeedSequence([seed, *key])
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
    return np.random.default_rng(sequence.spawn(1)[0])
