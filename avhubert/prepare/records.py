"""Records that the parts of a preparation exchange: the outcome of a clip, a usable clip, the summary."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from avhubert.constants import SAMPLES_PER_FRAME
from avhubert.corpora.sources import Rejection, SourceClip


@dataclass(frozen=True)
class ClipResult:
    """The outcome of one source clip.

    Attributes:
        id: Id of the source clip.
        rejection: Why the clip is rejected; None if it is usable.
        frames: Number of video frames; 0: the clip has no video.
        samples: Number of audio samples; 0: the clip has no audio.
        face_share: Share of frames in which the speaker's face was detected.
        warnings: Messages for the user about the video.
        fingerprint: Size and time of the input and of its landmark file; if it changes, the clip is prepared again.
        other_face_shares: `face_share` of each other face that became a clip.
        traceback: Of an unexpected error, for the log; '' if there was none.
        largest_step: How far the crop moves between two frames at most, in pixels of the crop.
        cut: Of a clip that is rejected because of a cut: the first frame after the cut, and the number of frames.
    """

    id: str
    rejection: Rejection | None = None
    frames: int = 0
    samples: int = 0
    face_share: float = 0.0
    warnings: tuple[str, ...] = ()
    fingerprint: str = ""
    other_face_shares: tuple[float, ...] = ()
    traceback: str = ""
    largest_step: float = 0.0
    cut: tuple[int, int] | None = None

    @property
    def length(self) -> int:
        """Length in video frames, also of a clip without video."""
        return self.frames or round(self.samples / SAMPLES_PER_FRAME)


@dataclass(frozen=True)
class PreparedClip:
    """A usable clip: its source and its outcome."""

    source: SourceClip
    result: ClipResult

    @property
    def id(self) -> str:
        """Id of the clip."""
        return self.source.id


Splits = dict[str, list[PreparedClip]]  # clips by name of the split


@dataclass(frozen=True)
class Assignment:
    """The splits of every data directory.

    Attributes:
        directories: Splits by data directory.
        notes: Messages for the user.
        rejections: Clips that belong to no split.
    """

    directories: dict[Path, Splits]
    notes: list[str] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


@dataclass(frozen=True)
class Summary:
    """The outcome of a preparation.

    Attributes:
        usable: Number of usable clips.
        rejected: Number of rejected inputs by kind of reason.
        directories: Data directories that were written.
        waiting_for: Number of clips that other shards have not prepared yet.
        notes: Messages for the user.
    """

    usable: int
    rejected: Counter[str] = field(default_factory=Counter)
    directories: tuple[Path, ...] = ()
    waiting_for: int = 0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.usable} clips are ready"]
        if self.rejected:
            lines.append(f"{self.rejected.total()} inputs were rejected; rejected.tsv names each with its reason:")
            lines += [f"  {count} × {kind}" for kind, count in self.rejected.most_common()]
        if self.waiting_for:
            lines.append(f"the manifests wait for {self.waiting_for} clips of other shards")
        lines += [*self.notes, *(f"data directory: {directory}" for directory in self.directories)]
        return "\n".join(lines)
