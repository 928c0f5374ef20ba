"""The blocks of the documents about devices, transcribing, serving and evaluating run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

DOCUMENTS = [
    "docs/how-to/choose-a-device.md",
    "docs/how-to/built-in-model.md",
    "docs/how-to/transcribe.md",
    "docs/how-to/live.md",
    "docs/how-to/serve.md",
    "docs/how-to/evaluate.md",
]


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_runs(document: str, run_document: Callable[[str], None]) -> None:
    run_document(document)
