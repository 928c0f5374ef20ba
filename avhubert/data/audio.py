"""Reading the audio of media files, writing wav files.

Samples are int16 [N], 16 kHz mono.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avhubert.constants import SAMPLE_RATE
from avhubert.data.media import AUDIO_GAP_SECONDS, AUTOMATIC, DamageLog, MediaPart, StreamChoice
from avhubert.data.mixing import PhaseCorrection, is_stereo
from avhubert.data.packets import NothingDecodedError, StreamDecoder
from avhubert.data.stored_lengths import read_wav_header
from avhubert.data.streams import selector
from avhubert.data.timestamps import TimedFrame
from avhubert.errors import MediaError
from avhubert.files import atomic_path

LONGEST_HOURS = 24  # longer tracks are an error: after damage to the timestamps the array could exceed the memory


def read_audio(
    path: str | Path,
    start: float = 0.0,
    end: float | None = None,
    streams: StreamChoice = AUTOMATIC,
    damage: DamageLog | None = None,
) -> np.ndarray:
    """Read an audio track of a media file as 16 kHz mono.

    Time 0 is the start of the container, or timestamp 0 if that is later. A track that starts later is padded with
    zeros, a track that starts earlier is cut, and gaps in the timestamps are filled with zeros. Only the requested
    part of the file is decoded. 16-bit mono audio at 16 kHz is returned bit for bit.

    Args:
        path: any file that FFmpeg can read.
        start: seconds at which the requested part starts, at least 0.
        end: seconds at which the requested part ends, after `start`; None: the end of the track.
        streams: which of several audio tracks is read.
        damage: records what is damaged in the requested part.

    Returns:
        Samples int16 [N].

    Raises:
        MediaError: `start` or `end` is invalid; the file is missing, is not a media file, is damaged or has no audio
            track; the requested part is empty; the timestamps span more than 24 hours.
    """
    return read_audio_part(MediaPart(path, start, end, streams, damage))


def read_audio_part(part: MediaPart) -> np.ndarray:
    """`read_audio` of a part of a file."""
    path, start, end = Path(part.path), part.start, part.end
    if start < 0 or (end is not None and end <= start):
        raise MediaError(
            f"cannot read {path} from {start} s to {end} s: the start must be at least 0 and before the end",
            kind="wrong start or end",
            path=path,
        )
    samples = _read_plain_wav(path)
    if samples is None:
        samples = _decode(part)
    else:
        samples = samples[round(start * SAMPLE_RATE) :]
    if end is not None:
        samples = samples[: round((end - start) * SAMPLE_RATE)]
    if samples.size == 0:
        within = f" from {start:.2f} s on" if start else ""
        raise MediaError(f"the audio track of {path} is empty{within}", kind="empty audio track", path=path)
    return samples


def _read_plain_wav(path: Path) -> np.ndarray | None:
    """Samples int16 [N] of a 16 kHz mono 16-bit wav; None for any other file. Ten times faster than FFmpeg."""
    if path.suffix != ".wav":
        return None
    header = read_wav_header(path)
    if header is None or header.too_short:
        return None
    try:
        with wave.open(str(path), "rb") as file:
            if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, SAMPLE_RATE):
                return None
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
            return samples if len(samples) == file.getnframes() else None
    except (OSError, EOFError, ValueError, wave.Error):
        return None


def _decode(requested: MediaPart) -> np.ndarray:
    """Samples int16 [N] of a part; they may extend a little past its end."""
    path, damage = Path(requested.path), requested.damage
    if not path.is_file():
        raise MediaError(f"cannot read {path}: there is no such file", kind="no such file", path=path)
    decoder: StreamDecoder[av.AudioFrame] = StreamDecoder(
        path, "audio", selector(path, "audio", requested.streams, damage), damage
    )
    part = _Part(Fraction(requested.start), None if requested.end is None else Fraction(requested.end))
    try:
        frames = decoder.frames(part.start)
        segments = list(_segments(frames, part))
        frames.close()
    except (av.FFmpegError, OSError, NothingDecodedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(
            f"cannot read the audio of {path}: {reason}", kind="audio cannot be read", path=path
        ) from error
    if part.correction.seconds and damage is not None:
        damage.note("the two audio channels are out of phase; one of them is inverted, so that they do not cancel")
    length = max([0, *(first + len(segment) for first, segment in segments)])
    if part.continues and part.end is not None:  # a gap at the end of the part is not the end of the track
        length = max(length, round((part.end - part.start) * SAMPLE_RATE))
    if length > LONGEST_HOURS * 3600 * SAMPLE_RATE:
        hours = length / 3600 / SAMPLE_RATE
        raise MediaError(
            f"the audio of {path} lasts {hours:.0f} hours according to its timestamps; repair the file, or split it "
            f"into parts of less than {LONGEST_HOURS} hours",
            kind="audio too long",
            path=path,
        )
    samples = np.zeros(length, np.int16)
    for first, segment in segments:
        segment = segment[max(0, -first) :]
        samples[max(0, first) : max(0, first) + len(segment)] = segment
    return samples


@dataclass
class _Part:
    """The requested part of a track.

    Attributes:
        start: Time of sample 0 in seconds.
        end: Time at which decoding stops; None: at the end of the track.
        continues: The track has frames after `end`.
        correction: Mixes channels that are out of phase.
    """

    start: Fraction
    end: Fraction | None
    continues: bool = False
    correction: PhaseCorrection = field(default_factory=PhaseCorrection)


def _segments(frames: Iterable[TimedFrame[av.AudioFrame]], part: _Part) -> Iterator[tuple[int, np.ndarray]]:
    """Decoded segments without a jump in their timestamps: (index of the first sample at 16 kHz, int16 [N])."""
    segment, end = None, Fraction(0)  # without timestamps, the first frame is the start of the file
    latest = None if part.end is None else part.end + AUDIO_GAP_SECONDS
    for timed in frames:
        frame = timed.frame
        time = end if timed.time is None else timed.time
        if latest is not None and time > latest:
            part.continues = True
            break
        if segment is None or abs(time - end) > AUDIO_GAP_SECONDS or not segment.has_format_of(frame):
            if segment is not None:
                yield segment.finish()
            segment, end = _Segment(time - part.start, frame, part.correction), time
        segment.add(frame)
        end += Fraction(frame.samples, frame.sample_rate)
    if segment is not None:
        yield segment.finish()


class _Segment:
    """Consecutive audio frames of one format, resampled to 16 kHz mono.

    Args:
        start: seconds after sample 0.
        frame: the first frame; `add` it too.
        correction: mixes channels that are out of phase.
    """

    def __init__(self, start: Fraction, frame: av.AudioFrame, correction: PhaseCorrection) -> None:
        self.start, self.format, self.correction = start, self._format(frame), correction
        self.stereo = is_stereo(frame)
        self.resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        self.resampled: list[np.ndarray] = []

    @staticmethod
    def _format(frame: av.AudioFrame) -> tuple[str, str, int]:
        return frame.format.name, frame.layout.name, frame.sample_rate

    def has_format_of(self, frame: av.AudioFrame) -> bool:
        return self.format == self._format(frame)

    def add(self, frame: av.AudioFrame) -> None:
        """Mix and resample a frame."""
        if not self.stereo:
            self._resample(frame)
            return
        for corrected in self.correction.add(frame):
            self._resample(corrected)

    def _resample(self, frame: av.AudioFrame | None) -> None:
        """Resample a frame; None flushes the resampler."""
        if frame is not None:
            frame.pts = None  # with timestamps the resampler would insert or drop samples
        self.resampled += [output.to_ndarray()[0] for output in self.resampler.resample(frame)]

    def finish(self) -> tuple[int, np.ndarray]:
        """Index of the first sample at 16 kHz, and the samples int16 [N]."""
        for corrected in self.correction.flush():
            self._resample(corrected)
        self._resample(None)
        return round(self.start * SAMPLE_RATE), np.concatenate([np.zeros(0, np.int16), *self.resampled])


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Resample int16 [N] at `rate` to 16 kHz; the duration stays the same."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="s16", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    parts = [part.to_ndarray()[0] for chunk in (frame, None) for part in resampler.resample(chunk)]
    return np.concatenate([np.zeros(0, np.int16), *parts])


def write_wav(path: str | Path, samples: np.ndarray) -> None:
    """Write samples int16 [N] as a 16 kHz mono wav file, atomically; equal samples give equal bytes."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(wav_bytes(samples))


def wav_bytes(samples: np.ndarray) -> bytes:
    """The content of a 16 kHz mono wav file of samples int16 [N]: a header of 44 bytes, then the samples."""
    assert samples.dtype == np.int16, samples.dtype
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return content.getvalue()
