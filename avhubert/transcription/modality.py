"""Decides which streams of a chunk are read, why, and which problems of the recording are reported."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avhubert.constants import FRAME_RATE, MODALITIES, SAMPLES_PER_FRAME
from avhubert.errors import ConfigError, MediaError
from avhubert.transcription.reader import Chunk
from avhubert.transcription.segmenter import SILENT, STILL, Window
from avhubert.transcription.transcript import clock

if TYPE_CHECKING:
    from avhubert.data.video import MediaInfo
    from avhubert.model.recognizer import Recognizer

AUTO = "auto"
CHOICES = (AUTO, *MODALITIES)  # what a user can request
OFF = "off"
VAD_CHOICES = (AUTO, OFF)  # skip audio without speech, or read all of it

MIN_FACE_SHARE = 0.5  # share of a window's frames with a face, below which its lips are not read if there is audio
HIDDEN_FACE = "no face is visible, or only in few frames"
DARK = 40.0  # mean gray level of mouth frames, below which the video is dark

# synchrony of audio and lips
# Measured on GRID, of shifts by 7 to 12 frames in recordings of 30 s, 10 s and 3 s, 100, 45 and 5 % are found; none of
# the recordings with a shift of at most 2 frames is reported.
MAX_OFFSET = 20  # frames by which the streams are shifted against each other to find their offset
MIN_OFFSET = 5  # frames; smaller offsets are not reported
MIN_FRAMES = 60  # of a recording
MIN_CORRELATION = 5.0  # at the offset, times the root of the number of frames: chance is the larger, the fewer they are
MIN_RATIO = 1.4  # of the correlation at the offset to the largest one that is at least as many frames …
PEAK = 5  # … away

# order of preference, by the usable streams
PREFERENCE = {"av": ("av", "a", "v"), "a": ("a", "av", "v"), "v": ("v", "av", "a"), "": ("av", "a", "v")}


@dataclass(frozen=True)
class Selection:
    """The streams of one chunk that are read.

    Attributes:
        modality: 'av', 'a' or 'v'; '' if the chunk cannot be read.
        reason: Why these streams are read.
        warnings: Problems of the chunk that the user should know.
        without_face: Modality and reason for windows in which the face is not visible; None: the same.
    """

    modality: str
    reason: str
    warnings: tuple[str, ...] = ()
    without_face: tuple[str, str] | None = None

    def of_window(self, chunk: Chunk, window: Window) -> tuple[str, str]:
        """The modality and the reason of one window of the chunk."""
        if self.without_face is None or chunk.track is None:
            return self.modality, self.reason
        share = chunk.track.detected[window.core_start : window.core_end].mean()
        return self.without_face if share < MIN_FACE_SHARE else (self.modality, self.reason)


def check_request(modality: str, media: MediaInfo, recognizer: Recognizer, file: str | Path) -> None:
    """Checks that a file and a recognizer have the streams that a user requests.

    Raises:
        ConfigError: The modality is unknown, or the recognizer was not trained for it.
        MediaError: The file lacks a requested stream.
    """
    from avhubert.evaluation.conditions import check_modality

    if modality not in CHOICES:
        raise ConfigError(f"unknown modality '{modality}'; known: {', '.join(CHOICES)}")
    if modality == AUTO:
        return
    check_modality(recognizer, modality)
    if "a" in modality and not media.has_audio:
        raise MediaError(f"{file} has no audio track; choose modality v", path=file)
    if "v" in modality and not media.has_video:
        raise MediaError(f"{file} has no video track; choose modality a", path=file)


def check_vad(vad: str) -> None:
    """Checks the requested detection of speech.

    Raises:
        ConfigError: It is unknown.
    """
    if vad not in VAD_CHOICES:
        raise ConfigError(f"unknown speech detection '{vad}'; known: {', '.join(VAD_CHOICES)}")


def select_streams(
    chunk: Chunk, requested: str, supported: Sequence[str], file: str | Path, no_video: str = ""
) -> Selection:
    """Selects the streams of one chunk.

    Args:
        chunk: The chunk.
        requested: The modality that the user requests; 'auto': the streams that are usable.
        supported: The modalities of the recognizer.
        file: The file, for messages.
        no_video: Why no video was read; '' if it was.

    Raises:
        MediaError: The file has a single chunk, which lacks a requested stream.
        ConfigError: The recognizer supports no modality that the chunk offers.
    """
    if requested == AUTO:
        selection = _select_usable(chunk, supported, file, no_video)
    else:
        selection = _select_requested(chunk, requested, supported, file)
    prefix = _time_range(chunk)
    warnings = [*selection.warnings, *_quality_warnings(chunk, selection.modality)]
    return replace(selection, warnings=tuple(prefix + warning for warning in warnings))


def _select_requested(chunk: Chunk, requested: str, supported: Sequence[str], file: str | Path) -> Selection:
    available = chunk.streams
    if set(requested) <= set(available):
        return Selection(requested, "as asked")
    if chunk.start == 0 and chunk.final:
        raise chunk.problem or MediaError(f"{file} ends before its audio and video do", path=file)
    missing = "there is no audio" if available == "v" else "there is no face"
    if available not in supported:
        return Selection("", "", (f"{missing}; it is not read",))
    return Selection(
        available, "as much of what was asked as was there", (f"{missing}; the other stream is read alone",)
    )


def _select_usable(chunk: Chunk, supported: Sequence[str], file: str | Path, no_video: str) -> Selection:
    if not chunk.streams:
        return Selection("", "", ("there is neither audio nor a face; nothing is transcribed",))
    seen = None if chunk.movement is None else chunk.movement[chunk.visible]
    if seen is not None and len(seen) == 0:
        seen = chunk.movement
    modality, reason = choose(supported, chunk.loudness, seen, file, no_video, chunk.voiced)
    warnings = () if chunk.problem is None else (f"{chunk.problem.with_path_as('the file')}; only the audio is used",)
    without_face = None
    if chunk.track is not None and not chunk.track.detected.all() and "a" in chunk.streams:
        with contextlib.suppress(ConfigError):  # this model cannot read the audio alone
            without_face = choose(supported, chunk.loudness, None, file, HIDDEN_FACE, chunk.voiced)
    return Selection(modality, reason, warnings, without_face)


def choose(
    supported: Sequence[str],
    level: np.ndarray | None,
    moved: np.ndarray | None,
    file: str | Path,
    no_video: str = "",
    voiced: np.ndarray | None = None,
) -> tuple[str, str]:
    """The best of the supported modalities, and the reason in words.

    Args:
        supported: The modalities of the recognizer.
        level: Level of the audio in dB, float [T]; None without audio.
        moved: Movement of the lips, float [T]; None without a face.
        file: The file, for messages.
        no_video: Why no video was read; '' if it was.
        voiced: Frames of the audio with speech, bool [T]; None if that is not known.

    Raises:
        ConfigError: The recognizer supports no modality that the file offers.
    """
    available = ("a" if level is not None else "") + ("v" if moved is not None else "")
    audio_problem, video_problem = _audio_problem(level, voiced), _video_problem(moved, no_video)
    usable = ("" if audio_problem else "a") + ("" if video_problem else "v")
    for modality in PREFERENCE[usable]:
        if modality in supported and set(modality) <= set(available):
            return modality, _reason(modality, usable, audio_problem, video_problem, supported)
    raise ConfigError(f"this model reads {', '.join(supported)}, but {file} only offers '{available}'", path=file)


def _audio_problem(level: np.ndarray | None, voiced: np.ndarray | None) -> str:
    """Why the audio is not usable; '' if it is."""
    if level is None:
        return "there is no audio"
    if np.percentile(level, 95) < SILENT:
        return "the audio is silent"
    return "no speech was found in the audio" if voiced is not None and not voiced.any() else ""


def _video_problem(moved: np.ndarray | None, no_video: str) -> str:
    """Why the lips are not usable; '' if they are."""
    if no_video:
        return no_video
    if moved is None:
        return "no face was found"
    return "the mouth does not move" if np.percentile(moved, 95) < STILL else ""


def _reason(modality: str, usable: str, audio_problem: str, video_problem: str, supported: Sequence[str]) -> str:
    if modality == "a":
        return f"without the lips: {video_problem or 'this model does not read both'}"
    if modality == "v":
        return f"without the audio: {audio_problem or 'this model does not read both'}"
    if usable == "av":
        return "audio and lips are both there"
    return "this model reads audio and lips only together" if len(supported) == 1 else "both streams are there"


# --------------------------------------------------------------------------- warnings
def _quality_warnings(chunk: Chunk, modality: str) -> list[str]:
    if "v" not in modality or chunk.track is None or chunk.mouth is None:
        return []
    warnings = [*chunk.track.warnings, darkness_warning(chunk.mouth)]
    if "a" in modality and chunk.samples is not None:
        warnings.append(offset_warning(chunk.track.lip_gap, chunk.samples))
    return [warning for warning in warnings if warning]


def no_speech(modalities: set[str]) -> str:
    """The warning about a recording without speech.

    Args:
        modalities: The modalities that its parts were read from.
    """
    if modalities == {"a"}:
        return "no speech was found in the audio"
    if modalities == {"v"}:
        return "no speech was found: the lips do not move"
    return "no speech was found in the audio, and the lips do not move"


def darkness_warning(mouth: np.ndarray) -> str | None:
    """A warning if mouth frames, uint8 [T, 96, 96], are dark."""
    mean = float(mouth.mean())
    return f"the video is dark (mean gray level {mean:.0f} of 255 around the mouth)" if mean < DARK else None


def offset_warning(lip_gap: np.ndarray, samples: np.ndarray) -> str | None:
    """A warning if lip opening [T] and audio [640 T] correlate clearly better with an offset of at least 0.2 s."""
    from avhubert.prepare.speaker import correlations_by_lag

    frames = min(len(lip_gap), len(samples) // SAMPLES_PER_FRAME)
    if frames < MIN_FRAMES:
        return None
    lags = np.arange(-MAX_OFFSET, MAX_OFFSET + 1)
    correlations = correlations_by_lag(lip_gap[:frames], samples[: frames * SAMPLES_PER_FRAME], lags.tolist())
    best = int(np.argmax(correlations))
    lag, correlation = int(lags[best]), float(correlations[best])
    elsewhere = float(correlations[np.abs(lags - lag) >= PEAK].max())
    if abs(lag) < MIN_OFFSET or correlation < MIN_CORRELATION / np.sqrt(frames) or correlation < MIN_RATIO * elsewhere:
        return None
    direction = "after" if lag > 0 else "before"
    return f"the lips seem to move {abs(lag) / FRAME_RATE:.2f} s {direction} the audio; check their synchrony"


def _time_range(chunk: Chunk) -> str:
    """Prefix of warnings: the times of the chunk; '' if it is the whole file."""
    if chunk.final and chunk.start == 0:
        return ""
    return f"{clock(chunk.start / FRAME_RATE)} to {clock((chunk.start + chunk.frames) / FRAME_RATE)}: "
