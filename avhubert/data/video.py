"""Pictures: any container → RGB frames at 25 fps by timestamps; mouth clips → gray frames → the model's input."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from torch import Tensor

from avhubert.constants import CROP_SIZE, FRAME_RATE, SAMPLE_RATE
from avhubert.data.media import open_container
from avhubert.errors import MediaError
from avhubert.files import atomic_path

MEAN, STD = 0.421, 0.165


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds. `width` and `height` as stored, before any rotation; 0 without a picture."""

    has_video: bool
    has_audio: bool
    width: int
    height: int
    fps: float
    duration_seconds: float


def _open(path: str | Path) -> av.container.InputContainer:
    try:
        return open_container(path)
    except FFmpegError as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else error.strerror
        raise MediaError(
            f"{path} cannot be read as a video or sound file: {reason}",
            kind="cannot be read as a video or audio file",
            path=path,
        ) from error
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}", kind="cannot be read", path=path) from error


def _has_picture(container: av.container.InputContainer) -> bool:
    # a song's cover is a video stream of one picture, but no video
    return any(not stream.disposition & av.stream.Disposition.attached_pic for stream in container.streams.video)


def probe(path: str | Path) -> MediaInfo:
    """What a file holds, from its header. MediaError if it isn't a media file or has neither sound nor picture."""
    with _open(path) as container:
        has_video, has_audio = _has_picture(container), bool(container.streams.audio)
        if not has_video and not has_audio:
            raise MediaError(
                f"{path} has neither a video nor an audio track", kind="no video and no audio track", path=path
            )
        picture = container.streams.video[0] if has_video else None
        return MediaInfo(
            has_video,
            has_audio,
            picture.width if picture else 0,
            picture.height if picture else 0,
            float(picture.average_rate or 0) if picture else 0.0,
            (container.duration or 0) / av.time_base,
        )


# --------------------------------------------------------------------------- raw video
def read_frames(path: str | Path, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
    """RGB frames uint8 [H, W, 3] at 25 fps, one at a time; `start` and `end` in seconds from the container's start.

    Output frame k shows the source frame nearest in time to start + k / 25 (the earlier of two equally near), so any
    rate, also a variable one, keeps its time. A picture that starts after the sound is held still until then.
    Rotation marked in the file is applied; interlaced frames are made whole pictures; memory is that of a few frames.

    Raises:
        MediaError: not a video, no video track, no frame between `start` and `end`.
    """
    produced = 0
    for frame in _resampled(path, start, end):
        produced += 1
        yield frame
    if not produced:
        within = f" between {start:.2f} s and {end:.2f} s" if end else ""
        raise MediaError(f"{path} has no video frame{within}", kind="no video frame", path=path)


def _resampled(path: str | Path, start: float, end: float | None) -> Iterator[np.ndarray]:
    convert = VideoReformatter()
    previous: av.VideoFrame | None = None
    previous_time = 0.0
    index = 0  # of the output frame that is next
    for frame, time in _timed_frames(path, start):
        if previous is not None:
            picture: np.ndarray | None = None
            while (index / FRAME_RATE - previous_time) <= (time - index / FRAME_RATE) + 1e-6:
                if end is not None and start + index / FRAME_RATE >= end - 1e-6:
                    return
                picture = _rgb(previous, convert) if picture is None else picture
                yield picture
                index += 1
        previous, previous_time = frame, time
    if previous is None:
        return
    shown = float((previous.duration or 0) * (previous.time_base or 0)) or 1 / FRAME_RATE
    last = previous_time + shown
    picture = None
    while index / FRAME_RATE < last - 1e-3 and (end is None or start + index / FRAME_RATE < end - 1e-6):
        picture = _rgb(previous, convert) if picture is None else picture
        yield picture
        index += 1


def _timed_frames(path: str | Path, start: float) -> Iterator[tuple[av.VideoFrame, float]]:
    """Decoded frames with their times in seconds after `start`, from the last one before it."""
    with _open(path) as container:
        if not _has_picture(container):
            raise MediaError(f"{path} has no video track", kind="no video track", path=path)
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        begin = max(0.0, (container.start_time or 0) / av.time_base)
        if start > 1:
            container.seek(int((begin + start - 1) * av.time_base), backward=True)
        count = 0
        last = -float("inf")
        try:
            for frame in _progressive(container.decode(stream)):
                if frame.pts is not None and frame.time_base is not None:
                    time = float(frame.pts * frame.time_base) - begin - start
                else:
                    time = count / float(stream.average_rate or FRAME_RATE) - start
                count += 1
                if time <= last:  # a stream that steps back in time is read in the order of its frames
                    continue
                last = time
                yield frame, time
        except FFmpegError as error:
            if count == 0:
                raise MediaError(
                    f"{path} cannot be decoded: {error.strerror}", kind="cannot be decoded", path=path
                ) from error
            raise MediaError(
                f"{path} is damaged after {count} frames: {error.strerror}", kind="damaged", path=path
            ) from error


def _progressive(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same frames; interlaced ones, whose lines are of two times, are made whole by FFmpeg's bwdif."""
    graph: av.filter.Graph | None = None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            graph = av.filter.Graph()
            graph.link_nodes(
                graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
                ),
                graph.add("bwdif", "mode=send_frame:deint=interlaced"),
                graph.add("buffersink"),
            ).configure()
        if graph is None:
            yield frame
        else:
            graph.push(frame)
            yield from _pulled(graph)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)


def _pulled(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _to_rgb(frame: av.VideoFrame, convert: VideoReformatter) -> np.ndarray:
    # by way of BGR and bicubic: what OpenCV asks of FFmpeg, level for level also where a sample has 10 bits
    return convert.reformat(frame, format="bgr24", interpolation="BICUBIC").to_ndarray()[..., ::-1]


def _rgb(frame: av.VideoFrame, convert: VideoReformatter) -> np.ndarray:
    picture = np.ascontiguousarray(_to_rgb(frame, convert))
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.rot90(picture, turns).copy() if turns else picture


def thumbnails(path: str | Path, size: int) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds from the container's start, uint8 [size, size] gray) of every frame as stored; proportions are lost.

    Raises:
        MediaError: not a video, no video track, damaged.
    """
    convert = VideoReformatter()
    for frame, time in _timed_frames(path, 0.0):
        yield time, convert.reformat(frame, width=size, height=size, format="gray", interpolation="AREA").to_ndarray()


# --------------------------------------------------------------------------- mouth clips
def rgb_to_gray(rgb: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] RGB → uint8 [...], by OpenCV's integer weights (ITU-R 601, 14 bits)."""
    x = rgb.astype(np.int32)
    return ((4899 * x[..., 0] + 9617 * x[..., 1] + 1868 * x[..., 2] + 8192) >> 14).astype(np.uint8)


@lru_cache(maxsize=256)
def _gray_table(u: int, v: int, color_range: int, colorspace: int) -> np.ndarray:
    """Luma → gray uint8 [256] where the chroma is (u, v): exactly what RGB would give, for a tenth of the time."""
    frame = av.VideoFrame(256, 2, "yuv420p")
    frame.color_range, frame.colorspace = color_range, colorspace
    ramp = np.arange(256, dtype=np.uint8)
    for plane, value in zip(frame.planes, (ramp, np.uint8(u), np.uint8(v)), strict=True):
        content = np.zeros((plane.height, plane.line_size), np.uint8)
        content[:, : plane.width] = value
        plane.update(content.tobytes())
    return rgb_to_gray(_to_rgb(frame, VideoReformatter()))[0]


def _plane(plane: av.video.plane.VideoPlane) -> np.ndarray:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def read_gray(path: str | Path) -> np.ndarray:
    """All frames of a mouth clip as they are stored, uint8 [T, H, W] gray.

    The values are those of RGB and OpenCV's luma weights. Where a frame's chroma is one value (our own gray clips)
    they come from a table on the luma plane.

    Raises:
        MediaError: not a video, no video track, no frame in it.
    """
    convert = VideoReformatter()
    frames = []
    with _open(path) as container:
        if not container.streams.video:
            raise MediaError(f"{path} has no video track", kind="no video track", path=path)
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # a clip this small is decoded faster by one
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
    """uint8 [T, H, W] → float32 [T, 88, 88]: crop at (top, left) pixels (None: the centre), flip, normalise."""
    height, width = frames.shape[1:]
    top = round((height - CROP_SIZE) / 2) if top is None else top
    left = round((width - CROP_SIZE) / 2) if left is None else left
    if not (0 <= top <= height - CROP_SIZE and 0 <= left <= width - CROP_SIZE):
        raise MediaError(
            f"a {CROP_SIZE}×{CROP_SIZE} crop at ({top}, {left}) does not fit a picture of {height}×{width} pixels"
        )
    cut = frames[:, top : top + CROP_SIZE, left : left + CROP_SIZE]
    return torch.from_numpy(_normalised_levels().take(cut[:, :, ::-1] if flip else cut))


@lru_cache(maxsize=1)
def _normalised_levels() -> np.ndarray:
    """(level / 255 − MEAN) / STD for the 256 levels, float32."""
    return ((np.arange(256) / 255 - MEAN) / STD).astype(np.float32)


# --------------------------------------------------------------------------- writing
# x264's AVX-512 code gives pictures as small as mouth clips other bytes from run to run; what every x86-64 has does not
_SAME_BYTES = {"x264-params": "asm=SSE2"} if platform.machine() in ("x86_64", "AMD64") else {}


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    crf: int = 20,
    audio: np.ndarray | None = None,
    rate: int = FRAME_RATE,
) -> int:
    """Write uint8 frames [H, W] gray or [H, W, 3] RGB as H.264 mp4, with 16 kHz mono int16 `audio` as AAC; returns T.

    The same input gives the same bytes: one encoder thread, no times of writing in the file.
    """
    count = 0
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"fflags": "+bitexact"}) as out,
    ):
        stream = out.add_stream("libx264", rate=rate, options={"crf": str(crf), "threads": "1", **_SAME_BYTES})
        stream.pix_fmt = "yuv420p"
        sound = None
        if audio is not None:
            sound = out.add_stream("aac", rate=SAMPLE_RATE)
            sound.layout = "mono"
        for picture in frames:
            rgb = np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture
            if count == 0:
                stream.height, stream.width = rgb.shape[:2]
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
            count += 1
        if not count:
            raise MediaError(f"there are no frames to write to {path}", kind="no video frame", path=path)
        out.mux(stream.encode())
        if sound is not None and audio is not None:
            for place in range(0, len(audio), 1024):
                frame = av.AudioFrame.from_ndarray(audio[None, place : place + 1024], format="s16", layout="mono")
                frame.sample_rate = SAMPLE_RATE
                frame.pts = place
                out.mux(sound.encode(frame))
            out.mux(sound.encode())
    return count
