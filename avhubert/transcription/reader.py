"""Reads a video or audio file in chunks of one minute: audio samples, mouth frames, and how active each frame is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avhubert.config.input_preparation import BY_AUDIO, PUBLISHED
from avhubert.constants import FRAME_RATE, SAMPLES_PER_FRAME
from avhubert.data.filterbank import stacked_frames
from avhubert.data.media import AUTOMATIC, DamageLog, MediaPart, StreamChoice
from avhubert.data.preparation import nearest_earlier
from avhubert.errors import MediaError
from avhubert.transcription.segmenter import loudness, movement, visible_stretches

if TYPE_CHECKING:
    from avhubert.prepare.mouth import MouthTrack

CHUNK_SECONDS = 60  # read at once, so that memory does not depend on the length of the file
LENGTH_TOLERANCE = 12  # frames by which the audio may outlast the video of the last chunk


@dataclass
class Chunk:
    """Up to one minute of a file.

    Attributes:
        start: First frame, counted from the start of the file.
        frames: Number of frames T.
        final: True if nothing of the file follows.
        samples: Audio, int16 [N] at 16 kHz; None without audio.
        mouth: Mouth frames, uint8 [T, H, W]; None without a face.
        track: Position of the speaker's face and mouth in each frame; None without a face.
        problem: Why there are no mouth frames although the file has video.
        loudness: Level of the audio in dB, float [T]; None without audio.
        visible: Stretches in which the face is visible, bool [T], without short gaps; None without a face.
        movement: Movement of the lips, float [T], 0 where the face is not visible; None without a face.
        voiced: Frames of the audio with speech, bool [T]; None without audio, and where all of it is read.
    """

    start: int
    frames: int
    final: bool
    samples: np.ndarray | None = None
    mouth: np.ndarray | None = None
    track: MouthTrack | None = None
    problem: MediaError | None = None
    loudness: np.ndarray | None = field(init=False, default=None)
    visible: np.ndarray | None = field(init=False, default=None)
    movement: np.ndarray | None = field(init=False, default=None)
    voiced: np.ndarray | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.samples is not None:
            self.loudness = loudness(self.samples, self.frames)
        if self.track is not None:
            face_height = float(np.median(np.ptp(self.track.box[:, 1::2], 1)))
            self.visible = visible_stretches(self.track.detected)
            self.movement = np.where(self.visible, movement(self.track.lip_gap, face_height), 0.0)

    @property
    def streams(self) -> str:
        """The streams that this chunk has: 'av', 'a', 'v' or ''."""
        return ("a" if self.samples is not None else "") + ("v" if self.mouth is not None else "")


@dataclass
class MouthRegions:
    """Where the speaker's face and mouth are in consecutive frames.

    Attributes:
        start: First frame, counted from the start of the file.
        boxes: Bounding boxes of the face, float [T, 4].
        corners: Corners of the region that the mouth frames show, float [T, 4, 2].
    """

    start: int
    boxes: np.ndarray
    corners: np.ndarray


class Reader:
    """Reads one file chunk by chunk.

    Attributes:
        file: The file.
        use_audio: Whether audio is read.
        use_video: Whether video is read; becomes False where the video ends before the audio.
        chunk_frames: Number of frames of a full chunk.
        streams: Which of several streams are read.
        damage: What is damaged in the file.
        preparation: How the model's inputs are made.
    """

    def __init__(self, file: str | Path, use_audio: bool, use_video: bool) -> None:
        self.file = file
        self.use_audio = use_audio
        self.use_video = use_video
        self.chunk_frames = CHUNK_SECONDS * FRAME_RATE
        self.streams = AUTOMATIC
        self.damage = DamageLog()
        self.preparation = PUBLISHED

    def read(self, start: int) -> Chunk | None:
        """The chunk that starts at frame `start`; None after the end of the file.

        Raises:
            MediaError: The audio of the first chunk cannot be read, and no video is read.
        """
        begin = start / FRAME_RATE
        end = begin + self.chunk_frames / FRAME_RATE
        samples = self.read_audio(begin, end) if self.use_audio else None
        track, mouth, problem = None, None, None
        if self.use_video:
            try:
                track, mouth = self._read_mouth(begin, end, samples)
            except MediaError as error:
                problem = error
                if video_ended(self.file, begin, self.streams):
                    problem = None if start else error
                    self.use_video = start == 0
        audio_frames = 0 if samples is None else -(-len(samples) // SAMPLES_PER_FRAME)
        if mouth is not None:
            if samples is not None and track is not None and self.preparation.length == BY_AUDIO:
                mouth, track = _by_audio(mouth, track, stacked_frames(len(samples)))
            frames = len(mouth)
            final = frames < self.chunk_frames and audio_frames <= frames + LENGTH_TOLERANCE
        elif samples is not None:
            frames = max(1, audio_frames)
            final = audio_frames < self.chunk_frames and not self._video_continues(end)
        elif problem is not None:
            frames, final = self.chunk_frames, not self._video_continues(end)
        else:
            return None
        return Chunk(start, frames, final, samples, mouth, track, problem)

    def part(self, begin: float, end: float) -> MediaPart:
        """The part of the file between two times in seconds."""
        return MediaPart(self.file, begin, end, self.streams, self.damage)

    def read_audio(self, begin: float, end: float) -> np.ndarray | None:
        """Samples between two times in seconds; None where only the video can be read."""
        from avhubert.data.audio import read_audio_part

        try:
            return read_audio_part(self.part(begin, end))
        except MediaError as error:
            if begin == 0:
                if not self.use_video:
                    raise
                self.damage.note(f"{error.with_path_as('the file')}; only the video is read")
            return None

    def _read_mouth(self, begin: float, end: float, samples: np.ndarray | None) -> tuple[MouthTrack, np.ndarray]:
        from avhubert.prepare.frame_passes import FramePasses
        from avhubert.prepare.mouth import crops, follow_mouth

        video = FramePasses(self.part(begin, end))
        track = follow_mouth(video, samples, self.preparation.crop)
        return track, np.stack(list(crops(video, track)))

    def _video_continues(self, seconds: float) -> bool:
        return self.use_video and not video_ended(self.file, seconds, self.streams)


def _by_audio(mouth: np.ndarray, track: MouthTrack, frames: int) -> tuple[np.ndarray, MouthTrack]:
    """Mouth frames and track with the length of the audio, unless one of the streams ends long before the other."""
    if frames == len(mouth) or abs(frames - len(mouth)) > LENGTH_TOLERANCE:
        return mouth, track
    index = nearest_earlier(len(mouth), frames)
    return mouth[index], track.select(index)


def video_ended(file: str | Path, seconds: float, streams: StreamChoice = AUTOMATIC) -> bool:
    """Whether a file has no video frame in the second after `seconds`."""
    from avhubert.data.video import read_frames

    try:
        return next(read_frames(file, seconds, seconds + 1, streams), None) is None
    except MediaError:
        return True
