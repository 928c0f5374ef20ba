"""Any video or sound file to text: mouth crop and filterbank → windows of at most 15 s → recognizer → text."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from avhubert.errors import AvhubertError, ConfigError, DataError, MediaError
from avhubert.files import output_directory, write_text

if TYPE_CHECKING:
    import numpy as np

    from avhubert.model.recognizer import Recognizer

MAX_WINDOW_SECONDS = 15.0
FORMATS = ("txt", "srt", "vtt", "json")


@dataclass(frozen=True)
class Word:
    """A word, its times in seconds from the file's start, how probable the recognizer finds it (0 … 1), its segment."""

    text: str
    start: float
    end: float
    confidence: float
    segment: int


@dataclass(frozen=True)
class Segment:
    """One decoded window; times in seconds from the file's start."""

    start: float
    end: float
    text: str
    score: float


@dataclass(frozen=True)
class Transcript:
    """What was said in a file, with what it was read from ('av', 'a' or 'v') and what to beware of."""

    text: str
    segments: list[Segment]
    words: list[Word]
    modality: str
    warnings: list[str] = field(default_factory=list)


def transcribe(file: str | Path, model: str | Recognizer, modality: str = "auto") -> Transcript:
    """Transcribe one video or sound file.

    `modality` 'auto' takes every stream that the file has and the model knows: the sound, and the
    picture if a face is found in it.

    Raises:
        MediaError: not a video or sound file, or the stream asked for is missing.
        ConfigError: a modality that the model was not trained for.
        CheckpointError: `model` is not a recognizer.
    """
    from avhubert.data.video import probe
    from avhubert.decode.evaluate import check_modality

    recognizer = _recognizer(model)
    media = probe(file)
    if modality != "auto":
        check_modality(recognizer, modality)
    if modality in ("a", "av") and not media.has_audio:
        raise MediaError(f"{file} has no audio track; choose --modality v")
    if modality in ("v", "av") and not media.has_video:
        raise MediaError(f"{file} has no video track; choose --modality a")
    warnings: list[str] = []
    mouth = None
    if media.has_video and modality in ("auto", "v", "av"):
        mouth = _mouth(file, modality == "auto" and media.has_audio, warnings)
    samples = None
    if media.has_audio and modality in ("auto", "a", "av"):
        from avhubert.data.audio import read_audio

        samples = read_audio(file)
    chosen = modality if modality != "auto" else _choose(recognizer, mouth is not None, samples is not None, str(file))
    segments, words = _decode(recognizer, mouth if "v" in chosen else None, samples if "a" in chosen else None)
    return Transcript(
        text=" ".join(segment.text for segment in segments if segment.text),
        segments=segments,
        words=words,
        modality=chosen,
        warnings=warnings,
    )


def _recognizer(model: str | Recognizer) -> Recognizer:
    from avhubert.loading import load_recognizer
    from avhubert.model.recognizer import Recognizer

    return model if isinstance(model, Recognizer) else load_recognizer(model)


def _mouth(file: str | Path, sound_is_enough: bool, warnings: list[str]) -> np.ndarray | None:
    """Mouth crops uint8 [T, 96, 96]; None (with a warning) if there is no face and the sound can do alone."""
    from avhubert.prepare.mouth import mouth_clip

    try:
        clip = mouth_clip(file)
    except MediaError as error:
        if not sound_is_enough:
            raise
        warnings.append(f"{error}; only the sound is used")
        return None
    warnings.extend(clip.warnings)
    return clip.frames


def _choose(recognizer: Recognizer, has_mouth: bool, has_sound: bool, file: str) -> str:
    there = ("a" if has_sound else "") + ("v" if has_mouth else "")
    if not there:
        raise MediaError(f"{file} has neither sound nor a picture of a face")
    known = recognizer.metadata.get("modalities") or ("av", "a", "v")
    for choice in ("av", "a", "v"):
        if choice in known and set(choice) <= set(there):
            return choice
    raise ConfigError(f"this model reads {', '.join(known)}, but {file} only offers '{there}'")


def windows(samples: np.ndarray | None, frames: int) -> list[tuple[int, int]]:
    """Cut `frames` video frames (25 Hz) into (start, end) windows of at most 15 s.

    Each cut falls on the quietest 0.2 s of the last third of a window; without sound, at its end.
    """
    import numpy as np

    limit = int(MAX_WINDOW_SECONDS * 25)
    found, start = [], 0
    energy = None
    if samples is not None:
        padded = np.zeros(frames * 640, np.float64)
        padded[: min(len(samples), len(padded))] = samples[: len(padded)]
        energy = np.convolve((padded.reshape(frames, 640) ** 2).mean(1), np.ones(5), mode="same")
    while frames - start > limit:
        end = start + limit
        if energy is not None:
            first = start + 2 * limit // 3
            end = first + int(np.argmin(energy[first:end]))
        found.append((start, end))
        start = end
    return [*found, (start, frames)]


def _decode(
    recognizer: Recognizer, mouth: np.ndarray | None, samples: np.ndarray | None
) -> tuple[list[Segment], list[Word]]:
    import torch

    from avhubert.data.audio import audio_features
    from avhubert.data.video import transform
    from avhubert.decode.align import AlignedWord, align
    from avhubert.decode.beam import beam_search

    frames = len(mouth) if mouth is not None else max(1, -(-len(samples) // 640))  # type: ignore[arg-type]
    device = next(recognizer.parameters()).device
    assert recognizer.tokenizer is not None
    segments, words = [], []
    for number, (start, end) in enumerate(windows(samples, frames)):
        audio = video = None
        if samples is not None:
            piece = samples[start * 640 : end * 640]
            if len(piece) == 0:  # the picture outlasts the sound
                import numpy as np

                piece = np.zeros((end - start) * 640, np.int16)
            audio = audio_features(piece, end - start).T[None].to(device)
        if mouth is not None:
            video = transform(mouth[start:end], None, None, False)[None, None].to(device)
        with torch.inference_mode():
            encoded = recognizer.encode(audio, video)
        best = beam_search(recognizer, encoded, None, recognizer.decode_settings)[0][0]
        segments.append(Segment(start / 25, end / 25, recognizer.tokenizer.decode(best.tokens), best.score))
        try:
            found = align(recognizer, encoded[0], best.tokens, best.posteriors)
        except DataError:  # more symbols than frames: the words are somewhere in the segment
            whole = math.exp(sum(best.posteriors) / len(best.posteriors))
            found = [AlignedWord(word, 0.0, (end - start) / 25, whole) for word in segments[-1].text.split()]
        words += [
            Word(one.word, start / 25 + one.start_seconds, start / 25 + one.end_seconds, one.confidence, number)
            for one in found
        ]
    return segments, words


# --------------------------------------------------------------------------- the command
def render(transcript: Transcript, form: str) -> str:
    """A transcript as 'txt', 'srt', 'vtt' or 'json'."""
    if form == "txt":
        return transcript.text + "\n"
    if form == "json":
        return json.dumps(asdict(transcript), ensure_ascii=False, indent=1) + "\n"
    comma = "," if form == "srt" else "."
    blocks = [
        f"{number}\n{_clock(segment.start, comma)} --> {_clock(segment.end, comma)}\n{segment.text}\n"
        for number, segment in enumerate(transcript.segments, 1)
    ]
    return ("WEBVTT\n\n" if form == "vtt" else "") + "\n".join(blocks)


def _clock(seconds: float, comma: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{comma}{rest % 1000:03}"


def transcribe_files(
    files: Sequence[str], model: str, modality: str = "auto", form: str = "txt", out: str | Path | None = None
) -> None:
    """Transcribe each file; print, or write `out`/NAME.`form`.

    A file that fails is named with its reason, the others are still done, and at the end an AvhubertError
    tells how many failed.
    """
    folder = output_directory(out) if out else None
    recognizer = _recognizer(model)
    failed = 0
    for file in files:
        try:
            transcript = transcribe(file, recognizer, modality)
        except MediaError as error:
            failed += 1
            print(f"avhubert: {error}", file=sys.stderr)
            continue
        for warning in transcript.warnings:
            print(f"avhubert: warning: {file}: {warning}", file=sys.stderr)
        text = render(transcript, form)
        if folder:
            target = folder / f"{Path(file).stem}.{form}"
            write_text(target, text)
            print(target)
        else:
            sys.stdout.write(text if len(files) == 1 or form != "txt" else f"{file}: {text}")
    if failed:
        raise AvhubertError(f"{failed} of {len(files)} files could not be transcribed")
