"""The journal: results survive writing and reading; journals of earlier versions stay readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avhubert.corpora.sources import Rejection, SourceClip
from avhubert.errors import MediaError
from avhubert.prepare.journal import open_journal, read_journals
from avhubert.prepare.records import ClipResult

pytestmark = pytest.mark.quick

USABLE = ClipResult("a", None, 30, 19_200, 0.9, ("the face is small",), "12-34", (0.85,))
REJECTED = ClipResult("b", Rejection("b", "too short (3 frames)", "too short"), fingerprint="5-6")
# lines of the first version: without the kind of a rejection, and without other faces
FIRST_VERSION = [
    '{"id": "a", "reason": "", "frames": 30, "samples": 19200, "found_share": 0.9, '
    '"warnings": ["the face is small"], "source": "12-34", "others": [0.85]}',
    '{"id": "b", "reason": "too short (3 frames)", "frames": 0, "samples": 0, "found_share": 0.0, "warnings": [], '
    '"source": "5-6"}',
]


def clips(*names: str) -> list[SourceClip]:
    return [SourceClip(name, Path(f"{name}.mp4"), "") for name in names]


def test_results_are_read_as_written(tmp_path: Path) -> None:
    with open_journal(tmp_path, (0, 1)) as append:
        append(USABLE)
        append(REJECTED)
    assert read_journals(tmp_path, clips("a", "b")) == {"a": USABLE, "b": REJECTED}
    assert read_journals(tmp_path, clips("b")) == {"b": REJECTED}


def test_journals_of_the_first_version_are_read(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "0-of-1.jsonl").write_text("\n".join(FIRST_VERSION) + "\n", encoding="utf-8")
    assert read_journals(tmp_path, clips("a", "b")) == {"a": USABLE, "b": REJECTED}


def test_keys_are_those_of_the_first_version(tmp_path: Path) -> None:
    with open_journal(tmp_path, (1, 2)) as append:
        append(USABLE)
    entry = json.loads((tmp_path / "journal" / "1-of-2.jsonl").read_text(encoding="utf-8"))
    assert (entry.pop("kind"), entry.pop("largest_step")) == ("", 0.0)
    assert entry == json.loads(FIRST_VERSION[0])


def test_latest_result_counts_and_torn_lines_do_not(tmp_path: Path) -> None:
    retried = ClipResult("b", frames=9)
    with open_journal(tmp_path, (0, 2)) as append:
        append(USABLE)
        append(REJECTED)
    with open_journal(tmp_path, (1, 2)) as append:
        append(ClipResult("a", Rejection("a", "no audio track", "no audio track")))
        append(retried)
    path = tmp_path / "journal" / "1-of-2.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"id": "b", "reas', encoding="utf-8")
    assert read_journals(tmp_path, clips("a", "b")) == {"a": USABLE, "b": retried}


def test_a_result_after_a_torn_line_is_not_lost(tmp_path: Path) -> None:
    """A run that was killed while it wrote a line, and the next run."""
    with open_journal(tmp_path, (0, 1)) as append:
        append(REJECTED)
    journal = tmp_path / "journal" / "0-of-1.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    for _ in range(2):
        with open_journal(tmp_path, (0, 1)) as append:
            append(USABLE)
    assert read_journals(tmp_path, clips("a", "b")) == {"a": USABLE}
    assert len(journal.read_bytes().splitlines()) == 3


def test_rejection_replaces_the_path_of_the_clip_only() -> None:
    error = MediaError("/x/a.mp4 is damaged after 3 frames", kind="damaged", path="/x/a.mp4")
    assert Rejection.from_error("a", error, Path("/x/a.mp4")) == Rejection(
        "a", "the file is damaged after 3 frames", "damaged"
    )
    assert Rejection.from_error("a", error, Path("/x/b.mp4")).reason == "/x/a.mp4 is damaged after 3 frames"
    assert Rejection.from_error("a", MediaError("no face")).kind == "no face"
