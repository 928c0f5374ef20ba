"""Front-end features of a live stream, each frame computed once."""

from __future__ import annotations

import numpy as np

from avhubert.constants import SAMPLES_PER_FRAME
from avhubert.live.engine import LOOK_AHEAD_SAMPLES, LiveEngine
from avhubert.live.history import History
from avhubert.live.mouths import REMEMBERED, Person
from avhubert.model.frontends import STEM_RADIUS


class AudioFeatures:
    """Features of the audio; a frame needs 15 ms of what follows it."""

    def __init__(self, engine: LiveEngine) -> None:
        self.features = History((engine.width,), np.float32, REMEMBERED)
        self._engine = engine
        self._samples = np.zeros(0, np.int16)  # from the frame before the next one on
        self._context = 0  # frames of it that are context

    def push(self, samples: np.ndarray) -> None:
        """Take samples, int16 [N] at 16 kHz."""
        self._samples = np.concatenate([self._samples, samples])
        frames = (len(self._samples) - LOOK_AHEAD_SAMPLES) // SAMPLES_PER_FRAME - self._context
        if frames < 1:
            return
        total = frames + self._context
        block = self._samples[: total * SAMPLES_PER_FRAME + LOOK_AHEAD_SAMPLES]
        self.features.extend(self._engine.audio_features(block, frames))
        self._samples = self._samples[(total - 1) * SAMPLES_PER_FRAME :]
        self._context = 1


class VideoFeatures:
    """Features of one person's mouth; a frame needs the two after it, except the last one of the stream."""

    def __init__(self, engine: LiveEngine, person: Person, start: int) -> None:
        self.features = History((engine.width,), np.float32, REMEMBERED, start)
        self._engine = engine
        self._person = person

    def until(self, end: int, last: bool = False) -> None:
        """Compute the features of all frames before `end`; `last`: no frame follows, the stem reads zeros there."""
        mouths = self._person.mouths
        self._again()
        first = self.features.end
        if end <= first:
            return
        self.features.extend(self._compute(first, end, mouths.end if not last else end))

    def _again(self) -> None:
        """Compute the features again that depend on mouths that were cut out again."""
        if self._person.revised is None:
            return
        first = max(self._person.revised[0] - STEM_RADIUS, self.features.start)
        end = min(self._person.revised[1] + STEM_RADIUS + 1, self.features.end)
        self._person.revised = None
        if first < end:
            self.features[first:end][:] = self._compute(first, end, self._person.mouths.end)

    def _compute(self, first: int, end: int, available: int) -> np.ndarray:
        mouths = self._person.mouths
        before = min(STEM_RADIUS, first - mouths.start)
        after = min(STEM_RADIUS, available - end)
        return self._engine.video_features(mouths[first - before : end + after], before, after)
