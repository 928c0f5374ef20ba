"""The blocks of the document about fine-tuning run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

DOCUMENTS = ["docs/how-to/fine-tune.md"]


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_runs(document: str, run_document: Callable[[str], None]) -> None:
    run_document(document)
