"""The report page of a preparation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.corpora.sources import SourceClip
from avhubert.data.video import read_frames, read_gray
from avhubert.errors import MediaError
from avhubert.prepare.clip import media_paths
from avhubert.prepare.records import Done
from avhubert.report import Page, contact_sheet

SHEET = 40  # clips on the report's contact sheet

LISTED = 200  # rows of the report's tables


def kind_of(reason: str) -> str:
    """A reason without the names and numbers of one clip, to count by."""
    return reason.split(" (", 1)[0].split(": ", 1)[0]


# --------------------------------------------------------------------------- the report
def write_report(
    dst: Path,
    corpus: str,
    clips: Sequence[SourceClip],
    done: dict[str, Done],
    outcomes: dict[str, str],
    sources: dict[str, SourceClip],
) -> None:
    page = Page(f"Preparation of {corpus}")
    seconds = sum(done[clip.id].frames for clip in clips) / FRAME_RATE
    page.text(f"{len(clips)} clips, {seconds / 3600:.2f} hours, are ready; {len(outcomes)} inputs were left out.")
    if outcomes:
        page.table(("reason", "inputs"), Counter(kind_of(reason) for reason in outcomes.values()).most_common())
        page.table(("left out", "why"), sorted(outcomes.items())[:LISTED])
        if len(outcomes) > LISTED:
            page.text(f"The first {LISTED} of {len(outcomes)}; all of them are in rejected.tsv.")
        seen = [one for one in sorted(outcomes, key=lambda one: (kind_of(outcomes[one]), one)) if one in sources]
        pictures = ((one, _first_picture(sources[one])) for one in seen[:SHEET])
        shown = [(one, picture) for one, picture in pictures if picture is not None]
        if shown:
            page.heading("What was left out, by reason")
            for one, picture in shown:
                page.image(picture, f"{one}: {outcomes[one]}")
    page.histogram([done[clip.id].frames / FRAME_RATE for clip in clips], "length, seconds")
    page.histogram([100 * done[clip.id].found_share for clip in clips], "frames in which the face was found, %")
    noted = [(clip.id, warning) for clip in clips for warning in done[clip.id].warnings]
    if noted:
        page.heading("Warnings")
        page.table(("clip", "warning"), noted[:LISTED])
    page.heading("Mouth clips, those with the fewest faces first")
    worst = sorted(clips, key=lambda clip: (done[clip.id].found_share, clip.id))[:SHEET]
    middles = []
    for clip in worst:
        frames = read_gray(media_paths(dst, clip.id)[0])
        middles.append(frames[len(frames) // 2])
    page.image(contact_sheet(middles), "the middle frame of each")
    page.write(dst / "report.html")


def _first_picture(clip: SourceClip) -> np.ndarray | None:
    """Its first frame, at most 160 pixels high, RGB; None if it has none."""
    try:
        picture = next(read_frames(clip.path, clip.start, clip.end), None)
    except MediaError:
        return None
    return None if picture is None else picture[:: -(-picture.shape[0] // 160), :: -(-picture.shape[0] // 160)]
