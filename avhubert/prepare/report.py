"""The report page of a preparation, and the list of rejected inputs."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.corpora.sources import Rejection, SourceClip
from avhubert.data.manifest import REJECTED
from avhubert.data.video import read_gray
from avhubert.errors import MediaError
from avhubert.files import write_text
from avhubert.prepare.clip import media_paths
from avhubert.prepare.log import ERROR_LOG, append_error
from avhubert.prepare.pictures import first_frames
from avhubert.prepare.records import PreparedClip
from avhubert.processes import CRASHED, NO_PROGRESS
from avhubert.report import Page, contact_sheet

SHEET = 40  # clips on the report's contact sheet
MAX_ROWS = 200  # of the report's tables
FATAL = (CRASHED, NO_PROGRESS)  # kinds of rejection whose video is not decoded again


def count_kinds(rejections: Iterable[Rejection]) -> Counter[str]:
    """Number of rejected inputs by kind."""
    return Counter(rejection.kind for rejection in rejections if rejection.is_input)


def write_rejected(dst: Path, rejections: Iterable[Rejection]) -> None:
    """Write DST/rejected.tsv: id and reason of every rejected input."""
    rows = sorted((rejection.id, rejection.reason) for rejection in rejections)
    write_text(dst / REJECTED, "".join(f"{identifier}\t{reason}\n" for identifier, reason in rows))


def try_report(
    dst: Path,
    corpus: str,
    clips: Sequence[PreparedClip],
    rejections: Sequence[Rejection],
    sources: Mapping[str, SourceClip],
) -> list[str]:
    """`write_report`; returns a warning if the report cannot be made, whatever the reason."""
    try:
        write_report(dst, corpus, clips, rejections, sources)
    except Exception as error:
        append_error(dst, "the report", traceback.format_exc())
        return [f"warning: report.html was not written ({type(error).__name__}: {error}); see {ERROR_LOG}"]
    return []


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
    seconds = sum(clip.result.length for clip in clips) / FRAME_RATE
    rejected = sum(rejection.is_input for rejection in rejections)
    page.text(f"{len(clips)} clips, {seconds / 3600:.2f} hours, are ready; {rejected} inputs were rejected.")
    if rejections:
        _add_rejections(page, rejections, sources)
    page.histogram([clip.result.length / FRAME_RATE for clip in clips], "length, seconds")
    with_video = [clip for clip in clips if clip.result.frames]
    page.histogram([100 * clip.result.face_share for clip in with_video], "frames in which the face was detected, %")
    steps = [clip.result.largest_step for clip in with_video]
    page.histogram(steps, "largest step of the crop from frame to frame, pixels of 96")
    warnings = [(clip.id, warning) for clip in clips for warning in clip.result.warnings]
    if warnings:
        page.heading("Warnings")
        page.table(("clip", "warning"), warnings[:MAX_ROWS])
    page.heading("Mouth clips, those with the fewest detected faces first")
    worst = sorted(with_video, key=lambda clip: (clip.result.face_share, clip.id))[:SHEET]
    images = [image for clip in worst if (image := _middle_frame(dst, clip)) is not None]
    if images:
        page.image(contact_sheet(images), "the middle frame of each")
    page.write(dst / "report.html")


def _add_rejections(page: Page, rejections: Sequence[Rejection], sources: Mapping[str, SourceClip]) -> None:
    page.table(("reason", "inputs"), Counter(rejection.kind for rejection in rejections).most_common())
    rows = sorted((rejection.id, rejection.reason) for rejection in rejections)
    page.table(("rejected input", "reason"), rows[:MAX_ROWS])
    if len(rejections) > MAX_ROWS:
        page.text(f"The first {MAX_ROWS} of {len(rejections)}; all of them are in {REJECTED}.")
    videos = sorted((item for item in rejections if item.id in sources), key=lambda item: (item.kind, item.id))
    pictures = first_frames([sources[item.id] for item in videos if item.kind not in FATAL][:SHEET])
    if pictures:
        page.heading("Rejected inputs, by reason")
        for item in videos:
            if item.id in pictures:
                page.image(pictures[item.id], f"{item.id}: {item.reason}")


def _middle_frame(dst: Path, clip: PreparedClip) -> np.ndarray | None:
    """The middle frame of a mouth clip; None if it cannot be read."""
    try:
        frames = read_gray(media_paths(dst, clip.id)[0])
    except MediaError:
        return None
    middle: np.ndarray = frames[len(frames) // 2]
    return middle
