"""The appearance of a synthetic speaker, and where the parts of a face are in its canonical plane.

Every face is drawn in a canonical plane of 224 × 224 pixels. Its eyes, nose and mouth are where the mean face of the
published preparation has them, moved to the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CENTRE = 112.0  # x of the middle of the face
EYE_Y, NOSE_Y, MOUTH_Y = 96.0, 139.0, 160.0
EYE_X = 27.0  # half the distance between the eyes' centres

# colours, RGB
SKINS = ((244, 208, 180), (232, 188, 156), (214, 164, 128), (186, 134, 98), (146, 98, 68), (108, 72, 52))
HAIRS = ((38, 28, 24), (70, 46, 30), (112, 74, 44), (168, 124, 72), (206, 170, 110), (128, 60, 34), (150, 148, 146))
IRISES = ((74, 50, 32), (96, 72, 40), (70, 104, 138), (84, 112, 80), (104, 112, 118))
CLOTHES = ((52, 66, 96), (120, 44, 48), (60, 92, 74), (66, 62, 70), (172, 160, 140), (40, 40, 46), (96, 76, 110))
WALLS = ((176, 184, 190), (150, 162, 150), (190, 176, 158), (104, 116, 132), (84, 80, 88), (160, 140, 132))


@dataclass(frozen=True)
class Look:
    """The appearance of a speaker; lengths in canonical pixels, colours RGB 0…255."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    clothes: np.ndarray
    lips: np.ndarray
    teeth: np.ndarray
    face_width: float
    chin: float
    jaw: float  # 0 pointed … 1 square
    forehead: float
    hair_style: int  # 0 short, 1 long, 2 fringe, 3 receding
    brow: float
    eye_height: float
    nose_width: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    widest_gap: float
    articulation: float
    stubble: float
    mouth_y: float


def speaker_look(seed: int, speaker: int) -> Look:
    """The look of a speaker, a function of (seed, speaker); even speakers can have stubble, odd ones longer hair."""
    rng = np.random.default_rng([seed, speaker, 3])
    high = speaker % 2 == 1
    tone = int(rng.integers(len(SKINS)))
    skin = np.array(SKINS[tone], float) + rng.uniform(-8, 8, 3)
    hairs = HAIRS[: 3 if tone > 2 else len(HAIRS)]
    made_up = high and rng.random() < 0.5
    lips = skin * (0.80, 0.58, 0.58) + rng.uniform(-6, 6, 3)
    if made_up:
        lips = 0.5 * lips + 0.5 * np.array((176, 44, 60))
    return Look(
        skin=skin,
        hair=np.array(hairs[rng.integers(len(hairs))], float) + rng.uniform(-6, 6, 3),
        iris=np.array(IRISES[rng.integers(len(IRISES) if tone < 3 else 2)], float),
        clothes=np.array(CLOTHES[rng.integers(len(CLOTHES))], float),
        lips=lips,
        teeth=np.array((238, 232, 216), float) - rng.uniform(0, 22),
        face_width=rng.uniform(55, 61) - 2 * high,
        chin=rng.uniform(197, 204) - 2 * high,
        jaw=rng.uniform(0.0, 0.6) if high else rng.uniform(0.35, 1.0),
        forehead=rng.uniform(54, 62),
        hair_style=int(rng.choice((1, 1, 2)) if high else rng.choice((0, 0, 2, 3))),
        brow=rng.uniform(1.3, 2.0) if high else rng.uniform(1.9, 3.0),
        eye_height=rng.uniform(4.6, 6.2),
        nose_width=rng.uniform(8.5, 12.0),
        mouth_width=rng.uniform(21.5, 24.0),
        upper_lip=rng.uniform(4.2, 5.8),
        lower_lip=rng.uniform(5.8, 7.8),
        widest_gap=rng.uniform(26, 29),
        articulation=rng.uniform(0.95, 1.1),
        stubble=0.0 if high else float(rng.choice((0.0, 0.0, 0.12, 0.22))),
        mouth_y=MOUTH_Y + rng.uniform(-2, 2),
    )
