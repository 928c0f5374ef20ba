"""Which split and speaker each clip of a synthetic corpus has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# the splits of the clips, repeated: 60 % pretrain, 25 % trainval, 15 % test; the first four have clips in every split
ORDER = tuple({"p": "pretrain", "t": "trainval", "s": "test"}[letter] for letter in "pttspppptppspptppstp")
SMALLEST = 4  # clips


@dataclass(frozen=True)
class ClipSpec:
    """Split, speaker and number of a clip."""

    split: str
    speaker: int
    index: int

    @property
    def stem(self) -> Path:
        """Path of the clip's files without suffix, below the corpus folder."""
        return Path(self.split, f"speaker{self.speaker:03d}", f"{self.index:05d}")


def clip_spec(index: int, speakers: int) -> ClipSpec:
    """The split and speaker of clip `index`; they do not depend on the number of clips.

    The last fifth of the speakers (at least one) speaks in test only; within both groups, the speakers take turns.
    """
    test_speakers = max(1, speakers // 5)
    split = ORDER[index % len(ORDER)]
    is_test = split == "test"
    group = test_speakers if is_test else speakers - test_speakers
    rounds, rest = divmod(index, len(ORDER))
    turn = rounds * sum((other == "test") == is_test for other in ORDER)
    turn += sum((other == "test") == is_test for other in ORDER[:rest])
    # shifted by one in each round, so that no speaker always has the same split
    speaker = (turn + turn // group) % group
    return ClipSpec(split, speaker + (speakers - test_speakers if is_test else 0), index)
