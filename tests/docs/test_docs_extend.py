"""The blocks of the documents about extending the package run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

DOCUMENTS = [
    "docs/how-to/add-a-corpus.md",
    "docs/how-to/add-a-face-detector.md",
    "docs/how-to/add-a-front-end.md",
    "docs/how-to/add-a-language.md",
]


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_runs(document: str, run_document: Callable[[str], None]) -> None:
    run_document(document)
