"""Word and character errors: counts, rates and confidence intervals.

Intervals resample utterances with replacement (Bisani & Ney, 2004), since the words of one utterance are not
independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import jiwer
import numpy as np

from avhubert.data.text import is_unspaced
from avhubert.evaluation.conditions import Condition

RESAMPLES = 1000  # of the bootstrap


class ScoredText(NamedTuple):
    """The text of a hypothesis, normalised, and its score in the beam search."""

    text: str
    score: float


@dataclass(frozen=True)
class Utterance:
    """The reference and the best hypothesis of a clip, with its word errors.

    Attributes:
        id: of the clip.
        reference: normalised transcript.
        hypothesis: normalised text of the best hypothesis.
        score: of the best hypothesis.
        words: of the reference.
        substitutions, deletions, insertions: word errors.
        others: further hypotheses, best first.
        speaker: who speaks, by the manifest; '' if it does not say.
    """

    id: str
    reference: str
    hypothesis: str
    score: float
    words: int
    substitutions: int
    deletions: int
    insertions: int
    others: list[ScoredText] = field(default_factory=list)
    speaker: str = ""

    @property
    def errors(self) -> int:
        """Word errors."""
        return self.substitutions + self.deletions + self.insertions

    def is_valid(self) -> bool:
        """Whether texts are texts and counts are counts, as they are in a file that nobody changed."""
        counts = (self.words, self.substitutions, self.deletions, self.insertions)
        return (
            all(isinstance(text, str) for text in (self.id, self.reference, self.hypothesis, self.speaker))
            and all(type(count) is int and 0 <= count < 1 << 31 for count in counts)
            and isinstance(self.score, (int, float))
        )


@dataclass(frozen=True)
class Result:
    """Error rates of one condition.

    Attributes:
        modality, snr, noise, fault: the condition.
        wer, cer: word and character error rate in percent.
        interval: 95 % interval of the word error rate, by bootstrap.
        words, substitutions, deletions, insertions: sums over the utterances.
        clips: number of utterances.
        seconds_of_video: duration of the clips.
        seconds: duration of the evaluation.
        utterances: each clip's texts and errors.
        measured_snr: lowest and highest signal-to-noise ratio of the mixtures, dB.
        stages: seconds of reading, encoding and search.
        cer_interval: 95 % interval of the character error rate, by bootstrap.
        unspaced: whether the references have no spaces between words, as in Japanese: then the character error rate
            counts, and leaves spaces out.
    """

    modality: str
    snr: int | None
    wer: float
    interval: tuple[float, float]
    cer: float
    words: int
    substitutions: int
    deletions: int
    insertions: int
    clips: int
    seconds_of_video: float
    seconds: float
    utterances: tuple[Utterance, ...]
    noise: str | None = None
    fault: str | None = None
    measured_snr: tuple[float, float] | None = None
    stages: dict[str, float] = field(default_factory=dict)
    cer_interval: tuple[float, float] | None = None
    unspaced: bool = False

    def summary(self) -> dict[str, Any]:
        """The result without its utterances, and the error rate of each speaker, as in results.json."""
        values = asdict(replace(self, utterances=()))
        del values["utterances"]
        speakers = [rate._asdict() for rate in group_rates(self.utterances, speaker)]
        return values | {"condition": str(self.condition), "speakers": speakers}

    @property
    def condition(self) -> Condition:
        """The condition of the result."""
        return Condition(self.modality, self.noise, self.snr, self.fault)

    def __str__(self) -> str:
        low, high = self.interval
        rates = f"WER {self.wer:.1f} % [{low:.1f}, {high:.1f}], CER {self.cer:.1f} %"
        if self.unspaced and self.cer_interval is not None:
            low, high = self.cer_interval
            rates = f"CER {self.cer:.1f} % [{low:.1f}, {high:.1f}]"
        return f"{self.condition}: {rates}, {self.clips} clips"


def score(
    ids: Sequence[str],
    references: Sequence[str],
    hypotheses: Sequence[Sequence[tuple[str, float]]],
    speakers: Sequence[str] | None = None,
) -> tuple[Utterance, ...]:
    """Count the word errors of the best hypothesis of each utterance.

    Args:
        ids: of the utterances.
        references: their transcripts.
        hypotheses: texts and scores of the hypotheses of each utterance, best first.
        speakers: who speaks; None: unknown.
    """
    scored = []
    known = speakers or [""] * len(ids)
    for identifier, reference, ((hypothesis, value), *others), name in zip(
        ids, references, hypotheses, known, strict=True
    ):
        counts = jiwer.process_words(reference, hypothesis)
        scored.append(
            Utterance(
                id=identifier,
                reference=reference,
                hypothesis=hypothesis,
                score=value,
                words=len(reference.split()),
                substitutions=counts.substitutions,
                deletions=counts.deletions,
                insertions=counts.insertions,
                others=[ScoredText(*other) for other in others],
                speaker=name,
            )
        )
    return tuple(scored)


def summarise(
    utterances: tuple[Utterance, ...],
    condition: Condition,
    seconds_of_video: float,
    seconds: float,
    measured_snr: tuple[float, float] | None = None,
    stages: dict[str, float] | None = None,
) -> Result:
    """The result of scored utterances; for the arguments see `Result`."""
    errors = np.array([utterance.errors for utterance in utterances])
    words = np.array([utterance.words for utterance in utterances])
    unspaced = is_unspaced(utterance.reference for utterance in utterances)
    character_errors, characters = _character_errors(utterances, unspaced)
    return Result(
        modality=condition.modality,
        snr=condition.snr,
        wer=error_rate(errors, words),
        interval=bootstrap(errors, words),
        cer=error_rate(character_errors, characters),
        words=int(words.sum()),
        substitutions=sum(utterance.substitutions for utterance in utterances),
        deletions=sum(utterance.deletions for utterance in utterances),
        insertions=sum(utterance.insertions for utterance in utterances),
        clips=len(utterances),
        seconds_of_video=seconds_of_video,
        seconds=seconds,
        utterances=utterances,
        noise=condition.noise,
        fault=condition.fault,
        measured_snr=measured_snr,
        stages=stages or {},
        cer_interval=bootstrap(character_errors, characters),
        unspaced=unspaced,
    )


def _character_errors(utterances: Sequence[Utterance], unspaced: bool) -> tuple[np.ndarray, np.ndarray]:
    """Character errors and characters of the reference of each utterance, int [utterances]; `unspaced`: no spaces."""
    errors, characters = [], []
    for utterance in utterances:
        texts = (utterance.reference, utterance.hypothesis)
        reference, hypothesis = (text.replace(" ", "") for text in texts) if unspaced else texts
        counts = jiwer.process_characters(reference, hypothesis)
        errors.append(counts.substitutions + counts.deletions + counts.insertions)
        characters.append(counts.hits + counts.substitutions + counts.deletions)
    return np.array(errors), np.array(characters)


def error_rate(errors: np.ndarray, words: np.ndarray) -> float:
    """Errors per word (or character) in percent."""
    return 100 * float(errors.sum()) / max(1.0, float(words.sum()))


def bootstrap(errors: np.ndarray, words: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the error rate in percent; `errors`, `words`: int [utterances]."""
    drawn = resample_indices(len(errors), seed)
    rates = 100 * errors[drawn].sum(1) / np.maximum(words[drawn].sum(1), 1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)


def resample_indices(count: int, seed: int) -> np.ndarray:
    """Utterances of each bootstrap sample, int [RESAMPLES, count]."""
    return np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))


# --------------------------------------------------------------------------- groups
class GroupRate(NamedTuple):
    """Error rate of a group of utterances."""

    name: str
    utterances: int
    words: int
    wer: float


def group_rates(utterances: Sequence[Utterance], key: Callable[[Utterance], str]) -> list[GroupRate]:
    """The error rate of every group that `key` names, sorted by name."""
    groups: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        groups.setdefault(key(utterance), []).append(utterance)
    rates = []
    for name, members in sorted(groups.items()):
        errors = np.array([utterance.errors for utterance in members])
        words = np.array([utterance.words for utterance in members])
        rates.append(GroupRate(name, len(members), int(words.sum()), error_rate(errors, words)))
    return rates


def speaker(utterance: Utterance) -> str:
    """Who speaks; if the manifest does not say it, the folder part of the clip's id."""
    return utterance.speaker or utterance.id.rpartition("/")[0] or "all"


def length(utterance: Utterance) -> str:
    """Words of the reference in classes of five."""
    first = (utterance.words - 1) // 5 * 5 + 1
    return f"{first:3d} to {first + 4} words"


# --------------------------------------------------------------------------- alignment
class AlignedChunk(NamedTuple):
    """Neighbouring words with the same kind of error: equal, substitute, delete or insert."""

    kind: str
    reference: str
    hypothesis: str


def align_words(reference: str, hypothesis: str) -> list[AlignedChunk]:
    """The alignment of a hypothesis with its reference, in order."""
    output = jiwer.process_words(reference, hypothesis)
    reference_words, hypothesis_words = output.references[0], output.hypotheses[0]
    return [
        AlignedChunk(
            chunk.type,
            " ".join(reference_words[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(hypothesis_words[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in output.alignments[0]
    ]
