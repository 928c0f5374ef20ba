"""Several people in one picture: where each is through the whole video, and a transcript of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.errors import ConfigError, MediaError
from avhubert.transcription.pipeline import CHUNK_SECONDS, Chunk, Transcription, ended
from avhubert.transcription.segmenter import Window, windows

if TYPE_CHECKING:
    from avhubert.model.recognizer import Recognizer
    from avhubert.prepare.mouth import MouthTrack
    from avhubert.transcription.transcript import Transcript

PIECE_SECONDS = 15  # faces are followed so long, then linked by their places: who comes or goes costs no more
LEAST_FRAMES = 10  # of a movement that may be speech: landmarks settle in fewer
MIN_OVERLAP = 0.3  # intersection over union of two faces that are one person's


@dataclass
class Person:
    """One face through a video: its mouth's track in pieces, in order of time, each from a frame on."""

    pieces: list[tuple[int, MouthTrack]]

    @property
    def middle(self) -> float:
        """Where the face is from left to right, in pixels."""
        return float(np.median(np.concatenate([track.box[:, 0::2].mean(1) for _, track in self.pieces])))

    @property
    def seconds(self) -> float:
        """How long it is seen."""
        return sum(len(track.box) for _, track in self.pieces) / FRAME_RATE

    def seen(self, frame: int, most: int) -> tuple[int, MouthTrack] | None:
        """The first stretch from `frame` on, of at most `most` frames: where it starts and its track."""
        parts: list[MouthTrack] = []
        begin = end = frame
        for start, track in self.pieces:
            last = start + len(track.box)
            if last <= frame:
                continue
            if not parts:
                begin = end = max(start, frame)
            if start > end or end - begin >= most:
                break
            parts.append(_part(track, end - start, min(last, begin + most) - start))
            end = min(last, begin + most)
        return (begin, _whole(parts)) if parts else None


def find_people(file: str | Path, watch: Callable[[float], None] | None = None) -> list[Person]:
    """Everybody in a video, from left to right. A person is a face that stays at, or comes back to, one place; it
    counts while it is seen in 80 % of the frames of 15 s.

    watch: is called with the seconds that were looked through.

    Raises:
        MediaError: not a video, or no face in it.
    """
    from avhubert.prepare.mouth import find_mouths

    people: list[Person] = []
    begin = 0.0
    while begin == 0 or not ended(file, begin):
        try:
            tracks = find_mouths(file, begin, begin + PIECE_SECONDS, every=True)
        except MediaError:
            if ended(file, 0.0):
                raise
            tracks = []
        free = list(people)
        for track in tracks:
            same = max(free, key=lambda one: _overlap(one, track), default=None)
            if same is None or _overlap(same, track) < MIN_OVERLAP:
                people.append(Person([(round(begin * FRAME_RATE), track)]))
            else:
                same.pieces.append((round(begin * FRAME_RATE), track))
                free.remove(same)
        begin += PIECE_SECONDS
        if watch is not None:
            watch(begin)
    if not people:
        raise MediaError(f"no face was found in {file}")
    return sorted(people, key=lambda one: one.middle)


def transcribe_people(file: str | Path, model: str | Path | Recognizer, modality: str = "auto") -> list[Transcript]:
    """One transcript for each person in a video, from left to right; who is silent has one without text.

    A person is read where the lips move, so that each gets the own words; sound, where the model knows both together,
    helps. `transcribe` reads only the one who speaks most with the sound.

    Raises:
        MediaError: not a video, or no face in it.
        ConfigError: the model doesn't read lips, or `modality` leaves them out.
        CheckpointError: `model` is not a recognizer.
    """
    from avhubert.checkpoints.load import load_recognizer

    recognizer = load_recognizer(model)
    check_lips(recognizer, modality)
    return [PersonTranscription(file, recognizer, modality, one).transcript() for one in find_people(file)]


def check_lips(recognizer: Recognizer, modality: str) -> None:
    """ConfigError unless what is read includes the lips."""
    known = recognizer.metadata.get("modalities") or ("av", "a", "v")
    if modality == "a" or not any("v" in one for one in known):
        raise ConfigError(
            "people are told apart by their lips, which "
            + ("modality 'a' leaves out; choose av, v or auto" if modality == "a" else "this model does not read")
        )


class PersonTranscription(Transcription):
    """The segments of one person: read while the face is seen, where the lips move."""

    def __init__(self, file: str | Path, recognizer: Recognizer, modality: str, person: Person) -> None:
        super().__init__(file, recognizer, modality)
        self._person = person
        self._known = [one for one in self._known if "v" in one]

    def _read(self, start: int) -> Chunk | None:
        from avhubert.data.video import read_frames
        from avhubert.prepare.geometry import crop

        found = self._person.seen(start, CHUNK_SECONDS * FRAME_RATE)
        if found is None:
            return None
        first, track = found
        begin, end = first / FRAME_RATE, (first + len(track.box)) / FRAME_RATE
        # the last picture of a video may be there or not, by where one begins to read
        places = zip(track.transforms, track.centres, strict=True)
        mouth = np.stack([crop(one, *place) for one, place in zip(read_frames(self.file, begin, end), places)])  # noqa: B905
        samples = self._sound(begin, end) if self._hears else None
        following = self._person.seen(first + len(mouth) + 1, 1)
        return Chunk.of(first, len(mouth), following is None, samples, mouth, _part(track, 0, len(mouth)), None)

    def _windows(self, chunk: Chunk, modality: str) -> list[Window]:
        if not modality:
            return []
        found = windows(None, chunk.moved, self._longest())
        return [one if one.core_end - one.core_start >= LEAST_FRAMES else replace(one, speech=False) for one in found]


def _part(track: MouthTrack, first: int, last: int) -> MouthTrack:
    return replace(
        track,
        transforms=track.transforms[first:last],
        centres=track.centres[first:last],
        lip_gap=track.lip_gap[first:last],
        box=track.box[first:last],
    )


def _whole(parts: list[MouthTrack]) -> MouthTrack:
    lengths = [len(one.box) for one in parts]
    return replace(
        parts[0],
        transforms=np.concatenate([one.transforms for one in parts]),
        centres=np.concatenate([one.centres for one in parts]),
        lip_gap=np.concatenate([one.lip_gap for one in parts]),
        box=np.concatenate([one.box for one in parts]),
        found_share=float(np.average([one.found_share for one in parts], weights=lengths)),
        warnings=tuple(dict.fromkeys(warning for one in parts for warning in one.warnings)),
    )


def _overlap(person: Person, track: MouthTrack) -> float:
    from avhubert.prepare.detectors.interface import overlap

    return overlap(person.pieces[-1][1].box[-1], track.box[0])
