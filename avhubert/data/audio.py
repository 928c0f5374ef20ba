"""Sound: reading any container, writing wav, log mel filterbank stacked to 25 Hz, noise mixing.

Samples are int16 [N], 16 kHz mono. One video frame at 25 Hz is 640 samples or 4 filterbank frames.
"""

from __future__ import annotations

import functools
import io
import wave
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avhubert.data.media import open_container
from avhubert.errors import MediaError
from avhubert.files import atomic_path

SAMPLE_RATE = 16_000
FRAME_RATE = 25
STACK = 4  # filterbank frames per video frame
FILTERS = 26
WINDOW, HOP, FFT = 400, 160, 512  # 25 ms, 10 ms
PRE_EMPHASIS = 0.97
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
        raise MediaError(f"a piece of {path} is from start ≥ 0 to a later end, not from {start} s to {end} s")
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
        raise MediaError(f"the audio track of {path} is empty{within}")
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
        raise MediaError(f"cannot read {path}: there is no such file")
    try:
        with open_container(path) as container:
            if not container.streams.audio:
                raise MediaError(f"{path} has no audio track")
            begin = max(Fraction(0), Fraction(container.start_time or 0, av.time_base))
            if start_seconds > SEEK_SECONDS:  # a little earlier: a decoder's first frames are not yet right
                container.seek(int((begin + start_seconds - SEEK_SECONDS) * av.time_base), backward=True)
            runs = list(_runs(container, begin + start_seconds, end_seconds and end_seconds - start_seconds))
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"cannot read the sound of {path}: {error.strerror or error}") from error
    length = max([0, *(start + len(run) for start, run in runs)])
    if length > LONGEST_HOURS * 3600 * SAMPLE_RATE:
        hours = length / 3600 / SAMPLE_RATE
        raise MediaError(
            f"by its timestamps the sound of {path} lasts {hours:.0f} hours; it is damaged, or must be cut"
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


# --------------------------------------------------------------------------- features
@functools.cache
def _mel_filters() -> Tensor:
    """Triangular filters float64 [257, 26] between 0 and 8 kHz, their corners rounded down to FFT bins."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, FILTERS + 2) / 2595) - 1)
    corners = np.floor((FFT + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(FFT // 2 + 1)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins - left) / np.maximum(centre - left, 1)
    falling = (right - bins) / np.maximum(right - centre, 1)
    filters = np.where((left <= bins) & (bins < centre), rising, 0)
    return torch.from_numpy(np.where((centre <= bins) & (bins < right), falling, filters))


def filterbank(samples: np.ndarray) -> Tensor:
    """Log mel filterbank float64 [F, 26] at 100 Hz of int16 [N]; F = 1 + ceil((N - 400) / 160), 1 if N ≤ 400.

    What `python_speech_features.logfbank` computes: pre-emphasis, rectangular 25 ms windows every 10 ms with the
    last one zero-padded, power spectrum |X|²/512, natural logarithm with zeros replaced by float64's epsilon.
    """
    signal = torch.from_numpy(np.asarray(samples, np.float64))
    signal = torch.cat([signal[:1], signal[1:] - PRE_EMPHASIS * signal[:-1]])
    count = 1 + max(0, -(-(len(signal) - WINDOW) // HOP))
    windows = F.pad(signal, (0, (count - 1) * HOP + WINDOW - len(signal))).unfold(0, WINDOW, HOP)
    # in blocks, so that an hour of sound does not need gigabytes
    energy = torch.cat([_power(block) @ _mel_filters() for block in windows.split(4096)])
    return torch.where(energy == 0, torch.finfo(torch.float64).eps, energy).log()


def _power(windows: Tensor) -> Tensor:
    spectrum = torch.fft.rfft(windows, FFT)
    return (spectrum.real.square() + spectrum.imag.square()) / FFT  # five times as fast as abs().square()


def stack_frames(features: Tensor) -> Tensor:
    """[F, 26] at 100 Hz → [ceil(F / 4), 104] at 25 Hz, zero frames filling the last."""
    features = F.pad(features, (0, 0, 0, -len(features) % STACK))
    return features.reshape(-1, STACK * features.shape[1])


def normalise(features: Tensor) -> Tensor:
    """Layer norm of each frame of [T, D] on its own, without learned parameters."""
    return F.layer_norm(features, features.shape[-1:])


def audio_features(samples: np.ndarray, frames: int | None = None) -> Tensor:
    """The model's audio input, float32 [T, 104], of int16 [N].

    With `frames` (of the video beside it), T = frames: cut, or padded with zero frames before the normalisation.
    """
    stacked = stack_frames(filterbank(samples).float())
    if frames is not None:
        stacked = F.pad(stacked[:frames], (0, 0, 0, max(0, frames - len(stacked))))
    return normalise(stacked)


# --------------------------------------------------------------------------- noise
def mix(speech: np.ndarray, noises: Sequence[np.ndarray], snr: float) -> np.ndarray:
    """Speech int16 [N] with noise at `snr` dB, int16 [N] (Interspeech 2022, § 3).

    Several noises are averaged first, cut to the shortest. Noise shorter than the speech is repeated, longer noise
    cut from its start; levels are root mean squares over the whole clip. A mixture that leaves int16's range is
    scaled down as a whole. Silent noise changes nothing.
    """
    noise, clean = _fitted(noises, len(speech)), speech.astype(np.float32)
    clean_level, noise_level = _level(clean), _level(noise)
    if noise_level == 0:
        return speech.copy()
    mixed = clean + noise * np.float32(clean_level / 10 ** (snr / 20) / noise_level)
    limits = np.iinfo(np.int16)
    if mixed.max() > limits.max or mixed.min() < limits.min:
        high, low = float(mixed.max()), float(mixed.min())
        mixed *= np.float32(limits.max / high if high >= -low else limits.min / low)
    return mixed.astype(np.int16)


def snr_of(mixed: np.ndarray, speech: np.ndarray, noises: Sequence[np.ndarray]) -> float | None:
    """dB between the parts of speech and of noise in a mixture that `mix` made, by least squares; None: one is silent.

    All int16; the mixture as long as the speech.
    """
    parts = np.stack([speech.astype(np.float64), _fitted(noises, len(speech)).astype(np.float64)], 1)
    levels = np.sqrt(np.mean(parts**2, axis=0))
    if not levels.all():
        return None
    shares = np.abs(np.linalg.lstsq(parts, mixed.astype(np.float64), rcond=None)[0]) * levels
    return float(20 * np.log10(shares[0] / shares[1]))


def _fitted(noises: Sequence[np.ndarray], length: int) -> np.ndarray:
    """The mean of the noises, float32 [length], repeated or cut."""
    noise = noises[0]
    if len(noises) > 1:
        shortest = min(map(len, noises))
        noise = np.floor(np.mean([item[:shortest] for item in noises], axis=0))
    return np.resize(noise, length).astype(np.float32)


def _level(samples: np.ndarray) -> float:
    """Root mean square, rounded to float32 as in the published mixtures, which come out bit for bit."""
    return float(np.float32(np.sqrt(np.mean(samples.astype(np.float64) ** 2))))
