"""Arrays from damaged and hostile files."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from avhubert.data.arrays import parse_array

pytestmark = pytest.mark.quick


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_an_array_is_read() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert np.array_equal(parse_array(saved(array)), array)


GOOD = saved(np.zeros((3, 4), np.float32))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        GOOD[:20],
        GOOD[:-1],
        GOOD.replace(b"(3, 4)", b"(3, (4"),
        GOOD.replace(b"(3, 4), }                 ", b"(1000000000000, 1000), }"),
        pickle.dumps([1]),
        saved(np.array([None])),
    ],
)
def test_anything_else_is_an_error(content: bytes) -> None:
    with pytest.raises(ValueError):
        parse_array(content)
