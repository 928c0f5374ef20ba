"""Pictures of faces in conditions that are hard for a face detector, with the true place of the mouth.

Every scene is made from a frontal face whose mouth is known: a synthetic speaker, where the place is exact, or a frame
of a real recording, where it is the one that is found in the unchanged frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from avhubert.corpora.synthetic.face import Face
from avhubert.corpora.synthetic.look import CENTRE, speaker_look
from avhubert.corpora.synthetic.pose import HeadMotion
from avhubert.corpora.synthetic.visemes import mouth_shapes
from avhubert.data.video import read_frames
from avhubert.prepare.detectors.blazeface import BlazeFace
from avhubert.prepare.tracking import track_faces

SIZES = (20, 30, 40, 60, 80, 120, 200)  # heights of a face in a frame of 1280 × 720
WIDE = (720, 1280)
HAIR, WALL = np.array([60.0, 45, 35]), np.array([120.0, 125, 130])


@dataclass(frozen=True)
class Scene:
    """A picture with one face.

    Attributes:
        image: uint8 [H, W, 3].
        mouth: True centre of the mouth (x, y).
        height: From the top of the forehead to the chin, in pixels.
        centre: Middle of the face (x, y).
    """

    image: np.ndarray
    mouth: np.ndarray
    height: float
    centre: np.ndarray


class _StillFace(Face):
    """A face that does not move, so that canonical coordinates are pixels."""

    def head_motion(self, total: int) -> HeadMotion:
        zeros = np.zeros(total)
        return HeadMotion(zeros, zeros, zeros, zeros + 1, zeros + 1)


def synthetic_faces(count: int, seed: int = 5) -> list[Scene]:
    """Frontal faces of `count` synthetic speakers with closed mouths."""
    scenes = []
    for speaker in range(count):
        look = speaker_look(seed, speaker)
        image = next(_StillFace(look, np.random.default_rng([seed, speaker])).frames(mouth_shapes((), 1)))
        height = look.chin - look.forehead
        middle = np.array([CENTRE, (look.chin + look.forehead) / 2])
        scenes.append(Scene(image, np.array([CENTRE, look.mouth_y + 1.0]), height, middle))
    return scenes


def real_faces(videos: list[Path]) -> list[Scene]:
    """The frontal face of the first frame of each video."""
    model = BlazeFace()
    scenes = []
    for video in videos:
        image = next(iter(read_frames(video)))
        tracks, _ = track_faces([image], model)
        if tracks:
            face = tracks[0].frames[0]
            scenes.append(Scene(image, face.mouth, float(face.box[3] - face.box[1]), (face.box[:2] + face.box[2:]) / 2))
    return scenes


def turned(scene: Scene, yaw: float, pitch: float = 0.0) -> Scene:
    """The head turned by degrees: its picture on an ellipsoid with a nose; the back of the head has hair."""
    height, width = scene.image.shape[:2]
    radius = np.array([0.42, 0.62, 0.5]) * scene.height
    middle = scene.centre - [0, 0.08 * scene.height]
    step = 0.5
    y, x = np.meshgrid(np.arange(0, height, step), np.arange(0, width, step), indexing="ij")
    u, v = (x - middle[0]) / radius[0], (y - middle[1]) / radius[1]
    inside = u * u + v * v < 0.97
    u, v, x, y = u[inside], v[inside], x[inside], y[inside]
    nose = np.exp(-((u / 0.2) ** 2) - (((v - 0.2) / 0.28) ** 2)) * 0.2 * scene.height
    depth = radius[2] * np.sqrt(1 - u * u - v * v)
    colours = scene.image[y.astype(int), x.astype(int)].astype(np.float32)
    points = np.stack([x - middle[0], y - middle[1], depth + nose], 1)
    back = points * [1, 1, 0] - np.stack([0 * u, 0 * u, depth], 1)
    points, colours = np.concatenate([points, back]), np.concatenate([colours, np.tile(HAIR, (len(back), 1))])
    a, b = np.deg2rad(yaw), np.deg2rad(pitch)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    turn = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]]) @ turn
    moved = points @ turn.T
    order = np.argsort(moved[:, 2])  # the nearest last
    image = scene.image.copy()
    image[inside_head(scene, 1.06)] = WALL if scene.image[5, 5].sum() == 0 else scene.image[5, 5]
    columns = np.clip(np.rint(moved[order, 0] + middle[0]).astype(int), 0, width - 1)
    rows = np.clip(np.rint(moved[order, 1] + middle[1]).astype(int), 0, height - 1)
    image[rows, columns] = colours[order]
    offset = scene.mouth - middle
    mouth_depth = radius[2] * np.sqrt(max(1 - (offset[0] / radius[0]) ** 2 - (offset[1] / radius[1]) ** 2, 0.05))
    mouth = turn @ [*offset, mouth_depth]
    return replace(scene, image=image, mouth=mouth[:2] + middle, centre=(turn @ [0, 0, radius[2] / 2])[:2] + middle)


def inside_head(scene: Scene, scale: float = 1.0) -> np.ndarray:
    """Bool [H, W]: the ellipse of the head."""
    height, width = scene.image.shape[:2]
    y, x = np.mgrid[:height, :width]
    middle = scene.centre - [0, 0.08 * scene.height]
    radius = scale * np.array([0.42, 0.62]) * scene.height
    ellipse: np.ndarray = ((x - middle[0]) / radius[0]) ** 2 + ((y - middle[1]) / radius[1]) ** 2 < 1
    return ellipse


def rolled(scene: Scene, degrees: float) -> Scene:
    """The whole picture rotated about its middle."""
    image = np.stack(
        [ndimage.rotate(scene.image[..., c], degrees, reshape=True, order=1, cval=90) for c in range(3)], -1
    )
    a = np.deg2rad(degrees)
    rotation = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    old = (np.array(scene.image.shape[1::-1]) - 1) / 2
    new = (np.array(image.shape[1::-1]) - 1) / 2
    return Scene(image, rotation @ (scene.mouth - old) + new, scene.height, rotation @ (scene.centre - old) + new)


def background(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A room: soft shapes, edges, fine texture; float32 [H, W, 3]."""
    image = np.empty((*shape, 3), np.float32)
    image[:] = rng.uniform(60, 170, 3)
    for _ in range(40):
        top, left = rng.integers(shape[0]), rng.integers(shape[1])
        size = rng.integers(20, 260, 2)
        image[top : top + size[0], left : left + size[1]] = rng.uniform(20, 220, 3)
    image = ndimage.gaussian_filter(image, (1.5, 1.5, 0))
    cells = rng.normal(0, 12, (shape[0] // 16 + 1, shape[1] // 16 + 1, 1))
    image += ndimage.zoom(cells, (16, 16, 1), order=1)[: shape[0], : shape[1]]
    noisy: np.ndarray = image + rng.normal(0, 3, image.shape)
    return noisy


def small(scene: Scene, size: int, rng: np.random.Generator, shape: tuple[int, int] = WIDE) -> Scene:
    """The head and shoulders in a wide shot, with a face of `size` pixels."""
    scale = size / scene.height
    blurred = ndimage.gaussian_filter(scene.image.astype(np.float32), (0.4 / min(scale, 1), 0.4 / min(scale, 1), 0))
    picture = np.clip(ndimage.zoom(blurred, (scale, scale, 1), order=1), 0, 255)
    wide = background(rng, shape)
    h, w = min(picture.shape[0], shape[0]), min(picture.shape[1], shape[1])
    top, left = int(rng.integers(shape[0] - h + 1)), int(rng.integers(shape[1] - w + 1))
    wide[top : top + h, left : left + w] = picture[:h, :w]
    ratio = np.array(
        [(picture.shape[1] - 1) / (scene.image.shape[1] - 1), (picture.shape[0] - 1) / (scene.image.shape[0] - 1)]
    )
    shift = np.array([left, top])
    return Scene(to_bytes(wide), scene.mouth * ratio + shift, float(size), scene.centre * ratio + shift)


def dark(scene: Scene, gain: float, rng: np.random.Generator) -> Scene:
    """Too little light: lower levels, and the noise of the sensor."""
    return replace(scene, image=to_bytes(scene.image * gain + rng.normal(0, 2, scene.image.shape)))


def backlit(scene: Scene, gain: float, rng: np.random.Generator) -> Scene:
    """A dark face in front of a window."""
    mask = ndimage.gaussian_filter(inside_head(scene, 1.1).astype(np.float32), 4)[..., None]
    glare = 235 + rng.normal(0, 4, scene.image.shape)
    return replace(scene, image=to_bytes(mask * (scene.image * gain + 6) + (1 - mask) * glare))


def blurred(scene: Scene, share: float) -> Scene:
    """Out of focus: standard deviation as a share of the face's height."""
    sigma = share * scene.height
    return replace(scene, image=to_bytes(ndimage.gaussian_filter(scene.image.astype(np.float32), (sigma, sigma, 0))))


def old_film(scene: Scene, rng: np.random.Generator) -> Scene:
    """Gray, low contrast, grain, scratches."""
    gray = scene.image.astype(np.float32) @ [0.299, 0.587, 0.114]
    gray = 40 + 0.65 * ndimage.gaussian_filter(gray, 0.8)
    gray += ndimage.gaussian_filter(rng.normal(0, 1, gray.shape), 0.7) * 40
    for column in rng.integers(0, gray.shape[1], 4):
        gray[:, column] = 230
    return replace(scene, image=np.repeat(to_bytes(gray)[..., None], 3, 2))


def covered(scene: Scene, what: str) -> Scene:
    """`hand` or `microphone` before the mouth, `sunglasses`, a medical `mask`."""
    image = scene.image.astype(np.float32)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    s, (mx, my) = scene.height, scene.mouth
    cheek = image[int(my - 0.15 * s) : int(my - 0.05 * s), int(mx - 0.2 * s) : int(mx - 0.1 * s)].mean((0, 1))
    if what == "hand":
        for finger in range(4):
            area = (np.abs(x - mx) < 0.42 * s) & (np.abs(y - my - (finger - 1.5) * 0.1 * s) < 0.047 * s)
            shade = 0.95 - 0.3 * np.abs(y - my - (finger - 1.5) * 0.1 * s) / (0.05 * s)
            image[area] = (cheek * shade[..., None])[area]
    elif what == "microphone":
        area = ((x - mx) / (0.17 * s)) ** 2 + ((y - my - 0.02 * s) / (0.19 * s)) ** 2 < 1
        area |= (np.abs(x - mx) < 0.06 * s) & (y > my)
        image[area] = (35 + 14 * ((x + y) % 5))[area][:, None]
    elif what == "mask":
        area = ((x - mx) / (0.36 * s)) ** 2 + ((y - my) / (0.3 * s)) ** 2 < 1
        image[area] = (np.array([120, 160, 190.0]) * (1 - 0.1 * ((y // max(0.06 * s, 1)) % 2))[..., None])[area]
    else:
        for side in (-1, 1):
            cx, cy = mx + side * 0.19 * s, my - 0.42 * s
            image[((x - cx) / (0.16 * s)) ** 2 + ((y - cy) / (0.11 * s)) ** 2 < 1] = 18
    return replace(scene, image=to_bytes(image))


def to_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def scenes(faces: list[Scene], seed: int = 0) -> Iterator[tuple[str, list[Scene]]]:
    """Every condition with its pictures."""
    rng = np.random.default_rng(seed)
    for yaw in (0, 15, 30, 45, 60, 75, 90):
        yield f"yaw ±{yaw}°", [turned(face, sign * yaw) for face in faces for sign in ((-1, 1) if yaw else (1,))]
    for pitch in (20, 40):
        yield f"pitch ±{pitch}°", [turned(face, 0, sign * pitch) for face in faces for sign in (-1, 1)]
    for roll in (30, 60, 90, 120, 150, 180):
        yield (
            f"roll ±{roll}°",
            [rolled(face, sign * roll) for face in faces for sign in ((-1, 1) if roll < 180 else (1,))],
        )
    for size in SIZES:
        yield f"{size} pixels high in 1280 × 720", [small(face, size, rng) for face in faces]
    for gain in (0.3, 0.1, 0.05):
        yield f"dark, × {gain:g}", [dark(face, gain, rng) for face in faces]
    for gain in (0.3, 0.15, 0.08):
        yield f"backlit, × {gain:g}", [backlit(face, gain, rng) for face in faces]
    for share in (0.02, 0.04, 0.08):
        yield f"blur, σ {share:.0%} of the height", [blurred(face, share) for face in faces]
    yield "old film", [old_film(face, rng) for face in faces]
    for what in ("hand", "microphone", "mask", "sunglasses"):
        yield f"{what}", [covered(face, what) for face in faces]
    yield (
        "no face",
        [replace(face, image=to_bytes(background(rng, face.image.shape[:2])), height=0.0) for face in faces],
    )
