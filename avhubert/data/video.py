"""Video: RGB frames at 25 fps of any file, gray frames of mouth clips, the model's input, writing mp4 files."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from avhubert.constants import CROP_SIZE, FRAME_RATE, GRAY_MEAN, GRAY_STD, SAMPLE_RATE
from avhubert.data.deinterlacing import progressive
from avhubert.data.lengths import content_seconds
from avhubert.data.media import AUTOMATIC, DamageLog, MediaPart, StreamChoice, demux, open_container
from avhubert.data.orientation import Orientation, display_size, stretched_width
from avhubert.data.packets import NothingDecodedError, StreamDecoder, check_size
from avhubert.data.streams import candidates, select_stream, selector
from avhubert.encoding import placeholder_message
from avhubert.errors import MediaError
from avhubert.files import atomic_path

PROBED_PACKETS = 50  # after which `probe` takes the size of the header
if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MediaInfo:
    """The streams of a media file.

    Attributes:
        has_video: whether it has a video track.
        has_audio: whether it has an audio track.
        width: pixels as shown: rotated, and with square pixels; 0 without video.
        height: the same.
        fps: average frame rate; 0 without video or if unknown.
        duration_seconds: by the header, or of the packets if the header does not have it; 0 if unknown.
        shown_as_stored: whether frames are shown neither rotated, mirrored nor stretched.
    """

    has_video: bool
    has_audio: bool
    width: int
    height: int
    fps: float
    duration_seconds: float
    shown_as_stored: bool = True


def _open(path: str | Path) -> av.container.InputContainer:
    try:
        return open_container(path)
    except (FFmpegError, OSError) as error:
        raise _cannot_be_read(path, error) from error


def _cannot_be_read(path: str | Path, error: FFmpegError | OSError) -> MediaError:
    if isinstance(error, OSError) and not isinstance(error, FFmpegError):
        return MediaError(f"{path} cannot be read: {error.strerror}", kind="cannot be read", path=path)
    if problem := placeholder_message(path):
        return MediaError(problem, kind="not the file itself", path=path)
    reason = "it does not exist" if isinstance(error, FileNotFoundError) else error.strerror
    return MediaError(
        f"{path} cannot be read as a video or audio file: {reason}",
        kind="cannot be read as a video or audio file",
        path=path,
    )


def probe(path: str | Path, streams: StreamChoice = AUTOMATIC, damage: DamageLog | None = None) -> MediaInfo:
    """Read the streams of a media file from its header.

    Args:
        path: any file that FFmpeg can read.
        streams: which of several streams of a kind is described.
        damage: records which of several streams is chosen.

    Raises:
        MediaError: the file is missing, is not a media file, has neither a video nor an audio track, or lacks a stream
            of `streams`.
    """
    with _open(path) as container:
        has_audio = bool(candidates(container, "audio")) or streams.audio is not None
        has_video = bool(candidates(container, "video")) or streams.video is not None
        if not has_video and not has_audio:
            raise MediaError(
                f"{path} has neither a video nor an audio track", kind="no video and no audio track", path=path
            )
        if has_audio:
            select_stream(container, path, "audio", streams, damage)
        width = height = 0
        fps, as_stored = 0.0, True
        if has_video:
            video: Any = container.streams.video[select_stream(container, path, "video", streams, damage)]
            check_size(path, video)
            fps = float(video.average_rate or 0)
            width, height, as_stored = _display_size(container, video)
        seconds = (container.duration or 0) / av.time_base or content_seconds(path)
        return MediaInfo(has_video, has_audio, width, height, fps, seconds, as_stored)


def _display_size(container: av.container.InputContainer, stream: Any) -> tuple[int, int, bool]:
    """Width and height at which the first frame is shown, and whether it is shown as it is stored.

    The size is that of the header if none of the first packets is a frame.
    """
    try:
        for packet in itertools.islice(demux(container, stream), PROBED_PACKETS):
            for frame in packet.decode():
                shown = display_size(frame, stream.sample_aspect_ratio)
                return *shown, shown == (frame.width, frame.height) and Orientation.of(frame) == Orientation()
    except (FFmpegError, OSError):
        pass  # the frames are read later, where damage is reported
    width = stretched_width(stream.width, stream.sample_aspect_ratio)
    return width, stream.height, width == stream.width


def read_frames(
    path: str | Path,
    start: float = 0.0,
    end: float | None = None,
    streams: StreamChoice = AUTOMATIC,
    damage: DamageLog | None = None,
) -> Iterator[np.ndarray]:
    """Read a video track of a media file at 25 fps.

    Output frame k is the source frame whose timestamp is nearest to start + k / 25 seconds (the earlier of two equally
    near ones), so that any constant or variable frame rate stays in sync with the audio. A video that starts after the
    audio begins with copies of its first frame. Rotation that the file specifies is applied, interlaced frames are
    deinterlaced. Only a few frames are in memory at a time.

    Args:
        path: any file that FFmpeg can read.
        start: seconds after the start of the container, or after timestamp 0 if that is later.
        end: the same; None: the end of the track.
        streams: which of several video tracks is read.
        damage: records what is damaged in the requested part.

    Yields:
        RGB frames uint8 [H, W, 3].

    Raises:
        MediaError: the file is missing, is not a media file, is damaged or has no video track; it has no frame between
            `start` and `end`.
    """
    return read_frames_part(MediaPart(path, start, end, streams, damage))


def read_frames_part(part: MediaPart) -> Iterator[np.ndarray]:
    """`read_frames` of a part of a file."""
    produced = 0
    for frame in _resampled(part):
        produced += 1
        yield frame
    if not produced:
        within = f" between {part.start:.2f} s and {part.end:.2f} s" if part.end else ""
        raise MediaError(f"{part.path} has no video frame{within}", kind="no video frame", path=part.path)


def _resampled(part: MediaPart) -> Iterator[np.ndarray]:
    start, end = part.start, part.end
    select = selector(part.path, "video", part.streams, part.damage)
    decoder: StreamDecoder[av.VideoFrame] = StreamDecoder(part.path, "video", select, part.damage)
    show = _Display(decoder)
    previous: av.VideoFrame | None = None
    previous_time = 0.0
    index = 0  # of the next output frame
    for frame, time in _timed_frames(decoder, start):
        show.set_size(frame)
        if previous is not None:
            rgb: np.ndarray | None = None
            while (index / FRAME_RATE - previous_time) <= (time - index / FRAME_RATE) + 1e-6:
                if end is not None and start + index / FRAME_RATE >= end - 1e-6:
                    return
                rgb = show.rgb(previous) if rgb is None else rgb
                yield rgb
                index += 1
        previous, previous_time = frame, time
    if previous is None:
        return
    duration = float((previous.duration or 0) * (previous.time_base or 0)) or 1 / FRAME_RATE
    video_end = previous_time + duration
    rgb = None
    while index / FRAME_RATE < video_end - 1e-3 and (end is None or start + index / FRAME_RATE < end - 1e-6):
        rgb = show.rgb(previous) if rgb is None else rgb
        yield rgb
        index += 1


def _timed_frames(decoder: StreamDecoder[av.VideoFrame], start: float) -> Iterator[tuple[av.VideoFrame, float]]:
    """Decoded frames with their times in seconds after `start`; the first ones may be before `start`."""
    path = decoder.path
    count = 0
    last = -float("inf")
    try:
        for frame in progressive(timed.frame for timed in decoder.frames(Fraction(start))):
            seconds = decoder.time_of(frame)
            if seconds is not None:
                time = float(seconds) - start
            else:
                time = count / float(decoder.stream.average_rate or FRAME_RATE) - start
            count += 1
            if time <= last:  # skip frames whose timestamp goes back
                continue
            last = time
            yield frame, time
    except NothingDecodedError as error:
        raise MediaError(f"{path} cannot be decoded: {error}", kind="cannot be decoded", path=path) from error
    except (FFmpegError, OSError) as error:
        raise _cannot_be_read(path, error) from error


def _to_rgb(frame: av.VideoFrame, convert: VideoReformatter) -> np.ndarray:
    """RGB uint8 [H, W, 3] of a frame as stored."""
    # OpenCV converts to BGR with the same interpolation: the levels are equal to its levels, also for 10-bit video
    return convert.reformat(frame, format="bgr24", interpolation="BICUBIC").to_ndarray()[..., ::-1]


class _Display:
    """Converts frames to RGB as players show them; all have the size of the first one."""

    def __init__(self, decoder: StreamDecoder[av.VideoFrame]) -> None:
        self._decoder = decoder
        self._convert = VideoReformatter()
        self._size: tuple[int, int] | None = None  # width and height before rotation

    def set_size(self, frame: av.VideoFrame) -> None:
        """Take the size of the first frame, while the file is open: PyAV 19 has no aspect ratio of a closed one."""
        if self._size is None:
            ratio = self._decoder.stream.sample_aspect_ratio
            self._size = stretched_width(frame.width, ratio), frame.height

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """RGB uint8 [H, W, 3]."""
        self.set_size(frame)
        assert self._size is not None
        if (frame.width, frame.height) != self._size:
            width, height = self._size
            frame = self._convert.reformat(frame, width, height, format="bgr24", interpolation="BICUBIC")
            return Orientation.of(frame).apply(np.ascontiguousarray(frame.to_ndarray()[..., ::-1]))
        return Orientation.of(frame).apply(np.ascontiguousarray(_to_rgb(frame, self._convert)))


def thumbnails(
    path: str | Path, size: int, streams: StreamChoice = AUTOMATIC, damage: DamageLog | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Small square gray images of every source frame, without rotation and without keeping the aspect ratio.

    Args:
        path: any file that FFmpeg can read.
        size: height and width in pixels.
        streams: which of several video tracks is read.
        damage: records what is damaged.

    Yields:
        Seconds after the start of the container, and gray levels uint8 [size, size].

    Raises:
        MediaError: the file is missing, is not a media file, is damaged or has no video track.
    """
    convert = VideoReformatter()
    decoder: StreamDecoder[av.VideoFrame] = StreamDecoder(
        path, "video", selector(path, "video", streams, damage), damage
    )
    for frame, time in _timed_frames(decoder, 0.0):
        yield time, convert.reformat(frame, width=size, height=size, format="gray", interpolation="AREA").to_ndarray()


def rgb_to_gray(rgb: np.ndarray) -> np.ndarray:
    """RGB uint8 [..., 3] to gray uint8 [...], with OpenCV's integer weights (ITU-R 601, 14 bits)."""
    x = rgb.astype(np.int32)
    return ((4899 * x[..., 0] + 9617 * x[..., 1] + 1868 * x[..., 2] + 8192) >> 14).astype(np.uint8)


@lru_cache(maxsize=256)
def _gray_table(u: int, v: int, color_range: int, colorspace: int) -> np.ndarray:
    """Gray level uint8 [256] of each luma value where the chroma is (u, v).

    Equals the conversion to RGB and then to gray, in a tenth of the time.
    """
    frame = av.VideoFrame(256, 2, "yuv420p")
    frame.color_range, frame.colorspace = color_range, colorspace
    ramp = np.arange(256, dtype=np.uint8)
    for plane, value in zip(frame.planes, (ramp, np.uint8(u), np.uint8(v)), strict=True):
        content = np.zeros((plane.height, plane.line_size), np.uint8)
        content[:, : plane.width] = value
        plane.update(content.tobytes())
    table: np.ndarray = rgb_to_gray(_to_rgb(frame, VideoReformatter()))[0]
    return table


def _plane(plane: av.video.plane.VideoPlane) -> np.ndarray:
    """The samples uint8 [H, W] of a plane without the padding of its lines."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def read_gray(path: str | Path) -> np.ndarray:
    """Read all frames of a mouth clip as gray levels, at the frame rate of the file.

    The levels are those of the RGB frames with OpenCV's weights. They are looked up in a table if the chroma of a frame
    is constant, as in the gray clips that this package writes.

    Returns:
        uint8 [T, H, W].

    Raises:
        MediaError: the file is missing, is not a media file, is damaged, has no video track or no frame.
    """
    convert = VideoReformatter()
    frames = []
    with _open(path) as container:
        if not container.streams.video:
            raise MediaError(f"{path} has no video track", kind="no video track", path=path)
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # faster than several threads for such small frames
        try:
            for frame in container.decode(stream):
                if frame.format.name == "yuv420p":
                    luma, u, v = (_plane(plane) for plane in frame.planes)
                    if (u == u[0, 0]).all() and (v == v[0, 0]).all():
                        table = _gray_table(int(u[0, 0]), int(v[0, 0]), int(frame.color_range), int(frame.colorspace))
                        frames.append(table[luma])
                        continue
                frames.append(rgb_to_gray(_to_rgb(frame, convert)))
        except FFmpegError as error:
            raise MediaError(
                f"{path} is damaged after {len(frames)} frames: {error.strerror}", kind="damaged", path=path
            ) from error
    if not frames:
        raise MediaError(f"{path} has no video frame", kind="no video frame", path=path)
    return np.stack(frames)


def transform(frames: np.ndarray, top: int | None = None, left: int | None = None, flip: bool = False) -> Tensor:
    """Crop, flip and normalise a mouth clip for the model.

    Args:
        frames: gray uint8 [T, H, W], H and W at least 88.
        top: first row of the crop in pixels; None: the crop is centred.
        left: first column of the crop in pixels; None: the crop is centred.
        flip: mirror the frames horizontally.

    Returns:
        float32 [T, 88, 88], (level / 255 − 0.421) / 0.165.

    Raises:
        MediaError: the crop does not fit into the frames.
    """
    height, width = frames.shape[1:]
    top = round((height - CROP_SIZE) / 2) if top is None else top
    left = round((width - CROP_SIZE) / 2) if left is None else left
    if not (0 <= top <= height - CROP_SIZE and 0 <= left <= width - CROP_SIZE):
        raise MediaError(
            f"a {CROP_SIZE}×{CROP_SIZE} crop at ({top}, {left}) does not fit a frame of {height}×{width} pixels"
        )
    crop = frames[:, top : top + CROP_SIZE, left : left + CROP_SIZE]
    import torch  # here: processes that only decode start faster, and in less memory, without it

    return torch.from_numpy(_normalised_levels().take(crop[:, :, ::-1] if flip else crop))


@lru_cache(maxsize=1)
def _normalised_levels() -> np.ndarray:
    """(level / 255 − GRAY_MEAN) / GRAY_STD for the 256 levels, float32."""
    return ((np.arange(256) / 255 - GRAY_MEAN) / GRAY_STD).astype(np.float32)


# x264's AVX-512 code reads memory that was never written, so that its bytes differ between runs; its SSE2 code, which
# every x86-64 processor can execute, does not
REPRODUCIBLE = {"x264-params": "asm=SSE2"} if platform.machine() in ("x86_64", "AMD64") else {}


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    crf: int = 20,
    audio: np.ndarray | None = None,
    rate: int = FRAME_RATE,
) -> int:
    """Write frames as an H.264 mp4 file, atomically. Equal input gives equal bytes on the same machine.

    Args:
        path: the file to write.
        frames: uint8 [H, W] gray or [H, W, 3] RGB, all of one size.
        crf: H.264's constant rate factor; a lower one means better quality.
        audio: samples int16 [N] at 16 kHz, written as AAC; None: no audio track.
        rate: frames per second.

    Returns:
        The number of frames.

    Raises:
        MediaError: there are no frames.
    """
    count = 0
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"fflags": "+bitexact"}) as out,
    ):
        stream = out.add_stream("libx264", rate=rate, options={"crf": str(crf), "threads": "1", **REPRODUCIBLE})
        stream.pix_fmt = "yuv420p"
        audio_stream = None
        if audio is not None:
            audio_stream = out.add_stream("aac", rate=SAMPLE_RATE)
            audio_stream.layout = "mono"
        for image in frames:
            rgb = np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image
            if count == 0:
                stream.height, stream.width = rgb.shape[:2]
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
            count += 1
        if not count:
            raise MediaError(f"there are no frames to write to {path}", kind="no video frame", path=path)
        out.mux(stream.encode())
        if audio_stream is not None and audio is not None:
            for first in range(0, len(audio), 1024):
                frame = av.AudioFrame.from_ndarray(audio[None, first : first + 1024], format="s16", layout="mono")
                frame.sample_rate = SAMPLE_RATE
                frame.pts = first
                out.mux(audio_stream.encode(frame))
            out.mux(audio_stream.encode())
    return count
