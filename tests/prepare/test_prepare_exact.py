"""The default detector against the 68 points where a synthetic face's features were really drawn."""

from __future__ import annotations

import numpy as np
import pytest

from avhubert.corpora.synthetic.lips import Lips, MouthShape
from avhubert.corpora.synthetic.look import CENTRE, EYE_X, EYE_Y, NOSE_Y
from avhubert.corpora.synthetic.performance import CorpusSettings, Performance, perform
from avhubert.corpora.synthetic.pose import PIVOT_Y
from avhubert.corpora.synthetic.schedule import clip_spec
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.prepare.mouth import MouthTrack, find_mouth, find_mouths

SPEAKERS = 12
SEED = 5


def drawn_points(performance: Performance) -> np.ndarray:
    """iBUG's points float32 [T, 68, 2] in pixels, as the lines are drawn; those that no crop uses are left at 0."""
    drawer, shapes = performance.face, performance.shapes
    look, total = drawer.look, len(shapes.gap)
    points = np.zeros((total, 68, 2))
    points[:, 33] = CENTRE, NOSE_Y + 2.2  # the nostrils' lower edge
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
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    moved = (
        np.einsum("ijt,tkj->tki", turn, points - centre)
        + centre
        + np.stack([motion.shift_x, motion.shift_y], 1)[:, None]
    )
    return moved.astype(np.float32)


def distances(ours: MouthTrack, exact: MouthTrack) -> np.ndarray:
    """Between the crops' centres [T], in pixels of the frame of the mean face."""
    inverse = np.linalg.inv(ours.transforms[:, :, :2])
    there = np.einsum("tij,tj->ti", inverse, ours.centres - ours.transforms[:, :, 2])
    mapped = np.einsum("tij,tj->ti", exact.transforms[:, :, :2], there) + exact.transforms[:, :, 2]
    return np.linalg.norm(mapped - exact.centres, axis=1)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    root = tmp_path_factory.mktemp("drawn")
    make_corpus(root, SPEAKERS, speakers=SPEAKERS, seed=SEED)
    result = []
    for index in range(SPEAKERS):
        clip = clip_spec(index, SPEAKERS)
        video = (root / clip.stem).with_suffix(".mp4")
        points = drawn_points(perform(clip, CorpusSettings(SEED, speakers=SPEAKERS)))
        result.append(distances(find_mouth(video), find_mouths(video, points=list(points))[0]))
    return result


def test_the_crop_is_where_the_drawn_points_put_it(found: list[np.ndarray]) -> None:
    """The published crop is that of 68 points: the median difference of its centre is below 1.5 pixels of 256."""
    assert np.median(np.concatenate(found)) < 1.5
    assert max(np.median(one) for one in found) < 2
