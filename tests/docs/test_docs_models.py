"""The blocks of the documents about models run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

DOCUMENTS = [
    "docs/how-to/avista.md",
    "docs/how-to/export-onnx.md",
    "docs/how-to/hub.md",
    "docs/how-to/published-checkpoints.md",
    "docs/how-to/transformers.md",
    "docs/models.md",
]


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_runs(document: str, run_document: Callable[[str], None]) -> None:
    run_document(document)
