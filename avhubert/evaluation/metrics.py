"""Words and characters that a recognizer got wrong: counts, rates, intervals, and whether two results differ.

Intervals and tests draw utterances with replacement (Bisani & Ney, 2004): words of one utterance are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jiwer
import numpy as np

from avhubert.evaluation.conditions import Condition

RESAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class Utterance:
    """One clip's reference and hypothesis, with its error counts in words."""

    id: str
    reference: str
    hypothesis: str
    score: float
    words: int
    substitutions: int
    deletions: int
    insertions: int
    others: list[tuple[str, float]] = field(default_factory=list)  # further hypotheses and their scores, best first

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True)
class Result:
    """Error rates in percent of one condition; `interval` is the bootstrap's 95 % over utterances."""

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
    measured_snr: tuple[float, float] | None = None  # lowest and highest of the mixtures, dB
    stages: dict[str, float] = field(default_factory=dict)  # seconds of reading, encoding and search

    def summary(self) -> dict[str, Any]:
        """The figures without the utterances."""
        figures = asdict(replace(self, utterances=()))
        del figures["utterances"]
        return figures | {"condition": str(self.condition)}

    @property
    def condition(self) -> Condition:
        return Condition(self.modality, self.noise, self.snr, self.fault)


def bootstrap(errors: np.ndarray, words: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the error rate in percent. `errors`, `words`: int [utterances]."""
    drawn = resample_indices(len(errors), seed)
    rates = 100 * errors[drawn].sum(1) / np.maximum(words[drawn].sum(1), 1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)


def resample_indices(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))


def score(
    ids: Sequence[str], references: Sequence[str], found: Sequence[Sequence[tuple[str, float]]]
) -> tuple[Utterance, ...]:
    """Align the best of the hypotheses (text, score) of each utterance to its reference and count word errors."""
    scored = []
    for identifier, reference, ((hypothesis, value), *others) in zip(ids, references, found, strict=True):
        counts = jiwer.process_words(reference, hypothesis)
        scored.append(
            Utterance(
                identifier, reference, hypothesis, value, len(reference.split()),
                counts.substitutions, counts.deletions, counts.insertions, others,
            )
        )  # fmt: skip
    return tuple(scored)


def summarise(
    utterances: tuple[Utterance, ...],
    condition: Condition,
    seconds_of_video: float,
    seconds: float,
    measured_snr: tuple[float, float] | None = None,
    stages: dict[str, float] | None = None,
) -> Result:
    """Totals and intervals of scored utterances."""
    errors = np.array([utterance.errors for utterance in utterances])
    words = np.array([utterance.words for utterance in utterances])
    return Result(
        modality=condition.modality,
        snr=condition.snr,
        wer=error_rate(errors, words),
        interval=bootstrap(errors, words),
        cer=100 * float(jiwer.cer([u.reference for u in utterances], [u.hypothesis for u in utterances])),
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
    )


def error_rate(errors: np.ndarray, words: np.ndarray) -> float:
    return 100 * float(errors.sum()) / max(1.0, float(words.sum()))


def by(utterances: Sequence[Utterance], key: Callable[[Utterance], str]) -> list[tuple[str, int, int, float]]:
    """(name, utterances, words, WER %) of every group that `key` names, in the order of the names."""
    groups: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        groups.setdefault(key(utterance), []).append(utterance)
    rows = []
    for name, members in sorted(groups.items()):
        errors, words = (np.array([getattr(u, what) for u in members]) for what in ("errors", "words"))
        rows.append((name, len(members), int(words.sum()), error_rate(errors, words)))
    return rows


def speaker(utterance: Utterance) -> str:
    """The folder part of a clip's id: who speaks in LRS3, VoxCeleb2 and the synthetic corpus."""
    return utterance.id.rpartition("/")[0] or "all"


def length(utterance: Utterance) -> str:
    """Words of the reference in classes of five."""
    first = (utterance.words - 1) // 5 * 5 + 1
    return f"{first:3d} to {first + 4} words"


def aligned(reference: str, hypothesis: str) -> list[tuple[str, str, str]]:
    """(kind, reference's words, hypothesis's words) chunk by chunk; kind: equal, substitute, delete or insert."""
    found = jiwer.process_words(reference, hypothesis)
    said, heard = found.references[0], found.hypotheses[0]
    return [
        (
            chunk.type,
            " ".join(said[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(heard[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in found.alignments[0]
    ]
