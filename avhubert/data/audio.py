"""Sound: reading any container, writing wav, log mel filterbank stacked to 25 Hz, noise mixing.

Samples are int16 [N], 16 kHz mono. One video frame at 25 Hz is 640 samples or 4 filterbank frames.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avhubert.constants import SAMPLE_RATE
from avhubert.data.media import open_container
from avhubert.errors import MediaError
from avhubert.files import atomic_path

GAP_SECONDS = 0.02  # timestamps that jump further than this start a new run


LONGEST_HOURS = 24


SEEK_SECONDS = 1


# --------------------------------------------------------------------------- files
def read_audio(path: str | Path, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """First audio track of any container as int16 [N], 16 kHz mono; `start` and `end` in seconds cut a piece out.

    Only the piece is decoded and kept, so that a long file takes no more memory than a short one. Sample 0 is the
    container's start (or time 0, if that is later) plus `start`: a track that starts later is padded, one that starts
    before is cut, and gaps in the timestamps are silent. Mono 16-bit sound at 16 kHz comes out bit for bit.

    Raises:
        MediaError: not a file, not a video or sound file, no audio track, an empty or damaged one, a piece
            that begins before the file does, or ends before it begins.
    """
    if start < 0 or (end is not None and end <= start):
        raise MediaError(
            f"a piece of {path} is from start ≥ 0 to a later end, not from {start} s to {end} s",
            kind="wrong start or end",
            path=path,
        )
    path = Path(path)
    samples = _read_plain_wav(path)
    if samples is None:
        samples = _decode(path, Fraction(start), None if end is None else Fraction(end))
    else:
        samples = samples[round(start * SAMPLE_RATE) :]
    if end is not None:
        samples = samples[: round((end - start) * SAMPLE_RATE)]
    if samples.size == 0:
        within = f" from {start:.2f} s on" if start else ""
        raise MediaError(f"the audio track of {path} is empty{within}", kind="empty audio track", path=path)
    return samples


def _read_plain_wav(path: Path) -> np.ndarray | None:
    """Our own kind of wav, some ten times faster than through a decoder; None for any other file."""
    if path.suffix != ".wav":
        return None
    try:
        with wave.open(str(path), "rb") as file:
            if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, SAMPLE_RATE):
                return None
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
            return samples if len(samples) == file.getnframes() else None
    except (OSError, EOFError, ValueError, wave.Error):
        return None


def _decode(path: Path, start_seconds: Fraction = Fraction(0), end_seconds: Fraction | None = None) -> np.ndarray:
    if not path.is_file():
        raise MediaError(f"cannot read {path}: there is no such file", kind="no such file", path=path)
    try:
        with open_container(path) as container:
            if not container.streams.audio:
                raise MediaError(f"{path} has no audio track", kind="no audio track", path=path)
            begin = max(Fraction(0), Fraction(container.start_time or 0, av.time_base))
            if start_seconds > SEEK_SECONDS:  # a little earlier: a decoder's first frames are not yet right
                container.seek(int((begin + start_seconds - SEEK_SECONDS) * av.time_base), backward=True)
            runs = list(_runs(container, begin + start_seconds, end_seconds and end_seconds - start_seconds))
    except (av.FFmpegError, OSError) as error:
        raise MediaError(
            f"cannot read the sound of {path}: {error.strerror or error}", kind="audio cannot be read", path=path
        ) from error
    length = max([0, *(start + len(run) for start, run in runs)])
    if length > LONGEST_HOURS * 3600 * SAMPLE_RATE:
        hours = length / 3600 / SAMPLE_RATE
        raise MediaError(
            f"by its timestamps the sound of {path} lasts {hours:.0f} hours; it is damaged, or must be cut",
            kind="audio too long",
            path=path,
        )
    samples = np.zeros(length, np.int16)
    for start, run in runs:
        run = run[max(0, -start) :]
        samples[max(0, start) : max(0, start) + len(run)] = run
    return samples


def _runs(
    container: av.container.InputContainer, origin: Fraction, end_seconds: Fraction | None
) -> Iterator[tuple[int, np.ndarray]]:
    """(first sample at 16 kHz, samples) of each stretch of sound without a jump in its timestamps, until the end."""
    run, end = None, Fraction(0)
    for frame in container.decode(audio=0):
        time = end if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base - origin
        if end_seconds is not None and time > end_seconds + GAP_SECONDS:
            break
        if run is None or abs(time - end) > GAP_SECONDS or not run.fits(frame):
            if run is not None:
                yield run.finish()
            run, end = _Run(time, frame), time
        run.add(frame)
        end += Fraction(frame.samples, frame.sample_rate)
    if run is not None:
        yield run.finish()


class _Run:
    """Frames of one kind, one after the other from `start` seconds, resampled as they come."""

    def __init__(self, start: Fraction, frame: av.AudioFrame) -> None:
        self.start, self.kind = start, self._kind(frame)
        self.resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        self.pieces: list[np.ndarray] = []

    @staticmethod
    def _kind(frame: av.AudioFrame) -> tuple[str, str, int]:
        return frame.format.name, frame.layout.name, frame.sample_rate

    def fits(self, frame: av.AudioFrame) -> bool:
        return self.kind == self._kind(frame)

    def add(self, frame: av.AudioFrame | None) -> None:
        if frame is not None:
            frame.pts = None  # where the run lies is known; the resampler must not fill or cut by itself
        self.pieces += [piece.to_ndarray()[0] for piece in self.resampler.resample(frame)]

    def finish(self) -> tuple[int, np.ndarray]:
        self.add(None)
        return round(self.start * SAMPLE_RATE), np.concatenate([np.zeros(0, np.int16), *self.pieces])


def write_wav(path: str | Path, samples: np.ndarray) -> None:
    """Write int16 [N] as a 16 kHz mono wav, whole or not at all; the same samples give the same bytes."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(wav_bytes(samples))


def wav_bytes(samples: np.ndarray) -> bytes:
    """int16 [N] as the content of a 16 kHz mono wav: 44 bytes of header, then the samples."""
    assert samples.dtype == np.int16, samples.dtype
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return content.getvalue()
