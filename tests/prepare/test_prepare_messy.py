"""A folder of thirty files as users have them: usable files are prepared, the others rejected with their reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from avhubert.data.manifest import Clip, read_manifest
from avhubert.data.video import probe, read_gray
from avhubert.prepare.pipeline import prepare

if TYPE_CHECKING:
    from conftest import Messy


@pytest.mark.slow
def test_every_file_is_prepared_or_rejected_with_its_reason(
    messy: Messy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AVHUBERT_CACHE", str(tmp_path / "cache"))
    assert sorted(path.name for path in messy.folder.iterdir()) == sorted(messy.expected)
    dst = tmp_path / "data"
    summary = prepare("folder", messy.folder, dst, workers=2)
    reasons = dict(line.split("\t") for line in (dst / "rejected.tsv").read_text(encoding="utf-8").splitlines())
    clips: dict[str, Clip] = {
        clip.id: clip for split in ("train", "valid", "test") for clip in read_manifest(dst / f"{split}.tsv")
    }
    page = (dst / "report.html").read_text(encoding="utf-8")
    for name, reason in messy.expected.items():
        identifier = name.rsplit(".", 1)[0]
        if reason:
            assert reason in reasons.get(identifier, ""), (identifier, reasons)
            assert identifier in page
        elif name.startswith("30"):
            pieces = [clip for clip in clips.values() if clip.id.startswith(identifier)]
            assert abs(sum(clip.video_frames for clip in pieces) / 25 - messy.long_seconds) < 5
            assert all(4.9 < clip.video_frames / 25 < 15.1 for clip in pieces)
        else:
            assert identifier in clips, (identifier, reasons.get(identifier))
    assert 'alt="23 wall: no face was found' in page  # with its first frame
    assert set(reasons) == {name.rsplit(".", 1)[0] for name, reason in messy.expected.items() if reason}
    assert "05 two people_face2" in clips
    assert summary.rejected.total() == len(reasons)
    # all files show the same face: the clips resemble that of the plain file
    plain = read_gray(clips["01 plain"].video).astype(float)
    for name, reason in messy.expected.items():
        identifier = name.rsplit(".", 1)[0]
        if not reason and not name.startswith(("01", "05", "30")):
            frames = read_gray(clips[identifier].video).astype(float)
            shared = min(len(frames), len(plain))
            assert abs(len(frames) - len(plain)) <= 2, identifier
            assert np.abs(frames[:shared] - plain[:shared]).mean() < 12, identifier


def test_the_generated_files_have_their_intended_properties(messy: Messy) -> None:
    assert len(messy.expected) == 30
    assert round(probe(messy.folder / "03 sixty.mp4").fps, 2) == 59.94
    assert probe(messy.folder / "02 portrait.mp4").has_audio
    assert probe(messy.folder / "30 long.mp4").duration_seconds == pytest.approx(messy.long_seconds, abs=3)
