"""Transcribes a video or audio file of any length, chunk by chunk.

Reader → streams that are usable → windows that end in pauses → beam search → segments with words and times.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from avhubert.config.command_defaults import BUILTIN_MODEL
from avhubert.constants import FRAME_RATE, SAMPLE_RATE
from avhubert.data.media import AUTOMATIC, DamageLog, StreamChoice
from avhubert.data.video import MediaInfo, probe
from avhubert.errors import MediaError
from avhubert.transcription.modality import AUTO, Selection, check_request, check_vad, no_speech, select_streams
from avhubert.transcription.plausibility import implausible
from avhubert.transcription.reader import Chunk, MouthRegions, Reader
from avhubert.transcription.segmenter import (
    EMPTY,
    Window,
    active_frames,
    complete_windows,
    cut_windows,
    find_windows,
    join_segments,
    longest_window,
    spans,
)
from avhubert.transcription.transcript import Segment, Transcript

if TYPE_CHECKING:
    from avhubert.model.recognizer import Recognizer

MAX_EXCESS_SECONDS = 0.1  # by which what was read may be longer than the header says because of rounding


@overload
def transcribe(
    file: str | Path, model: str | Path | Recognizer = ..., modality: str = ..., stream: Literal[False] = ...,
    *, device: str = ..., precision: str = ..., decode: Mapping[str, Any] | None = ..., streams: StreamChoice = ...,
    vad: str = ...,
) -> Transcript: ...  # fmt: skip
@overload
def transcribe(
    file: str | Path, model: str | Path | Recognizer = ..., modality: str = ..., *, stream: Literal[True],
    device: str = ..., precision: str = ..., decode: Mapping[str, Any] | None = ..., streams: StreamChoice = ...,
    vad: str = ...,
) -> Transcription: ...  # fmt: skip
def transcribe(
    file: str | Path,
    model: str | Path | Recognizer = BUILTIN_MODEL,
    modality: str = AUTO,
    stream: bool = False,
    *,
    device: str = AUTO,
    precision: str = AUTO,
    decode: Mapping[str, Any] | None = None,
    streams: StreamChoice = AUTOMATIC,
    vad: str = AUTO,
) -> Transcript | Transcription:
    """Transcribes one video or audio file of any length.

    Args:
        file: The file.
        model: Model directory, published checkpoint, name on the Hub, loaded recognizer, or 'builtin', the small model
            inside the package, which knows 51 words.
        modality: Streams to read: 'av', 'a' or 'v'. 'auto' decides for each minute which of the streams are usable;
            the transcript says which and why.
        stream: Return a `Transcription` instead: an iterator of segments, each available as soon as it is decoded.
        device: 'auto' (a GPU if there is one), 'cpu', 'cuda', 'cuda:N' or 'mps'. The model is moved there.
        precision: 'auto' (bf16 on a GPU that supports it, else fp32), 'fp32', 'bf16' or 'fp16'.
        decode: Settings of the beam search that replace those of the model, such as `{"beam": 10}`; the names are those
            of `decode` in the configuration.
        streams: Which of several audio or video streams are read; default: the default ones, unless they are silent or
            still and others are not.
        vad: 'auto': audio without speech (music, noise, applause) is not read; 'off': all audio is read.

    Raises:
        MediaError: `file` is not a video or audio file, or lacks a requested stream, or shows no face.
        ConfigError: The model was not trained for the modality; the device, the precision or a setting is unknown or
            cannot be used here.
        CheckpointError: `model` is not a recognizer.
    """
    from avhubert.checkpoints.load import load_recognizer

    transcription = Transcription(
        file,
        load_recognizer(model),
        modality,
        device=device,
        precision=precision,
        decode=decode,
        streams=streams,
        vad=vad,
    )
    return transcription if stream else transcription.transcript()


class Transcription(Iterator[Segment]):
    """Iterator over the segments of one file in order of time; each is decoded when it is requested.

    Attributes:
        file: The file.
        warnings: Problems of the recording; complete after the last segment.
        duration_seconds: Duration by the header of the file; 0 if the header does not have it.
        position_seconds: How far the file has been transcribed.
        mouths: Where the speaker's face and mouth were.
        reader: The reader of the file.
    """

    def __init__(
        self,
        file: str | Path,
        recognizer: Recognizer,
        modality: str = AUTO,
        *,
        device: str = AUTO,
        precision: str = AUTO,
        decode: Mapping[str, Any] | None = None,
        streams: StreamChoice = AUTOMATIC,
        vad: str = AUTO,
        reader: Callable[[str | Path, bool, bool], Reader] = Reader,
        read_header: Callable[[Any, StreamChoice, DamageLog], MediaInfo] = probe,
    ) -> None:
        """Opens the file; see `transcribe` for the arguments.

        Args:
            file: The file.
            recognizer: The recognizer.
            modality: Streams to read.
            device: Device of the model.
            precision: Number format of the model's computations.
            decode: Settings of the beam search.
            streams: Which of several audio or video streams are read.
            vad: Whether audio without speech is skipped.
            reader: Makes the reader, from the file and whether audio and video are read.
            read_header: Reads the streams of the file, as `probe`.
        """
        from avhubert.transcription.decoding import WindowDecoder

        damage = DamageLog()
        media = read_header(file, streams, damage)
        check_request(modality, media, recognizer, file)
        check_vad(vad)
        self.file = file
        self.warnings: list[str] = []
        self.duration_seconds = media.duration_seconds
        self.position_seconds = 0.0
        self.mouths: list[MouthRegions] = []
        self.reader = reader(file, media.has_audio and modality != "v", media.has_video and modality != "a")
        self.reader.streams, self.reader.damage = streams, damage
        self.reader.preparation = recognizer.metadata.preparation()
        self._decoder = WindowDecoder(recognizer, device, precision, decode)
        self._requested = modality
        self._detect_speech = vad == AUTO
        self._supported: Sequence[str] = recognizer.metadata.supported_modalities()
        self._missing_video = "the video has ended" if media.has_video else "there is no video"
        self._frames_read: Counter[tuple[str, str]] = Counter()  # by modality and reason
        self._frames_decoded: Counter[tuple[str, str]] = Counter()  # the same, only what became segments
        self._frames_without_speech = 0
        self._frames_of_noise = 0  # loud, but without speech
        self._first_problem: MediaError | None = None
        self._end_seconds = math.inf  # of what has been read
        self._segments: list[Segment] = []
        self._decoded = self._decode_file()

    def __iter__(self) -> Transcription:
        return self

    def __next__(self) -> Segment:
        segment = _until(next(self._decoded), self._end_seconds)
        self._segments.append(segment)
        return segment

    def transcript(self) -> Transcript:
        """The transcript of the whole file, including the segments that the iterator has already returned."""
        for _ in self:
            pass
        modality, reason = _summary(self._frames_decoded or self._frames_read)
        text = " ".join(segment.text for segment in self._segments if segment.text)
        return Transcript(text, list(self._segments), modality, reason, list(self.warnings))

    # ----------------------------------------------------------------------- one file
    def _decode_file(self) -> Iterator[Segment]:
        start, number = 0, 0
        pending: Segment | None = None  # until the window that may overlap it is decoded
        while (chunk := self.reader.read(start)) is not None:
            self._end_seconds = _end_seconds(chunk, self.duration_seconds)
            selection = self._select_streams(chunk)
            windows, start = self._cut(chunk, selection)
            for window, segment in self._decode(chunk, windows, selection, number):
                if pending is not None:
                    if window.overlaps_previous:
                        cut = (chunk.start + window.core_start) / FRAME_RATE
                        pending, segment = join_segments(pending, segment, cut)
                    yield pending
                pending = segment
            number += len(windows)
            self.position_seconds = start / FRAME_RATE
            if chunk.final:
                break
        if pending is not None:
            yield pending
        self._finish()

    def _finish(self) -> None:
        self.warnings = [*self.reader.damage.sentences(), *self.warnings]
        if not self._frames_read:
            raise self._first_problem or MediaError(f"{self.file} has neither audio nor a face", path=self.file)
        segments = len(self._segments)
        if wordless := sum(not segment.text for segment in self._segments):
            where = f"{wordless} of the {segments} segments that" if wordless < segments else "what"
            self.warnings.append(
                f"the model found no words in {where} it read: speech unlike its training, or no speech"
            )
        self.warnings += implausible(self._segments)
        if self._frames_without_speech and not segments:
            self.warnings.append(no_speech({modality for modality, _ in self._frames_read}))
        if self._frames_of_noise > EMPTY:
            self.warnings.append(
                f"{self._frames_of_noise / FRAME_RATE:.0f} s of music or noise without speech were not read; "
                "if somebody speaks there, read all (--vad off)"
            )
        elif segments and self._frames_without_speech > self.reader.chunk_frames:
            self.warnings.append(f"{self._frames_without_speech / FRAME_RATE:.0f} s without speech were not read")

    # ----------------------------------------------------------------------- one chunk
    def _select_streams(self, chunk: Chunk) -> Selection:
        """The streams of the chunk to read. Records the warnings."""
        from avhubert.transcription.speech_activity import voiced_frames

        if self._detect_speech and chunk.samples is not None:
            chunk.voiced = voiced_frames(chunk.samples, chunk.frames)
        if chunk.track is not None:
            self.mouths += _mouth_regions(chunk)
        if chunk.problem is not None:
            self._first_problem = self._first_problem or chunk.problem
        no_video = "" if self.reader.use_video else self._missing_video
        selection = select_streams(chunk, self._requested, self._supported, self.file, no_video)
        self.warnings += selection.warnings
        if selection.modality:
            self._frames_read[selection.modality, selection.reason] += chunk.frames
        return selection

    def _cut(self, chunk: Chunk, selection: Selection) -> tuple[list[Window], int]:
        """The windows of the chunk that have speech, and the first frame of the next chunk."""
        modality = selection.modality
        windows = self._windows(chunk, modality) if modality else []
        if chunk.visible is not None and selection.without_face and selection.without_face[0] != modality:
            changes = np.flatnonzero(np.diff(chunk.visible)) + 1
            windows = cut_windows(windows, changes.tolist(), self._longest_window())
        end = chunk.frames
        if not chunk.final and chunk.frames == self.reader.chunk_frames:
            windows, end = complete_windows(windows, chunk.frames)
        self._frames_without_speech += sum(window.core_frames for window in windows if not window.speech)
        if modality:
            level, moved, voiced = _activity(chunk, modality)
            noise = active_frames(level, moved, None) & ~active_frames(level, moved, voiced)
            self._frames_of_noise += int(noise[:end].sum())
        return [window for window in windows if window.speech], chunk.start + end

    def _windows(self, chunk: Chunk, modality: str) -> list[Window]:
        level, moved, voiced = _activity(chunk, modality)
        return find_windows(level, moved, self._longest_window(), voiced)

    def _longest_window(self) -> int:
        return longest_window(self._decoder.recognizer.metadata.longest_frames)

    def _decode(
        self, chunk: Chunk, windows: list[Window], selection: Selection, number: int
    ) -> Iterator[tuple[Window, Segment]]:
        from avhubert.transcription.decoding import batches

        for (modality, reason), group in itertools.groupby(windows, lambda window: selection.of_window(chunk, window)):
            for batch in batches(list(group)):
                self._frames_decoded[modality, reason] += sum(window.core_frames for window in batch)
                yield from zip(batch, self._decoder.segments(chunk, batch, modality, number), strict=True)
                number += len(batch)
                self.position_seconds = (chunk.start + batch[-1].core_end) / FRAME_RATE


def _summary(frames: Counter[tuple[str, str]]) -> tuple[str, str]:
    """The modality that most was read from and the reason; the reason also tells what else was read and why."""
    modalities: Counter[str] = Counter()
    for (modality, _), count in frames.items():
        modalities[modality] += count
    ((main, _),) = modalities.most_common(1)
    reasons = {modality: reason for (modality, reason), _ in reversed(frames.most_common())}
    others = [
        f"{count / FRAME_RATE:.0f} s from {modality}: {reasons[modality]}"
        for modality, count in modalities.most_common()
        if modality != main and count >= FRAME_RATE
    ]
    return main, "; ".join([reasons[main], *others])


def _end_seconds(chunk: Chunk, header_seconds: float) -> float:
    """Where the chunk ends: frames of 0.04 s may reach beyond the last sample and the end of the file."""
    end = (chunk.start + chunk.frames) / FRAME_RATE
    if chunk.mouth is None and chunk.samples is not None:
        end = min(end, chunk.start / FRAME_RATE + len(chunk.samples) / SAMPLE_RATE)
    return header_seconds if end - MAX_EXCESS_SECONDS < header_seconds < end else end


def _until(segment: Segment, end: float) -> Segment:
    """The segment without times after `end` seconds."""
    if segment.end <= end and all(word.end <= end for word in segment.words):
        return segment
    words = [replace(word, start=min(word.start, end), end=min(word.end, end)) for word in segment.words]
    return replace(segment, start=min(segment.start, end), end=min(segment.end, end), words=tuple(words))


def _activity(chunk: Chunk, modality: str) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Level of the audio, movement of the lips, frames with speech in the audio; None of a stream that is not read."""
    level, voiced = (chunk.loudness, chunk.voiced) if "a" in modality else (None, None)
    return level, chunk.movement if "v" in modality else None, voiced


def _mouth_regions(chunk: Chunk) -> list[MouthRegions]:
    """Where the mouth is, for each stretch in which the face is visible."""
    assert chunk.track is not None
    assert chunk.visible is not None
    corners = chunk.track.corners().astype(np.float32)
    return [
        MouthRegions(chunk.start + start, chunk.track.box[start:end].astype(np.float32), corners[start:end])
        for start, end in spans(chunk.visible)
    ]
