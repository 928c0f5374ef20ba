"""The blocks of the README and of the shortest documents run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

DOCUMENTS = ["README.md", "docs/README.md", "docs/how-to/install.md"]


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_runs(document: str, run_document: Callable[[str], None]) -> None:
    run_document(document)
