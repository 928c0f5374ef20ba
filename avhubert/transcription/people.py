"""Videos of several people: finds each person's face through the whole video and transcribes each person."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avhubert.config.command_defaults import BUILTIN_MODEL
from avhubert.config.input_preparation import MEAN_FACE
from avhubert.constants import FRAME_RATE
from avhubert.data.media import AUTOMATIC, MediaPart, StreamChoice
from avhubert.data.shots import Shot, ShotDetector
from avhubert.errors import ConfigError, MediaError
from avhubert.transcription.modality import AUTO, OFF
from avhubert.transcription.pipeline import Transcription
from avhubert.transcription.reader import Chunk, Reader, video_ended
from avhubert.transcription.segmenter import Window, find_windows

if TYPE_CHECKING:
    from avhubert.model.recognizer import Recognizer
    from avhubert.prepare.mouth import MouthTrack
    from avhubert.transcription.transcript import Transcript

PIECE_SECONDS = 15  # faces are tracked within a piece; tracks of neighbouring pieces are linked by their positions
MIN_OVERLAP = 0.3  # intersection over union of two face boxes of the same person
SURROUNDINGS = 1.5  # times a face's box; the part of the frames that is compared across a cut
MIN_SPEECH_FRAMES = 10  # shorter lip movements are not decoded: landmarks move as much when a track starts


@dataclass(frozen=True)
class TrackPiece:
    """The track of a face in one shot, from frame `start` of the video on."""

    start: int
    track: MouthTrack
    shot: Shot

    @property
    def end(self) -> int:
        """Frame after the last one."""
        return self.start + len(self.track.box)


@dataclass
class Person:
    """One person of a video: the tracks of the face in order of time."""

    pieces: list[TrackPiece]

    @property
    def middle(self) -> float:
        """Horizontal position of the face in pixels."""
        return float(np.median(np.concatenate([piece.track.box[:, 0::2].mean(1) for piece in self.pieces])))

    @property
    def seconds(self) -> float:
        """Time for which the face is visible."""
        return sum(len(piece.track.box) for piece in self.pieces) / FRAME_RATE

    def visible(self, frame: int, max_frames: int) -> TrackPiece | None:
        """The first continuous track from `frame` on, cut to `max_frames`; None if the face is not visible again."""
        parts: list[MouthTrack] = []
        begin = end = frame
        for piece in self.pieces:
            if piece.end <= frame:
                continue
            if not parts:
                begin = end = max(piece.start, frame)
            if piece.start > end or end - begin >= max_frames:
                break
            stop = min(piece.end, begin + max_frames)
            parts.append(_cut_track(piece.track, end - piece.start, stop - piece.start))
            end, shot = stop, piece.shot
        return TrackPiece(begin, _concatenate_tracks(parts), shot) if parts else None


def find_people(
    file: str | Path,
    on_progress: Callable[[float], None] | None = None,
    streams: StreamChoice = AUTOMATIC,
    crop: str = MEAN_FACE,
) -> list[Person]:
    """All people in a video, from left to right.

    A person is a face that stays at one position or returns to it. After a cut, a face is another person, unless the
    frames show the same around it as when a person was seen last: the camera returns to the person. In each shot, and
    in each piece of 15 s of a long one, only faces that are visible in 80 % of the frames count.

    Args:
        file: The video.
        on_progress: Called with the number of seconds that have been searched.
        streams: Which of several streams are read.
        crop: The crop that the model reads.

    Raises:
        MediaError: `file` is not a video, or shows no face.
    """
    from avhubert.data.video import probe
    from avhubert.prepare.mouth import find_mouths_by_shot

    media = probe(file, streams)
    size = np.array([media.width, media.height] * 2)
    people: list[Person] = []
    shots = ShotDetector()
    begin = 0.0
    while begin == 0 or not video_ended(file, begin, streams):
        try:
            mouths = find_mouths_by_shot(MediaPart(file, begin, begin + PIECE_SECONDS, streams), shots, crop)
        except MediaError:
            if video_ended(file, 0.0, streams):
                raise
            mouths = []
        first = round(begin * FRAME_RATE)
        for start, group in itertools.groupby(mouths, key=lambda mouth: mouth.start):
            _link(people, [TrackPiece(first + start, mouth.track, mouth.shot) for mouth in group], size)
        begin += PIECE_SECONDS
        if on_progress is not None:
            on_progress(begin)
    if not people:
        raise MediaError(f"no face was found in {file}", path=file)
    return sorted(people, key=lambda person: person.middle)


def _link(people: list[Person], pieces: list[TrackPiece], size: np.ndarray) -> None:
    """Adds each piece to the person whose face was at the same position, or as a new person.

    Args:
        people: The people so far.
        pieces: Pieces that begin at the same frame.
        size: Width, height, width and height of the frames.
    """
    unmatched = list(people)
    for piece in pieces:
        candidates = [person for person in unmatched if _can_be(person, piece, size)]
        nearest = max(candidates, key=lambda person: _overlap(person, piece.track), default=None)
        if nearest is None or _overlap(nearest, piece.track) < MIN_OVERLAP:
            people.append(Person([piece]))
        else:
            nearest.pieces.append(piece)
            unmatched.remove(nearest)


def _can_be(person: Person, piece: TrackPiece, size: np.ndarray) -> bool:
    """Whether no cut is between a piece and the last one of a person, or the face is the same after the cut."""
    last = person.pieces[-1]
    if last.shot is piece.shot:
        return True
    box = last.track.box[-1]
    middle, half = (box[:2] + box[2:]) / 2, SURROUNDINGS * (box[2:] - box[:2]) / 2
    return last.shot.is_continued(piece.shot, np.concatenate([middle - half, middle + half]) / size)


def transcribe_people(
    file: str | Path,
    model: str | Path | Recognizer = BUILTIN_MODEL,
    modality: str = AUTO,
    *,
    device: str = AUTO,
    precision: str = AUTO,
    decode: Mapping[str, Any] | None = None,
) -> list[Transcript]:
    """Transcribes each person in a video, from left to right; somebody who is silent gets a transcript without text.

    A person is read while the person's lips move. Audio is used too if the model was trained on both streams together.
    `transcribe` reads one person only: the one whose mouth motion matches the audio.

    Args:
        file: The video.
        model: The recognizer, see `transcribe`.
        modality: Streams to read: 'av', 'v' or 'auto'.
        device: Device of the model, see `transcribe`.
        precision: Number format of the model's computations, see `transcribe`.
        decode: Settings of the beam search, see `transcribe`.

    Raises:
        MediaError: `file` is not a video, or shows no face.
        ConfigError: The model does not read lips, or `modality` excludes them; the device, the precision or a setting
            is unknown or cannot be used here.
        CheckpointError: `model` is not a recognizer.
    """
    from avhubert.checkpoints.load import load_recognizer

    recognizer = load_recognizer(model)
    check_lip_reading(recognizer, modality)
    return [
        PersonTranscription(
            file, recognizer, person, modality, device=device, precision=precision, decode=decode
        ).transcript()
        for person in find_people(file, crop=recognizer.metadata.preparation().crop)
    ]


def check_lip_reading(recognizer: Recognizer, modality: str) -> None:
    """Checks that a recognizer reads lips and that the requested modality includes them.

    Raises:
        ConfigError: It does not.
    """
    if modality == "a" or not any("v" in supported for supported in recognizer.metadata.supported_modalities()):
        raise ConfigError(
            "people are told apart by their lips, which "
            + ("modality 'a' leaves out; choose av, v or auto" if modality == "a" else "this model does not read")
        )


class PersonReader(Reader):
    """Reads a file where the face of one person is visible."""

    def __init__(self, person: Person, file: str | Path, use_audio: bool, use_video: bool) -> None:
        super().__init__(file, use_audio, use_video)
        self.person = person

    def read(self, start: int) -> Chunk | None:
        """The next chunk in which the person is visible, from frame `start` on; None if there is none."""
        from avhubert.data.video import read_frames_part

        piece = self.person.visible(start, self.chunk_frames)
        if piece is None:
            return None
        begin, end = piece.start / FRAME_RATE, piece.end / FRAME_RATE
        # not strict: whether the last frame of a video can be decoded depends on where reading begins
        frames = zip(read_frames_part(self.part(begin, end)), range(len(piece.track.box)), strict=False)
        mouth = np.stack([piece.track.crop(frame, index) for frame, index in frames])
        samples = self.read_audio(begin, end) if self.use_audio else None
        following = self.person.visible(piece.start + len(mouth) + 1, 1)
        return Chunk(
            start=piece.start,
            frames=len(mouth),
            final=following is None,
            samples=samples,
            mouth=mouth,
            track=_cut_track(piece.track, 0, len(mouth)),
        )


class PersonTranscription(Transcription):
    """The segments of one person: the windows in which the person's lips move."""

    def __init__(
        self,
        file: str | Path,
        recognizer: Recognizer,
        person: Person,
        modality: str = AUTO,
        *,
        device: str = AUTO,
        precision: str = AUTO,
        decode: Mapping[str, Any] | None = None,
        streams: StreamChoice = AUTOMATIC,
    ) -> None:
        super().__init__(
            file, recognizer, modality, device=device, precision=precision, decode=decode, streams=streams, vad=OFF,
            reader=partial(PersonReader, person),
        )  # fmt: skip
        self._supported = [supported for supported in self._supported if "v" in supported]

    def _windows(self, chunk: Chunk, modality: str) -> list[Window]:
        windows = find_windows(None, chunk.movement, self._longest_window())
        return [
            window if window.core_frames >= MIN_SPEECH_FRAMES else replace(window, speech=False) for window in windows
        ]


def _cut_track(track: MouthTrack, first: int, last: int) -> MouthTrack:
    return track.select(slice(first, last))


def _concatenate_tracks(tracks: list[MouthTrack]) -> MouthTrack:
    lengths = [len(track.box) for track in tracks]
    return replace(
        tracks[0],
        transforms=np.concatenate([track.transforms for track in tracks]),
        centres=np.concatenate([track.centres for track in tracks]),
        lip_gap=np.concatenate([track.lip_gap for track in tracks]),
        box=np.concatenate([track.box for track in tracks]),
        detected=np.concatenate([track.detected for track in tracks]),
        squares=_concatenate([track.squares for track in tracks]),
        face_share=float(np.average([track.face_share for track in tracks], weights=lengths)),
        warnings=tuple(dict.fromkeys(warning for track in tracks for warning in track.warnings)),
    )


def _concatenate(arrays: list[np.ndarray | None]) -> np.ndarray | None:
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if present else None


def _overlap(person: Person, track: MouthTrack) -> float:
    from avhubert.prepare.detectors.interface import overlap

    return overlap(person.pieces[-1].track.box[-1], track.box[0])
