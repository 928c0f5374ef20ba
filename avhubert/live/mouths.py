"""The mouths of all visible people in a live video: tracked as it arrives, cut as `avhubert.prepare.mouth` cuts them.

A crop is made as soon as `FIRST_LOOK_AHEAD` frames after it are known. Offline, a frame's position is the mean over the
`SMOOTHING` frames from it on; when these are known, a crop that is more than `TOLERANCE` pixels beside is made again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from avhubert.config.input_preparation import CLIP_SIZES, MEAN_FACE, NOSE_TO_CHIN
from avhubert.constants import FRAME_RATE, MOUTH_SIZE
from avhubert.errors import ConfigError
from avhubert.live.history import History
from avhubert.prepare.detectors.interface import MIN_OVERLAP, LandmarkModel, Landmarks, overlap
from avhubert.prepare.geometry import MEAN_FACE as MEAN_POINTS
from avhubert.prepare.geometry import (
    MEAN_FACE_SIZE,
    SMOOTHING,
    crop,
    interpolate,
    lower_face_square,
    similarity,
    square_crop,
    window_corners,
)
from avhubert.prepare.rejection import MAX_FACES
from avhubert.prepare.tracking import FaceTracker, Track
from avhubert.transcription.segmenter import LONGEST

FIRST_LOOK_AHEAD = 2  # frames after a frame that are known when its mouth is first cut out
TOLERANCE = 1.0  # pixels of the crop
REMEMBERED = LONGEST + 4 * FRAME_RATE  # frames of mouths
FORGET_AFTER = 20 * FRAME_RATE  # frames after which a person who is not seen is forgotten


@dataclass
class Person:
    """The mouth of one person, by frame of the stream.

    Attributes:
        number: From 1, in the order of appearance.
        mouths: Mouth frames uint8 [H, W]; the last one again where the face is not seen.
        detected: Whether the face was detected.
        lip_gap: Pixels between the inner lips.
        height: Of the face in pixels.
        revised: First and last frame whose crops were made again since the caller last took them; None: none was.
        last_seen: Frame in which the face was last detected.
    """

    number: int
    mouths: History
    detected: History
    lip_gap: History
    height: History
    revised: tuple[int, int] | None = None
    last_seen: int = 0
    box: np.ndarray = field(default_factory=lambda: np.zeros(4, np.float32))
    shot: int = 0
    empty: bool = True  # no mouth was seen yet
    placed: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # transforms and centres, by frame

    @classmethod
    def begin(cls, number: int, frame: int, size: int) -> Person:
        """A person who appears in a frame; `size`: height and width of mouth frames."""
        before = min(frame, LONGEST)  # of a window that begins before the face appears
        first = frame - before
        person = cls(
            number,
            mouths=History((size, size), np.uint8, REMEMBERED, first),
            detected=History((), np.bool_, REMEMBERED, first),
            lip_gap=History((), np.float64, REMEMBERED, first),
            height=History((), np.float64, REMEMBERED, first),
        )
        person.mouths.extend(np.zeros((before, size, size), np.uint8))
        for history in (person.detected, person.lip_gap, person.height):
            history.extend(np.zeros(before))
        return person

    def append(self, mouth: np.ndarray, detected: bool, lip_gap: float, height: float) -> None:
        """Append a frame; the first one is also that of all frames before."""
        self.mouths.append(mouth)
        self.detected.append(detected)
        self.lip_gap.append(lip_gap)
        self.height.append(height)
        if self.empty:
            self.empty = False
            self.mouths[self.mouths.start : self.mouths.end][:] = mouth
            self.lip_gap[self.lip_gap.start : self.lip_gap.end][:] = lip_gap
            self.height[self.height.start : self.height.end][:] = height

    def repeat(self) -> None:
        """Append a frame in which the face is not seen."""
        for history in (self.mouths, self.lip_gap, self.height):
            history.extend(history.last(1).copy() if history.end > history.start else history.blank(1))
        self.detected.append(False)


class MouthTracker:
    """Follows the mouths of a live video.

    Attributes:
        people: Everybody who was seen recently, in the order of appearance.
        received: Number of frames so far.
    """

    def __init__(self, model: LandmarkModel, kind: str = MEAN_FACE) -> None:
        """Begin without faces.

        Args:
            model: The face detector.
            kind: The crop that the recognizer reads, a value of `InputPreparation.crop`.
        """
        self.people: list[Person] = []
        self.received = 0
        self._kind = kind
        self._tracker = FaceTracker(model)
        self._images: deque[np.ndarray | None] = deque(maxlen=SMOOTHING)
        self._person_of: dict[int, tuple[Track, Person]] = {}  # by the track's id
        self._count = 0

    @property
    def end(self) -> int:
        """Number of frames whose mouths are known."""
        return max(0, self.received - FIRST_LOOK_AHEAD)

    def push(self, image: np.ndarray | None, track: bool = True) -> None:
        """Take the next frame, RGB uint8 [H, W, 3]; None: it is missing.

        Args:
            image: The frame.
            track: Whether faces are followed in this frame; if not, their positions are interpolated.
        """
        self._images.append(image)
        if image is None or not track:
            self._tracker.skip()
        else:
            self._tracker.update(image)
        self.received += 1
        if image is not None and track:
            self._assign()
        self._append(self.received - 1 - FIRST_LOOK_AHEAD)
        self._revise(self.received - SMOOTHING)
        if self.received % FRAME_RATE == 0:
            self._forget()

    def flush(self) -> None:
        """Make the crops of the last frames, for which no more look-ahead will come."""
        for frame in range(self.received - FIRST_LOOK_AHEAD, self.received):
            self._append(frame)

    # ----------------------------------------------------------------------- who is who
    def _assign(self) -> None:
        """Give each track that is new the person who was at its place in this shot, or a new person."""
        index = self.received - 1
        for track in self._tracker.tracks:
            landmarks = track.frames.get(index)
            if landmarks is None:
                continue
            known = self._person_of.get(id(track))
            person = self._person_at(track) if known is None else known[1]
            if person is None:
                if len(self.people) >= MAX_FACES:
                    continue
                self._count += 1
                size = CLIP_SIZES[self._kind]
                person = Person.begin(self._count, max(0, index - FIRST_LOOK_AHEAD), size)
                self.people.append(person)
            self._person_of[id(track)] = (track, person)
            person.last_seen, person.box, person.shot = index, landmarks.box, self._tracker.shot

    def _person_at(self, track: Track) -> Person | None:
        taken = {id(person) for other, person in self._person_of.values() if other.region is not None}
        free = [person for person in self.people if id(person) not in taken and person.shot == track.shot]
        nearest = max(free, key=lambda person: overlap(person.box, track.box), default=None)
        return nearest if nearest is not None and overlap(nearest.box, track.box) >= MIN_OVERLAP else None

    def _landmarks(self, person: Person, first: int, last: int) -> dict[int, Landmarks]:
        """The landmarks of a person in the frames first … last, and the nearest ones on both sides."""
        frames: dict[int, Landmarks] = {}
        for track, owner in self._person_of.values():
            if owner is person:
                frames |= track.frames
        inside = {index: landmarks for index, landmarks in frames.items() if first <= index <= last}
        before = max((index for index in frames if index < first), default=None)
        after = min((index for index in frames if last < index < self.received), default=None)
        for index in (before, after):
            if index is not None:
                inside[index] = frames[index]
        return inside

    def _forget(self) -> None:
        """Drop what no later frame needs, so that memory is bounded."""
        self._tracker.forget(self.received - 2 * FRAME_RATE)
        alive = {id(track) for track in self._tracker.tracks + self._tracker.ended}
        self._person_of = {key: value for key, value in self._person_of.items() if key in alive}
        self.people = [person for person in self.people if self.received - person.last_seen < FORGET_AFTER]

    # ----------------------------------------------------------------------- crops
    def _append(self, frame: int) -> None:
        """Cut the mouths of a frame with the look-ahead that there is."""
        if frame < 0:
            return
        image = self._images[frame - self.received]
        for person in self.people:
            if person.mouths.end > frame:
                continue
            while person.mouths.end < frame:
                person.repeat()
            known = self._landmarks(person, frame, self.received - 1)
            if image is None or not known or min(abs(index - frame) for index in known) > SMOOTHING:
                person.repeat()
                continue
            self._place(person, frame, known)
            nearest = known[min(known, key=lambda index: abs(index - frame))]
            person.append(
                self._crop(person, frame, image),
                frame in known or self._between(known, frame),
                _between_gaps(known, frame),
                float(nearest.box[3] - nearest.box[1]),
            )

    def _between(self, known: dict[int, Landmarks], frame: int) -> bool:
        """Whether a frame is between two detections: then its position is interpolated."""
        return min(known) < frame < max(known) and max(known) - min(known) <= SMOOTHING

    def _place(self, person: Person, frame: int, known: dict[int, Landmarks]) -> None:
        if self._kind == NOSE_TO_CHIN:
            nearest = known[min(known, key=lambda index: abs(index - frame))]
            if nearest.lower_face is None:
                raise ConfigError(f"the crop '{NOSE_TO_CHIN}' needs the points of the built-in face detector")
            person.placed[frame] = (lower_face_square(nearest.lower_face), np.zeros(2))
            return
        person.placed[frame] = _placed(known, frame, min(self.received - frame, SMOOTHING))

    def _crop(self, person: Person, frame: int, image: np.ndarray) -> np.ndarray:
        first, second = person.placed[frame]
        return square_crop(image, first) if self._kind == NOSE_TO_CHIN else crop(image, first, second)

    def _revise(self, frame: int) -> None:
        """Make the crops of a frame again that are beside the position that offline reading gives them."""
        for person in self.people:
            placed = person.placed.pop(frame, None)
            if placed is None or self._kind == NOSE_TO_CHIN:
                continue
            image = self._images[frame - self.received]
            known = self._landmarks(person, frame, self.received - 1)
            if image is None or not known:
                continue
            exact = _placed(known, frame, SMOOTHING)
            if _distance(placed, exact) <= TOLERANCE:
                continue
            person.mouths[frame : frame + 1][0] = crop(image, *exact)
            person.revised = (frame if person.revised is None else person.revised[0], frame)


def _placed(known: dict[int, Landmarks], frame: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Transform and centre of a mouth from landmarks by frame; `count` frames from this one on are averaged."""
    index = np.array(sorted(known))
    origin = min(int(index[0]), frame)
    frames = max(int(index[-1]), frame + count - 1) - origin + 1
    stable = interpolate(index - origin, np.stack([known[i].stable for i in index]), frames)
    mouth = interpolate(index - origin, np.stack([known[i].mouth for i in index]), frames)
    first = frame - origin
    transform = similarity(stable[first : first + count].mean(0), MEAN_POINTS)
    return transform, transform[:, :2] @ mouth[first] + transform[:, 2]


def _between_gaps(known: dict[int, Landmarks], frame: int) -> float:
    index = sorted(known)
    return float(np.interp(frame, index, [known[i].lip_gap for i in index]))


def _distance(placed: tuple[np.ndarray, np.ndarray], exact: tuple[np.ndarray, np.ndarray]) -> float:
    """By how many pixels of the crop its corners are beside those of another one."""
    corners = window_corners(exact[0][None], exact[1][None])[0]
    transform, centre = placed
    half = MOUTH_SIZE // 2
    middle = np.clip(np.rint(centre), half, MEAN_FACE_SIZE - half)
    shown = corners @ transform[:, :2].T + transform[:, 2] - middle
    expected = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return float(np.abs(shown - expected).max())
