"""The default detector compared with the exact 68 landmarks of a synthetic face."""

from __future__ import annotations

import numpy as np
import pytest

from avhubert.corpora.synthetic.lips import Lips, MouthShape
from avhubert.corpora.synthetic.look import CENTRE, EYE_X, EYE_Y, NOSE_Y
from avhubert.corpora.synthetic.performance import CorpusSettings, Performance, perform
from avhubert.corpora.synthetic.pose import PIVOT_Y
from avhubert.corpora.synthetic.schedule import clip_spec
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.media import MediaPart
from avhubert.prepare.mouth import MouthTrack, find_mouth, find_mouths

SPEAKERS = 12
SEED = 5


def drawn_points(performance: Performance) -> np.ndarray:
    """iBUG's points float32 [T, 68, 2] in pixels, where they are drawn; points that no crop uses are 0."""
    drawer, shapes = performance.face, performance.shapes
    look, total = drawer.look, len(shapes.gap)
    points = np.zeros((total, 68, 2))
    points[:, 33] = CENTRE, NOSE_Y + 2.2  # lower edge of the nostrils
    for number, side, corner in ((36, -1, -1), (39, -1, 1), (42, 1, -1), (45, 1, 1)):
        points[:, number] = CENTRE + side * EYE_X + 11.35 * corner, EYE_Y
    for t in range(total):
        lips = Lips.of(look, MouthShape.at(shapes, t))
        u = lips.half * np.linspace(-1, 1, 7)
        s = np.abs(u) / lips.half
        inner = np.clip(1 - (u / lips.inner) ** 2, 0, 1) ** lips.power
        seam = 1.2 * s * s - 0.5 * np.exp(-((u / 4) ** 2))
        bow = (1 - s * s) * (1 - 0.22 * np.exp(-((u / 3.6) ** 2))) * (1 + 0.16 * np.exp(-(((np.abs(u) - 6) / 4) ** 2)))
        top = seam - lips.up * inner - lips.upper * bow
        low = seam + lips.down * inner + lips.lower * np.sqrt(1 - s**3)
        outer = [*zip(u, top, strict=True), *zip(u[-2:0:-1], low[-2:0:-1], strict=True)]
        v = lips.inner * np.linspace(-1, 1, 5)
        opening = np.clip(1 - (v / lips.inner) ** 2, 0, 1) ** lips.power
        middle = 1.2 * (v / lips.half) ** 2 - 0.5 * np.exp(-((v / 4) ** 2))
        between = [
            *zip(v, middle - lips.up * opening, strict=True),
            *zip(v[-2:0:-1], (middle + lips.down * opening)[-2:0:-1], strict=True),
        ]
        points[t, 48:68] = np.array([*outer, *between]) + np.array([CENTRE, look.mouth_y])
    motion = drawer.head_motion(total)
    angle, scale = motion.angle, motion.scale
    centre = np.array([CENTRE, PIVOT_Y])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    moved = (
        np.einsum("ijt,tkj->tki", rotation, points - centre)
        + centre
        + np.stack([motion.shift_x, motion.shift_y], 1)[:, None]
    )
    return moved.astype(np.float32)


def distances(ours: MouthTrack, exact: MouthTrack) -> np.ndarray:
    """Distances between the crops' centres [T], in pixels of the mean-face image."""
    inverse = np.linalg.inv(ours.transforms[:, :, :2])
    in_frame = np.einsum("tij,tj->ti", inverse, ours.centres - ours.transforms[:, :, 2])
    on_exact_face = np.einsum("tij,tj->ti", exact.transforms[:, :, :2], in_frame) + exact.transforms[:, :, 2]
    return np.linalg.norm(on_exact_face - exact.centres, axis=1)


@pytest.fixture(scope="module")
def crop_distances(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    root = tmp_path_factory.mktemp("drawn")
    make_corpus(root, SPEAKERS, speakers=SPEAKERS, seed=SEED)
    results = []
    for index in range(SPEAKERS):
        clip = clip_spec(index, SPEAKERS)
        video = (root / clip.stem).with_suffix(".mp4")
        points = drawn_points(perform(clip, CorpusSettings(SEED, speakers=SPEAKERS)))
        results.append(distances(find_mouth(MediaPart(video)), find_mouths(MediaPart(video), points=list(points))[0]))
    return results


def test_default_detector_crops_where_the_exact_landmarks_do(crop_distances: list[np.ndarray]) -> None:
    """The published crop uses 68 points: the median distance to its centre is below 1.5 pixels of 256."""
    assert np.median(np.concatenate(crop_distances)) < 1.5
    assert max(np.median(clip_distances) for clip_distances in crop_distances) < 2
