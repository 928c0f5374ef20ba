"""The blocks of the tutorials run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

DOCUMENTS = ["docs/tutorials/real-corpus.md", "docs/tutorials/tour.md", "docs/tutorials/train-your-own.md"]


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_runs(document: str, run_document: Callable[[str], None]) -> None:
    run_document(document)
