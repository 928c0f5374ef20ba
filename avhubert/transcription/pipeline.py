"""Any video or sound file to text: a minute at a time → mouth crops and filterbank → windows → recognizer → words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from avhubert.constants import FRAME_RATE, MODALITIES, SAMPLES_PER_FRAME
from avhubert.errors import ConfigError, DataError, MediaError
from avhubert.transcription.modality import choose, dark, offset
from avhubert.transcription.segmenter import LONGEST, Window, join, loudness, movement, windows
from avhubert.transcription.transcript import Segment, Transcript, Word

if TYPE_CHECKING:
    from torch import Tensor

    from avhubert.decode.beam_search import Hypothesis
    from avhubert.model.recognizer import Recognizer
    from avhubert.prepare.mouth import MouthTrack

CHUNK_SECONDS = 60  # read at a time: a video of any length takes the same memory
UNEVEN = 12  # frames by which one stream may outlast the other and still end with it
SHORTEST_LIMIT = 2 * FRAME_RATE  # of windows, for a model that knows only very short speech
FRAMES_PER_BATCH = 800  # decoded at once, padding included


@overload
def transcribe(
    file: str | Path, model: str | Path | Recognizer, modality: str = ..., stream: Literal[False] = ...
) -> Transcript: ...
@overload
def transcribe(
    file: str | Path, model: str | Path | Recognizer, modality: str = ..., *, stream: Literal[True]
) -> Transcription: ...
def transcribe(
    file: str | Path, model: str | Path | Recognizer, modality: str = "auto", stream: bool = False
) -> Transcript | Transcription:
    """Transcribe one video or sound file of any length.

    `modality` 'auto' reads what is there and good enough, minute by minute, of what the model knows: sound and lips, or
    one of them; the transcript says which and why. `stream`: an iterator of segments instead, each given as soon as it
    is decoded, that also carries `warnings` and `transcript()`.

    Raises:
        MediaError: not a video or sound file, or the stream asked for is missing or shows no face at all.
        ConfigError: a modality that the model was not trained for.
        CheckpointError: `model` is not a recognizer.
    """
    from avhubert.checkpoints.load import load_recognizer

    found = Transcription(file, load_recognizer(model), modality)
    return found if stream else found.transcript()


@dataclass
class Chunk:
    """Up to a minute of one file: figures per frame, and what the recognizer reads."""

    start: int  # frame
    frames: int
    final: bool
    samples: np.ndarray | None  # int16 [N]
    level: np.ndarray | None  # dB [frames]
    mouth: np.ndarray | None  # uint8 [frames, 96, 96]
    track: MouthTrack | None
    moved: np.ndarray | None  # [frames]
    problem: MediaError | None  # why there is no mouth

    @staticmethod
    def of(
        start: int, frames: int, final: bool, samples: np.ndarray | None, mouth: np.ndarray | None,
        track: MouthTrack | None, problem: MediaError | None,
    ) -> Chunk:  # fmt: skip
        """With the figures that follow from sound and track."""
        level = None if samples is None else loudness(samples, frames)
        moved = None
        if track is not None:
            moved = movement(track.lip_gap, float(np.median(np.ptp(track.box[:, 1::2], 1))))
        return Chunk(start, frames, final, samples, level, mouth, track, moved, problem)


@dataclass
class Mouth:
    """Where the speaker is, from frame `start` on: face boxes [T, 4], corners of the mouth's window [T, 4, 2]."""

    start: int
    boxes: np.ndarray
    corners: np.ndarray


class Transcription(Iterator[Segment]):
    """The segments of one file, decoded as they are asked for, in order of time.

    warnings: what to beware of, complete when the last segment is out. duration_seconds: of the file by its header,
    0 if that doesn't say. position_seconds: how far it has been read. mouths: where the mouth was seen.
    """

    def __init__(self, file: str | Path, recognizer: Recognizer, modality: str = "auto") -> None:
        from avhubert.data.video import probe
        from avhubert.evaluation.conditions import check_modality

        media = probe(file)
        if modality not in ("auto", *MODALITIES):
            raise ConfigError(f"unknown modality '{modality}'; known: auto, {', '.join(MODALITIES)}")
        if modality != "auto":
            check_modality(recognizer, modality)
        if modality in ("a", "av") and not media.has_audio:
            raise MediaError(f"{file} has no audio track; choose --modality v")
        if modality in ("v", "av") and not media.has_video:
            raise MediaError(f"{file} has no video track; choose --modality a")
        self.file = file
        self.warnings: list[str] = []
        self.duration_seconds = media.duration_seconds
        self.position_seconds = 0.0
        self.mouths: list[Mouth] = []
        self._recognizer = recognizer
        self._asked = modality
        self._known: Sequence[str] = recognizer.metadata.get("modalities") or ("av", "a", "v")
        self._hears = media.has_audio and modality != "v"
        self._sees = media.has_video and modality != "a"
        self._no_picture = "the picture has ended" if media.has_video else "there is no picture"
        self._read_from: Counter[tuple[str, str]] = Counter()  # (modality, reason) → frames
        self._without_speech = 0
        self._problem: MediaError | None = None
        self._segments = self._decoded()
        self._said: list[Segment] = []

    def __iter__(self) -> Transcription:
        return self

    def __next__(self) -> Segment:
        segment = next(self._segments)
        self._said.append(segment)
        return segment

    def transcript(self) -> Transcript:
        """All segments, those that are already out included."""
        for _ in self:
            pass
        (modality, reason), _ = self._read_from.most_common(1)[0]
        return Transcript(
            text=" ".join(segment.text for segment in self._said if segment.text),
            segments=list(self._said),
            modality=modality,
            reason=reason,
            warnings=list(self.warnings),
        )

    # ----------------------------------------------------------------------- reading
    def _decoded(self) -> Iterator[Segment]:
        start, number = 0, 0
        waiting: Segment | None = None  # until what overlaps it is read
        while (chunk := self._read(start)) is not None:
            modality = self._modality(chunk)
            found = self._windows(chunk, modality)
            following = chunk.start + chunk.frames
            if not chunk.final and chunk.frames == CHUNK_SECONDS * FRAME_RATE:
                found, kept = _whole(found)
                following = chunk.start + kept
            read = [window for window in found if window.speech]
            self._without_speech += sum(window.core_end - window.core_start for window in found if not window.speech)
            for window, segment in zip(read, self._segments_of(chunk, read, modality, number), strict=True):
                cut = (chunk.start + window.core_start) / FRAME_RATE
                if waiting is not None:
                    waiting, segment = _joined(waiting, segment, cut) if window.start < window.core_start \
                        else (waiting, segment)  # fmt: skip
                    yield waiting
                waiting = segment
            number += len(read)
            start = following
            self.position_seconds = start / FRAME_RATE
            if chunk.final:
                break
        if waiting is not None:
            yield waiting
        if not self._read_from:
            raise self._problem or MediaError(f"{self.file} has neither sound nor a picture of a face")
        if wordless := sum(not segment.text for segment in self._said):
            where = f"{wordless} of the {len(self._said)} segments that" if wordless < len(self._said) else "what"
            self.warnings.append(
                f"the model found no words in {where} it read: speech unlike its training, or no speech"
            )
        if self._without_speech and not self._said:
            self.warnings.append("no speech was found")
        elif self._without_speech > CHUNK_SECONDS * FRAME_RATE:
            self.warnings.append(f"{self._without_speech / FRAME_RATE:.0f} s without speech were not read")

    def _read(self, start: int) -> Chunk | None:
        """The minute from frame `start` on; None past the end."""
        begin = start / FRAME_RATE
        end = begin + CHUNK_SECONDS
        samples = self._sound(begin, end) if self._hears else None
        track, problem, mouth = None, None, None
        if self._sees:
            from avhubert.prepare.mouth import crops, find_mouth

            try:
                track = find_mouth(self.file, begin, end, sound=samples)
                mouth = np.stack(list(crops(self.file, track, begin, end)))
            except MediaError as error:
                problem = error
                if ended(self.file, begin):
                    problem = None if start else error
                    self._sees = start == 0
        whole = CHUNK_SECONDS * FRAME_RATE
        heard = 0 if samples is None else -(-len(samples) // SAMPLES_PER_FRAME)
        if mouth is not None:
            frames = len(mouth)
            final = frames < whole and heard <= frames + UNEVEN
        elif samples is not None:
            frames, final = max(1, heard), heard < whole and not self._lasts(end)
        elif problem is not None:
            frames, final = whole, not self._lasts(end)
        else:
            return None
        return Chunk.of(start, frames, final, samples, mouth, track, problem)

    def _sound(self, begin: float, end: float) -> np.ndarray | None:
        from avhubert.data.audio import read_audio

        try:
            return read_audio(self.file, begin, end)
        except MediaError:
            if begin == 0:
                raise
            return None  # the picture outlasts it

    def _lasts(self, end: float) -> bool:
        """Whether the picture goes on after `end` seconds."""
        return self._sees and not ended(self.file, end)

    def _modality(self, chunk: Chunk) -> str:
        """What this minute is read from; '' if it cannot be; says so."""
        begin, end = chunk.start / FRAME_RATE, (chunk.start + chunk.frames) / FRAME_RATE
        when = "" if chunk.final and chunk.start == 0 else f"{_minutes(begin)} to {_minutes(end)}: "
        if chunk.track is not None:
            self._keep_place(chunk)
        if chunk.problem is not None:
            self._problem = self._problem or chunk.problem
        there = ("a" if chunk.samples is not None else "") + ("v" if chunk.mouth is not None else "")
        if self._asked != "auto":
            if set(self._asked) <= set(there):
                modality, reason = self._asked, "as asked"
            elif chunk.start == 0 and chunk.final:
                raise chunk.problem or MediaError(f"{self.file} ends before its sound and picture do")
            else:
                rest = there if there in self._known else ""
                lost = "there is no face" if "a" in there else "there is no sound" if there else "there is no face"
                self.warnings.append(f"{when}{lost}; {'the other stream is read alone' if rest else 'it is not read'}")
                if not rest:
                    return ""
                modality, reason = rest, "as much of what was asked as was there"
        elif not there:
            self.warnings.append(f"{when}there is neither sound nor a face; it is not read")
            return ""
        else:
            share = chunk.track.found_share if chunk.track else 0.0
            no_picture = "" if self._sees else self._no_picture
            modality, reason = choose(self._known, chunk.level, chunk.moved, share, str(self.file), no_picture)
            if chunk.problem is not None:
                self.warnings.append(f"{when}{chunk.problem}; only the sound is used")
        if "v" in modality and chunk.track is not None and chunk.mouth is not None:
            told = [*chunk.track.warnings, dark(chunk.mouth)]
            if "a" in modality and chunk.level is not None:
                told.append(offset(chunk.track.lip_gap, chunk.level))
            self.warnings += [when + one for one in told if one]
        self._read_from[modality, reason] += chunk.frames
        return modality

    def _keep_place(self, chunk: Chunk) -> None:
        from avhubert.prepare.geometry import window_corners

        assert chunk.track is not None
        corners = window_corners(chunk.track.transforms, chunk.track.centres)
        self.mouths.append(Mouth(chunk.start, chunk.track.box.astype(np.float32), corners.astype(np.float32)))

    # ----------------------------------------------------------------------- decoding
    def _windows(self, chunk: Chunk, modality: str) -> list[Window]:
        """Windows as long as the model knows speech to be, at most 15 s; none where nothing can be read."""
        if not modality:
            return []
        level, moved = chunk.level if "a" in modality else None, chunk.moved if "v" in modality else None
        return windows(level, moved, self._longest())

    def _longest(self) -> int:
        known = int(self._recognizer.metadata.get("longest_frames") or LONGEST)
        return max(SHORTEST_LIMIT, min(LONGEST, known))

    def _segments_of(self, chunk: Chunk, read: list[Window], modality: str, number: int) -> Iterator[Segment]:
        for group in _batches(read):
            for window, (hypothesis, encoded) in zip(group, self._best(chunk, group, modality), strict=True):
                yield self._segment(chunk, window, hypothesis, encoded, modality, number)
                number += 1
            self.position_seconds = (chunk.start + group[-1].core_end) / FRAME_RATE

    def _best(self, chunk: Chunk, group: list[Window], modality: str) -> list[tuple[Hypothesis, Tensor]]:
        """The best hypothesis and the encoded frames [T, D] of each window."""
        import torch

        from avhubert.data.filterbank import audio_features
        from avhubert.data.video import transform
        from avhubert.decode.beam_search import beam_search

        recognizer = self._recognizer
        device = next(recognizer.parameters()).device
        lengths = [window.end - window.start for window in group]
        longest = max(lengths)
        audio = video = None
        if "a" in modality:
            assert chunk.samples is not None
            audio = torch.zeros(len(group), 104, longest)
            for row, (window, length) in enumerate(zip(group, lengths, strict=True)):
                piece = chunk.samples[window.start * SAMPLES_PER_FRAME : window.end * SAMPLES_PER_FRAME]
                if len(piece) == 0:  # the picture outlasts the sound
                    piece = np.zeros(length * SAMPLES_PER_FRAME, np.int16)
                audio[row, :, :length] = audio_features(piece, length).T
        if "v" in modality:
            assert chunk.mouth is not None
            video = torch.zeros(len(group), 1, longest, 88, 88)
            for row, (window, length) in enumerate(zip(group, lengths, strict=True)):
                video[row, 0, :length] = transform(chunk.mouth[window.start : window.end])
        padding = torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]
        mask = padding.to(device) if padding.any() else None
        with torch.inference_mode():
            encoded = recognizer.encode(
                None if audio is None else audio.to(device), None if video is None else video.to(device), mask
            )
        found = beam_search(recognizer, encoded, mask, recognizer.decode_settings)
        return [(best[0], one[:length]) for best, one, length in zip(found, encoded, lengths, strict=True)]

    def _segment(
        self, chunk: Chunk, window: Window, best: Hypothesis, encoded: Tensor, modality: str, number: int
    ) -> Segment:
        from avhubert.decode.alignment import AlignedWord, align

        assert self._recognizer.tokenizer is not None
        text = self._recognizer.tokenizer.decode(best.tokens)
        try:
            found = align(self._recognizer, encoded, best.tokens, best.posteriors)
        except DataError:  # more symbols than frames: the words are somewhere in the segment
            whole = math.exp(sum(best.posteriors) / len(best.posteriors))
            found = [AlignedWord(word, 0.0, len(encoded) / FRAME_RATE, whole) for word in text.split()]
        begin = (chunk.start + window.start) / FRAME_RATE
        words = [
            Word(one.word, begin + one.start_seconds, begin + one.end_seconds, one.confidence, number) for one in found
        ]
        box = None
        if chunk.track is not None:
            low_x, low_y, high_x, high_y = np.median(chunk.track.box[window.core_start : window.core_end], axis=0)
            box = tuple(round(float(side), 1) for side in (low_x, low_y, high_x, high_y))
        return Segment(
            (chunk.start + window.core_start) / FRAME_RATE,
            (chunk.start + window.core_end) / FRAME_RATE,
            text,
            best.score,
            modality,
            box,  # type: ignore[arg-type]
            tuple(words),
        )


def ended(file: str | Path, begin: float) -> bool:
    """Whether a video has no picture from `begin` seconds on."""
    from avhubert.data.video import read_frames

    try:
        return next(read_frames(file, begin, begin + 1), None) is None
    except MediaError:
        return True


def _joined(before: Segment, after: Segment, cut_seconds: float) -> tuple[Segment, Segment]:
    return tuple(
        replace(segment, words=tuple(words), text=" ".join(word.text for word in words))
        for segment, words in zip((before, after), join(before.words, after.words, cut_seconds), strict=True)
    )  # type: ignore[return-value]


def _whole(found: list[Window]) -> tuple[list[Window], int]:
    """The windows of a minute that surely end in it, and the frame where they do: the next minute begins there.

    Preferably in a pause of its second half; else the last window is left to the next minute, without overlap.
    """
    if len(found) < 2:
        return found, found[-1].core_end if found else CHUNK_SECONDS * FRAME_RATE
    pauses = [
        number
        for number, window in enumerate(found[1:], 1)
        if window.start == window.core_start and window.start > CHUNK_SECONDS * FRAME_RATE // 2
    ]
    kept = found[: pauses[-1] if pauses else -1]
    return [*kept[:-1], replace(kept[-1], end=kept[-1].core_end)], kept[-1].core_end


def _batches(read: list[Window]) -> Iterator[list[Window]]:
    """Neighbouring windows, as many as fit into FRAMES_PER_BATCH."""
    group: list[Window] = []
    for window in read:
        longest = max(one.end - one.start for one in [*group, window])
        if group and longest * (len(group) + 1) > FRAMES_PER_BATCH:
            yield group
            group = []
        group.append(window)
    if group:
        yield group


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
