"""Mouth crops of a video whose landmarks are known: of frames in memory, with decoding, and with writing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import skimage.data
from fixtures import scratch
from measure import Case, Claim, Form

from avhubert.data.media import MediaPart
from avhubert.data.video import read_frames_part, write_video
from avhubert.prepare.frame_passes import FramePasses
from avhubert.prepare.mouth import crops, find_mouths

SIZE, FRAMES = 224, 100
NO_OPENCV = None if find_spec("cv2") else "OpenCV is not installed (requirements/bench.txt)"
# of the face on the images, in pixels: nose base, eye corners; middle of the mouth
STABLE = np.array([[113.0, 97], [81, 58], [99, 58], [127, 58], [146, 57]])
MOUTH = np.array([113.0, 116])


def count(smoke: bool) -> int:
    return 14 if smoke else FRAMES


def make_video(smoke: bool) -> tuple[Path, np.ndarray]:
    """A photographed face that moves, and its landmarks [T, 68, 2]."""
    rows = np.linspace(20, 243, SIZE).astype(int)
    head = skimage.data.astronaut()[rows][:, np.linspace(110, 333, SIZE).astype(int)]
    shifts = [round(6 * np.sin(number / 8)) for number in range(count(smoke))]

    def images() -> Iterator[np.ndarray]:
        for shift in shifts:
            yield np.roll(head, shift, 1)

    path = scratch() / "face.mp4"
    write_video(path, images())
    landmarks = np.random.default_rng(0).normal(0, 0.3, (len(shifts), 68, 2))
    landmarks[:, [33, 36, 39, 42, 45]] += STABLE
    landmarks[:, 48:68] += MOUTH
    landmarks[..., 0] += np.array(shifts)[:, None]
    return path, landmarks.astype(np.float32)


def published(smoke: bool, work: str, warping: str) -> Callable[[], np.ndarray | None]:
    from baseline import data

    path, landmarks = make_video(smoke)
    memory = list(data.read_frames(path)) if work == "memory" else []
    target = path.with_name("mouth.mp4")

    def repeat() -> np.ndarray | None:
        frames = iter(memory) if memory else data.read_frames(path)
        cropped = data.mouth_crops(frames, landmarks, warping)
        if work == "written":
            data.write_crops(target, cropped)
            return None
        weights = np.array([0.114, 0.587, 0.299])
        return np.stack(list(cropped)) @ weights if work == "memory" else keep(cropped)

    return repeat


def keep(cropped: Iterator[np.ndarray]) -> None:
    """Compute the crops one after the other."""
    for _ in cropped:
        pass


def ours(smoke: bool, work: str) -> Callable[[], np.ndarray | None]:
    path, landmarks = make_video(smoke)
    part = MediaPart(path)
    points = list(landmarks)
    memory = list(read_frames_part(part)) if work == "memory" else []
    known = find_mouths(part.again(), points=points)[0]
    target = path.with_name("mouth.mp4")

    def repeat() -> np.ndarray | None:
        if memory:
            return np.stack([known.crop(frame, index) for index, frame in enumerate(memory)])
        video = FramePasses(part.again())
        cropped = crops(video, find_mouths(video, points=points)[0])
        if work == "written":
            write_video(target, cropped)
        else:
            keep(cropped)
        return None

    return repeat


def case(work: str, title: str, goal: str, before: float) -> Case:
    forms = [
        Form("baseline", functools.partial(published, work=work, warping="skimage"), missing=NO_OPENCV),
        Form("baseline, OpenCV's warp", functools.partial(published, work=work, warping="cv2"), missing=NO_OPENCV),
        Form("ours", functools.partial(ours, work=work)),
    ]
    return Case(work, title, forms, goal, parts=FRAMES, unit="ms", seconds=12, before=before)


CLAIM = Claim(
    "crops",
    "Mouth crops",
    [
        case("memory", "crop of a frame in memory", "", 0.00352),
        case("decoded", "crop of a frame, with decoding", "", 0.00369),
        case("written", "crop of a frame, with decoding and writing", "≥ 4 ×", 0.00587),
    ],
    f"Videos of {SIZE} × {SIZE} pixels, landmarks given. Difference in gray levels, of decoded frames that differ by a "
    "level themselves. The published form warps the whole face image of 256 × 256 pixels in colour.",
)
