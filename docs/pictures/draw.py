"""Draws the pictures of docs/explanation/how-it-works.md: python docs/pictures/draw.py [FOLDER]"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from avhubert.config.schema import MaskingConfig
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import read_audio
from avhubert.data.filterbank import audio_features
from avhubert.data.media import MediaPart
from avhubert.data.video import read_frames
from avhubert.model.masking import draw_masks
from avhubert.prepare.detectors.blazeface import BlazeFace
from avhubert.prepare.geometry import MEAN_FACE, MEAN_FACE_SIZE, window_corners
from avhubert.prepare.mouth import find_mouth, mouth_clip
from avhubert.prepare.tracking import track_faces

GRAY, BLUE, RED, GREEN = "#666666", "#2563eb", "#dc2626", "#16a34a"


def crop(video: Path, target: Path) -> None:
    """A frame with landmarks, the frame aligned with the mean face, the crop, and crops over time."""
    frames = list(read_frames(video))
    (face,), _ = track_faces(frames, BlazeFace())
    mouth, clip = find_mouth(MediaPart(video)), mouth_clip(video)
    number = len(frames) // 2
    corners = window_corners(mouth.transforms, mouth.centres)[number]
    figure, axes = plt.subplot_mosaic(
        [["frame", "mean", "crop", "seen"], ["time"] * 4], figsize=(10, 4.1), height_ratios=[3, 1]
    )
    axes["frame"].imshow(frames[number])
    axes["frame"].scatter(
        *face.frames[number].stable.T, s=14, color=GREEN, label="base of the nose, corners of the eyes"
    )
    axes["frame"].scatter(*face.frames[number].mouth, s=24, color=BLUE, marker="x", label="centre of the lips")
    axes["frame"].add_patch(plt.Polygon(corners, fill=False, color=RED))
    axes["frame"].legend(fontsize=6, loc="lower left")
    axes["frame"].set_title("a frame, 224 × 224")
    turn = np.linalg.inv(np.vstack([mouth.transforms[number], [0, 0, 1]]))
    y, x = np.mgrid[:MEAN_FACE_SIZE, :MEAN_FACE_SIZE]
    source = np.rint(np.einsum("ij,jhw->ihw", turn[:2], np.stack([x, y, np.ones_like(x)]))).astype(int)
    height, width = frames[number].shape[:2]
    inside = (source[0] >= 0) & (source[0] < width) & (source[1] >= 0) & (source[1] < height)
    aligned = frames[number][source[1].clip(0, height - 1), source[0].clip(0, width - 1)] * inside[..., None]
    axes["mean"].imshow(aligned)
    axes["mean"].scatter(*MEAN_FACE.T, s=14, color=GREEN)
    middle = mouth.centres[number]
    axes["mean"].add_patch(plt.Rectangle(middle - 48, 96, 96, fill=False, color=RED))
    axes["mean"].set_title("aligned with the mean face, 256 × 256")
    axes["crop"].imshow(clip.frames[number], cmap="gray", vmin=0, vmax=255)
    axes["crop"].set_title("the crop, 96 × 96")
    axes["seen"].imshow(clip.frames[number][4:92, 4:92], cmap="gray", vmin=0, vmax=255)
    axes["seen"].set_title("input of the model, 88 × 88")
    axes["time"].imshow(np.concatenate(clip.frames[:: max(1, len(clip.frames) // 12)][:12], axis=1), cmap="gray")
    axes["time"].set_title("over time")
    _save(figure, axes.values(), target)


def masks(video: Path, target: Path) -> None:
    """Both streams of a clip with their masks, and labels (here: the true phones)."""
    clip = mouth_clip(video)
    frames = len(clip.frames)
    audio = audio_features(read_audio(video), frames).numpy().T
    masks = draw_masks(torch.zeros(1, frames, dtype=torch.bool), MaskingConfig(), "input", np.random.default_rng(3))
    masked = {"audio": masks.audio[0].numpy(), "video": masks.video[0].numpy()}
    figure, axes = plt.subplots(3, 1, figsize=(10, 4), height_ratios=[2, 1.4, 0.6], sharex=True)
    axes[0].imshow(audio, aspect="auto", origin="lower", cmap="magma", extent=(0, frames, 0, 104))
    axes[0].set_title("audio: 104 values per frame; blue frames are masked")
    step = max(1, frames // 14)
    for start in range(0, frames - step + 1, step):
        shown = clip.frames[start][4:92, 4:92]
        axes[1].imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(start, start + step, 0, 1), aspect="auto")
    axes[1].set_title("video: 88 × 88 pixels per frame; blue frames are replaced")
    for axis, name, high in ((axes[0], "audio", 104), (axes[1], "video", 1)):
        for frame in np.flatnonzero(masked[name]):
            axis.add_patch(plt.Rectangle((frame, 0), 1, high, color=BLUE, alpha=0.55, linewidth=0))
        axis.set_ylim(0, high)
    labels = _labels(video, frames)
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    row = np.array([[numbers[label] for label in labels]])
    axes[2].imshow(row, aspect="auto", cmap="tab20", extent=(0, frames, 0, 1))
    axes[2].set_title("targets: one cluster per frame (shown here: the true phones)")
    axes[2].set_xlim(0, frames)
    _save(figure, axes, target)


def _labels(video: Path, frames: int) -> list[str]:
    import json

    labels = ["sil"] * frames
    for phone in json.loads(video.with_suffix(".phones.json").read_text(encoding="utf-8")):
        for frame in range(round(phone["start"] * 25), min(frames, round(phone["end"] * 25))):
            labels[frame] = phone["phone"]
    return labels


def model(target: Path) -> None:
    """The blocks of the model and the shapes between them."""
    figure, axis = plt.subplots(figsize=(11, 3.3))
    boxes = [
        (0.0, 1.9, 1.5, "audio\n[B, 104, T]", GRAY),
        (0.0, 0.3, 1.5, "video\n[B, 1, T, 88, 88]", GRAY),
        (2.1, 1.9, 1.7, "linear\n[B, T, D]", BLUE),
        (2.1, 0.3, 1.7, "3-D convolution,\nResNet-18\n[B, T, D]", BLUE),
        (4.4, 1.1, 1.6, "fused:\nconcatenated,\nprojected\n[B, T, D]", BLUE),
        (6.6, 1.1, 1.7, "transformer,\n12 or 24 layers\n[B, T, D]", BLUE),
        (8.9, 1.9, 1.9, "pre-training:\ncluster heads\n[B, T, K]", GREEN),
        (8.9, 0.3, 1.9, "fine-tuning:\ndecoder, CTC head\n→ tokens", GREEN),
    ]
    for x, y, width, text, colour in boxes:
        axis.add_patch(plt.Rectangle((x, y), width, 1.1, fill=False, color=colour, linewidth=1.6))
        axis.text(x + width / 2, y + 0.55, text, ha="center", va="center", fontsize=10)
    for start, end in [
        ((1.5, 2.45), (2.1, 2.45)), ((1.5, 0.85), (2.1, 0.85)), ((3.8, 2.45), (4.4, 1.85)), ((3.8, 0.85), (4.4, 1.45)),
        ((6.0, 1.65), (6.6, 1.65)), ((8.3, 1.85), (8.9, 2.3)), ((8.3, 1.45), (8.9, 1.0)),
    ]:  # fmt: skip
        axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": GRAY})
    axis.set_xlim(-0.2, 11)
    axis.set_ylim(0, 3.3)
    _save(figure, [axis], target)


def _save(figure, axes, target: Path) -> None:
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.title.set_fontsize(8)
        for side in axis.spines.values():
            side.set_visible(False)
    figure.tight_layout()
    figure.savefig(target, dpi=80)
    plt.close(figure)


def main(folder: Path) -> None:
    """All pictures into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        make_corpus(scratch, 4, speakers=2, seed=9)
        video = min(Path(scratch).rglob("*.mp4"))
        crop(video, folder / "crop.png")
        masks(video, folder / "masks.png")
    model(folder / "model.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
