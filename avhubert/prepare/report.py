"""The report page of a preparation, and the list of rejected inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.corpora.sources import Rejection, SourceClip
from avhubert.data.manifest import REJECTED
from avhubert.data.video import read_frames, read_gray
from avhubert.errors import MediaError
from avhubert.files import write_text
from avhubert.prepare.clip import media_paths
from avhubert.prepare.records import PreparedClip
from avhubert.report import Page, contact_sheet

SHEET = 40  # clips on the report's contact sheet
MAX_ROWS = 200  # of the report's tables


def count_kinds(rejections: Iterable[Rejection]) -> Counter[str]:
    """Number of rejected inputs by kind."""
    return Counter(rejection.kind for rejection in rejections if rejection.is_input)


def write_rejected(dst: Path, rejections: Iterable[Rejection]) -> None:
    """Write DST/rejected.tsv: id and reason of every rejected input."""
    rows = sorted((rejection.id, rejection.reason) for rejection in rejections)
    write_text(dst / REJECTED, "".join(f"{identifier}\t{reason}\n" for identifier, reason in rows))


def write_report(
    dst: Path,
    corpus: str,
    clips: Sequence[PreparedClip],
    rejections: Sequence[Rejection],
    sources: Mapping[str, SourceClip],
) -> None:
    """Write DST/report.html.

    Args:
        dst: The output folder.
        corpus: Name of the corpus.
        clips: The usable clips.
        rejections: The rejected inputs.
        sources: All source clips by id.
    """
    page = Page(f"Preparation of {corpus}")
    seconds = sum(clip.result.frames for clip in clips) / FRAME_RATE
    rejected = sum(rejection.is_input for rejection in rejections)
    page.text(f"{len(clips)} clips, {seconds / 3600:.2f} hours, are ready; {rejected} inputs were rejected.")
    if rejections:
        _add_rejections(page, rejections, sources)
    page.histogram([clip.result.frames / FRAME_RATE for clip in clips], "length, seconds")
    page.histogram([100 * clip.result.face_share for clip in clips], "frames in which the face was detected, %")
    warnings = [(clip.id, warning) for clip in clips for warning in clip.result.warnings]
    if warnings:
        page.heading("Warnings")
        page.table(("clip", "warning"), warnings[:MAX_ROWS])
    page.heading("Mouth clips, those with the fewest detected faces first")
    worst = sorted(clips, key=lambda clip: (clip.result.face_share, clip.id))[:SHEET]
    page.image(contact_sheet([_middle_frame(dst, clip) for clip in worst]), "the middle frame of each")
    page.write(dst / "report.html")


def _add_rejections(page: Page, rejections: Sequence[Rejection], sources: Mapping[str, SourceClip]) -> None:
    page.table(("reason", "inputs"), Counter(rejection.kind for rejection in rejections).most_common())
    rows = sorted((rejection.id, rejection.reason) for rejection in rejections)
    page.table(("rejected input", "reason"), rows[:MAX_ROWS])
    if len(rejections) > MAX_ROWS:
        page.text(f"The first {MAX_ROWS} of {len(rejections)}; all of them are in {REJECTED}.")
    videos = sorted((item for item in rejections if item.id in sources), key=lambda item: (item.kind, item.id))
    images = [(item, _first_frame(sources[item.id])) for item in videos[:SHEET]]
    visible = [(item, frame) for item, frame in images if frame is not None]
    if visible:
        page.heading("Rejected inputs, by reason")
        for item, frame in visible:
            page.image(frame, f"{item.id}: {item.reason}")


def _middle_frame(dst: Path, clip: PreparedClip) -> np.ndarray:
    frames = read_gray(media_paths(dst, clip.id)[0])
    middle: np.ndarray = frames[len(frames) // 2]
    return middle


def _first_frame(clip: SourceClip) -> np.ndarray | None:
    """The first frame, at most 160 pixels high, RGB; None if there is none."""
    try:
        frame = next(read_frames(clip.path, clip.start, clip.end), None)
    except MediaError:
        return None
    return None if frame is None else frame[:: -(-frame.shape[0] // 160), :: -(-frame.shape[0] // 160)]
