"""Trains and measures the classifier that refuses crops without a mouth.

    python benchmarks/train_mouth_check.py GRID [--cache crops.npz] [--write]

Crops with a mouth: clips of GRID and synthetic speakers, changed at random (mirrored, turned, squeezed, blurred, noise,
light). Crops without: the same with a hand, microphone, mask or smear drawn over the mouth; walls; crops that are
upside down, on the side or beside the mouth. Measured on speakers that are held out of the training: clips that are
refused, and clips with a covered mouth that are accepted. The weights that are written are learned from all speakers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from face_scenes import background
from safetensors.numpy import save_file
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from avhubert.corpora.synthetic.performance import CorpusSettings, perform
from avhubert.corpora.synthetic.schedule import ClipSpec
from avhubert.prepare.mouth import mouth_clip
from avhubert.prepare.visible_mouth import LEAST_SCORE, WEIGHTS, gradient_histogram

HELD_OUT = ("s3", "s5", "s31")  # and the last third of the synthetic speakers
SYNTHETIC = 24  # speakers
PER_CLIP = 6  # crops
STRENGTH = 3.0  # inverse of the regularisation
ROW, COLUMN = np.mgrid[:96, :96].astype(np.float32)
Crops = dict[str, np.ndarray]  # [PER_CLIP, 96, 96] by SPEAKER_CLIP


def real_crops(grid: Path, clips: int) -> Crops:
    """Crops of the first clips of each speaker, as `avhubert prepare` cuts them."""
    crops = {}
    for folder in sorted(path for path in grid.iterdir() if path.is_dir()):
        for video in sorted(path for path in folder.iterdir() if path.suffix in (".mpg", ".mp4"))[:clips]:
            frames = mouth_clip(video).frames
            crops[f"{folder.name}_{video.stem}"] = frames[np.linspace(0, len(frames) - 1, PER_CLIP).astype(int)]
    return crops


def synthetic_crops() -> Crops:
    """Crops of drawn faces, every other one with a beard."""
    crops = {}
    for speaker in range(SYNTHETIC):
        extras = ("beard",) if speaker % 2 else ()
        clip = perform(ClipSpec("pretrain", speaker, speaker), CorpusSettings(4, speakers=SYNTHETIC, extras=extras))
        frames = [frame for index, frame in enumerate(clip.frames()) if index % 8 == 3][:PER_CLIP]
        gray = np.stack(frames) @ np.array([0.299, 0.587, 0.114])
        crops[f"synthetic{speaker}_0"] = gray.astype(np.uint8)[:, 112:208, 64:160]
    return crops


def changed(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The crop of another camera: mirrored, turned, squeezed as of a turned head, blurred, darker, noisy."""
    image = crop.astype(np.float32)[:, :: rng.choice((-1, 1))]
    angle, scale = np.deg2rad(rng.normal(0, 5)), rng.uniform(0.88, 1.15)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    matrix[:, 1] /= rng.uniform(0.65, 1.05)
    centre = np.array([47.5, 47.5])
    image = ndimage.affine_transform(
        image, matrix, centre - matrix @ (centre + rng.normal(0, 3, 2)), order=1, mode="nearest"
    )
    if rng.random() < 0.5:
        image = ndimage.gaussian_filter(image, rng.uniform(0.3, 3.5))
    image = (image - image.mean()) * rng.uniform(0.2, 1.3) + rng.uniform(30, 180)
    if rng.random() < 0.5:
        image += rng.normal(0, rng.uniform(1, 5), image.shape)
    if rng.random() < 0.3:
        image *= np.linspace(*rng.uniform(0.4, 1.3, 2), 96)
    return np.clip(image, 0, 255).astype(np.uint8)


def covered(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The crop with fingers, a microphone, a mask or a smear over the mouth."""
    image = crop.astype(np.float32)
    x, y = COLUMN - 48 - rng.normal(0, 3), ROW - 48 - rng.normal(0, 3)
    skin = np.median(image[20:40, 10:30]) * rng.uniform(0.75, 1.25)
    kind = rng.integers(4)
    if kind == 0:
        angle, width = rng.uniform(-1.2, 1.2), rng.uniform(8, 14)
        across, along = y * np.cos(angle) - x * np.sin(angle), x * np.cos(angle) + y * np.sin(angle)
        area = (np.abs(across) < width * rng.uniform(1.6, 2.6)) & (along > -rng.uniform(30, 48))
        middle = np.abs(across / width - np.round(across / width))
        paint = skin * (1 - rng.uniform(0.35, 0.7) * middle)
    elif kind == 1:
        wide, high = rng.uniform(17, 30, 2)
        area = ((x / wide) ** 2 + (y / high) ** 2 < 1) | ((np.abs(x) < 0.4 * wide) & (y > 0))
        paint = rng.uniform(15, 80) + rng.uniform(0, 20) * ((COLUMN + ROW) % int(rng.integers(2, 6)) == 0)
    elif kind == 2:
        area = (x / rng.uniform(34, 48)) ** 2 + (y / rng.uniform(22, 34)) ** 2 < 1
        paint = rng.uniform(60, 230) * (1 - 0.12 * (np.sin(ROW / rng.uniform(1.5, 4)) > 0))
    else:
        area = (x / rng.uniform(24, 40)) ** 2 + (y / rng.uniform(20, 32)) ** 2 < 1
        paint = skin + 60 * ndimage.gaussian_filter(rng.normal(0, 1, image.shape), 6)
    return np.clip(ndimage.gaussian_filter(np.where(area, paint, image), 0.6), 0, 255).astype(np.uint8)


def elsewhere(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A wall, or a crop upside down, on the side, or beside the mouth."""
    kind = rng.integers(4)
    if kind == 0:
        return np.clip(background(rng, (96, 96)).mean(-1), 0, 255).astype(np.uint8)
    if kind < 3:
        return np.ascontiguousarray(crop[::-1] if kind == 1 else crop.T)
    shift = int(rng.choice((-1, 1)) * rng.integers(24, 48)), int(rng.integers(-20, 20))
    return np.roll(crop, shift, (0, 1))


def examples(crops: Crops, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of crops with and without a mouth, [n, 384] each."""
    rng = np.random.default_rng(seed)
    good, bad = [], []
    for name, frames in crops.items():
        for frame in frames[:: 3 if name.startswith("s1_") else 1]:  # most clips are of s1
            good += [frame, *(changed(frame, rng) for _ in range(3))]
            bad += [*(changed(covered(frame, rng), rng) for _ in range(3)), changed(elsewhere(frame, rng), rng)]
    return tuple(np.stack([gradient_histogram(frame) for frame in group]) for group in (good, bad))


def learn(crops: Crops) -> tuple[np.ndarray, float]:
    good, bad = examples(crops, 1)
    labels = np.concatenate([np.ones(len(good)), np.zeros(len(bad))])
    model = LogisticRegression(C=STRENGTH, max_iter=300).fit(np.concatenate([good, bad]), labels)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def measure(crops: Crops, weight: np.ndarray, bias: float) -> None:
    """Print the shares of clips that are refused: as they are, changed, covered, elsewhere."""

    def refused(make: str, rounds: int) -> tuple[float, int, float]:
        medians = []
        for number, frames in enumerate(list(crops.values()) * rounds):
            scores = []
            for frame in frames:
                rng = np.random.default_rng([7, number])  # the same for all frames of a clip
                changes = {"as it is": lambda f: f, "changed": lambda f, r=rng: changed(f, r)}
                changes |= {"covered": lambda f, r=rng: changed(covered(f, r), r)}
                changes |= {"elsewhere": lambda f, r=rng: changed(elsewhere(f, r), r)}
                scores.append(gradient_histogram(changes[make](frame)) @ weight + bias)
            medians.append(np.median(scores))
        return 100 * float(np.mean(np.array(medians) < LEAST_SCORE)), len(medians), float(np.median(medians))

    for make, rounds in (("as it is", 1), ("changed", 4), ("covered", 4), ("elsewhere", 4)):
        share, count, score = refused(make, rounds)
        print(f"| {make} | {count} | {share:.1f} | {score:.1f} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("grid", type=Path, help="folder with the speakers s1, s2, … of GRID")
    options.add_argument("--clips", type=int, default=60, help="of each speaker")
    options.add_argument("--cache", type=Path, help=".npz file that keeps the crops")
    options.add_argument("--write", action="store_true", help="write the weights into the package")
    given = options.parse_args()
    if given.cache and given.cache.is_file():
        crops = dict(np.load(given.cache))
    else:
        crops = {**real_crops(given.grid, given.clips), **synthetic_crops()}
        if given.cache:
            np.savez_compressed(given.cache, **crops)
    late = tuple(f"synthetic{number}" for number in range(2 * SYNTHETIC // 3, SYNTHETIC))
    held_out = {name: frames for name, frames in crops.items() if name.split("_")[0] in (*HELD_OUT, *late)}
    print("| held-out clips | number | refused, % | median score |\n|---|---|---|---|")
    measure(held_out, *learn({name: frames for name, frames in crops.items() if name not in held_out}))
    if given.write:
        weight, bias = learn(crops)
        origin = "learned from synthetic faces and GRID (Cooke, Barker, Cunningham, Shao 2006; CC BY 4.0)"
        save_file({"weight": weight, "bias": np.array([bias], np.float32)}, WEIGHTS, {"origin": origin})


if __name__ == "__main__":
    main()
