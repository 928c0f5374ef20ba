"""Reads NumPy arrays from files that may be damaged or hostile."""

from __future__ import annotations

import io
import tokenize

import numpy as np


def parse_array(content: bytes) -> np.ndarray:
    """The array in an .npy file's content; ValueError for anything else, such as a pickle or a size that it lacks."""
    try:
        array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    except (EOFError, MemoryError, SyntaxError, tokenize.TokenError) as error:
        raise ValueError("it is not a NumPy array") from error
    if not isinstance(array, np.ndarray):
        raise ValueError("it is an archive of NumPy arrays")
    return array
