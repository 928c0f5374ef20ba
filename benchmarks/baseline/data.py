"""From files to tensors, one clip at a time; padded batches; mouth crops of a video whose landmarks are known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from python_speech_features import logfbank
from scipy.io import wavfile
from skimage.transform import SimilarityTransform, warp
from torch import Tensor

MEAN, STD = 0.421, 0.165
CROP, MOUTH, FACE = 88, 96, 256
SMOOTHING = 12
STABLE = (33, 36, 39, 42, 45)
MEAN_FACE = np.array(
    [[128.870, 137.303], [92.522, 94.369], [112.772, 94.944], [145.525, 94.535], [166.677, 93.566]]
)  # of the stable points


# --------------------------------------------------------------------------- clips
def read_frames(path: Path) -> Iterator[np.ndarray]:
    """BGR frames uint8 [H, W, 3]."""
    video = cv2.VideoCapture(str(path))
    while True:
        complete, frame = video.read()
        if not complete:
            break
        yield frame
    video.release()


def read_gray(path: Path) -> np.ndarray:
    """uint8 [T, 96, 96]."""
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in read_frames(path)])


def video_tensor(path: Path, rng: np.random.Generator | None = None) -> Tensor:
    """float32 [T, 88, 88]; with a generator: a random crop, flipped at random."""
    frames = read_gray(path) / 255.0
    room = frames.shape[1] - CROP
    top = left = round(room / 2)
    if rng is not None:
        top, left = (int(rng.integers(room + 1)) for _ in range(2))
    frames = frames[:, top : top + CROP, left : left + CROP]
    if rng is not None and rng.random() < 0.5:
        frames = frames[:, :, ::-1]
    frames = (frames - MEAN) / STD
    return torch.from_numpy(frames.astype(np.float32))


def audio_tensor(path: Path, frames: int | None = None) -> Tensor:
    """float32 [T, 104]: four filterbank frames stacked and normalised."""
    rate, samples = wavfile.read(path)
    features = logfbank(samples, samplerate=rate).astype(np.float32)
    features = np.concatenate([features, np.zeros((-len(features) % 4, features.shape[1]), np.float32)])
    features = features.reshape(-1, 4 * features.shape[1])
    if frames is not None:
        missing = max(0, frames - len(features))
        features = np.concatenate([features[:frames], np.zeros((missing, features.shape[1]), np.float32)])
    x = torch.from_numpy(features)
    return F.layer_norm(x, x.shape[1:])


def item(video: Path, audio: Path, rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Audio [T, 104] and video [T, 88, 88] of a clip; with a generator it is augmented as in training."""
    frames = video_tensor(video, rng)
    return audio_tensor(audio, len(frames)), frames


def collate(items: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Audio [B, 104, T], video [B, 1, T, 88, 88] and padding bool [B, T], padded to the longest clip."""
    longest = max(len(video) for _, video in items)
    audio = torch.zeros(len(items), 104, longest)
    video = torch.zeros(len(items), 1, longest, CROP, CROP)
    padding = torch.ones(len(items), longest, dtype=torch.bool)
    for row, (sound, frames) in enumerate(items):
        audio[row, :, : len(sound)] = sound.T
        video[row, 0, : len(frames)] = frames
        padding[row, : len(frames)] = False
    return audio, video, padding


# --------------------------------------------------------------------------- crops
def mouth_crops(frames: Iterator[np.ndarray], landmarks: np.ndarray, warping: str = "skimage") -> Iterator[np.ndarray]:
    """Crops uint8 [96, 96, 3] of frames whose landmarks [T, 68, 2] are known.

    The whole face image of 256 × 256 is computed in colour: bilinear, zeros outside, truncated to integers.
    """
    waiting: deque[np.ndarray] = deque()
    transform = None
    for number, frame in enumerate(frames):
        waiting.append(frame)
        first = number - SMOOTHING + 1
        if first < 0:
            continue
        transform = align(landmarks[first : number + 1])
        yield cut(waiting.popleft(), transform, landmarks[first], warping)
    rest = len(landmarks) - len(waiting)
    for offset, frame in enumerate(waiting):
        if transform is None:
            transform = align(landmarks)
        yield cut(frame, transform, landmarks[rest + offset], warping)


def align(landmarks: np.ndarray) -> np.ndarray:
    """The matrix [3, 3] that moves the mean landmarks of [n, 68, 2] onto the mean face."""
    return SimilarityTransform.from_estimate(landmarks.mean(0)[list(STABLE)], MEAN_FACE).params


def cut(frame: np.ndarray, transform: np.ndarray, landmarks: np.ndarray, warping: str) -> np.ndarray:
    """The mouth of one frame, uint8 [96, 96, 3]."""
    if warping == "skimage":
        face = warp(frame, np.linalg.inv(transform), order=1, output_shape=(FACE, FACE), preserve_range=True)
        face = face.astype(np.uint8)
    else:
        face = cv2.warpAffine(frame, transform[:2], (FACE, FACE), flags=cv2.INTER_LINEAR)
    points = landmarks[48:68] @ transform[:2, :2].T + transform[:2, 2]
    half = MOUTH // 2
    x, y = (min(max(round(float(value)), half), FACE - half) for value in points.mean(0))
    return face[y - half : y + half, x - half : x + half]


def write_crops(path: Path, crops: Iterator[np.ndarray]) -> int:
    """H.264 in colour, CRF 20, 25 frames a second; returns how many frames."""
    count = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"crf": "20"})
        stream.width = stream.height = MOUTH
        stream.pix_fmt = "yuv420p"
        for crop in crops:
            count += 1
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(crop), "bgr24")))
        container.mux(stream.encode())
    return count
