"""The report of an evaluation: a table of all conditions, error rates against SNR, and the worst utterances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from avhubert.data.manifest import Clip
from avhubert.data.shards import clip_frames
from avhubert.data.text import is_unspaced
from avhubert.evaluation.conditions import Condition
from avhubert.evaluation.metrics import Result, Utterance, align_words, group_rates, length, speaker
from avhubert.report import Page, contact_sheet

COLUMNS = ("condition", "WER %", "95 % interval", "CER %", "sub", "del", "ins", "words", "clips", "× real time")
WORST_UTTERANCES = 5  # shown of each condition
MOUTH_FRAMES = 12  # shown of each utterance
TOLERANCE = 0.5  # WER points by which audio and video together may be worse than the better one alone


def result_row(result: Result) -> tuple[str | int | float, ...]:
    """A row for COLUMNS."""
    low, high = result.interval
    return (
        str(result.condition), round(result.wer, 1), f"{low:.1f} to {high:.1f}", round(result.cer, 1),
        result.substitutions, result.deletions, result.insertions, result.words, result.clips,
        round(result.seconds_of_video / result.seconds, 1),
    )  # fmt: skip


def result_page(results: Sequence[Result], clips: Sequence[Clip], split: str) -> Page:
    """The report of an evaluation of `clips`, the clips of `split`."""
    page = Page(f"Evaluation on {split}")
    page.table(COLUMNS, [result_row(result) for result in results])
    page.text("WER and CER in percent; the interval is a bootstrap over utterances. Every clip of the split is scored.")
    if is_unspaced(utterance.reference for utterance in results[0].utterances):
        page.text("The references have no spaces between words: use CER (without spaces); WER counts whole lines.")
    page.table(
        ("condition", *(f"{name}, × real time" for name in results[0].stages)),
        [
            (str(r.condition), *(round(r.seconds_of_video / max(seconds, 1e-9), 1) for seconds in r.stages.values()))
            for r in results
        ],
    )
    _add_noise(page, results)
    _add_stream_comparison(page, results)
    by_id = {clip.id: clip for clip in clips}
    for result in results:
        page.heading(f"{result.condition}: the worst utterances")
        for utterance in worst_utterances(result, WORST_UTTERANCES):
            _add_utterance(page, utterance, by_id[utterance.id])
    page.heading("By speaker")
    _add_speakers(page, results)
    page.heading(f"By length: {results[0].condition}")
    page.table(("length", "clips", "words", "WER %"), group_rates(results[0].utterances, length))
    return page


def worst_utterances(result: Result, count: int) -> list[Utterance]:
    """The utterances with the most errors."""
    return sorted(result.utterances, key=lambda utterance: (-utterance.errors, utterance.id))[:count]


def _add_speakers(page: Page, results: Sequence[Result]) -> None:
    """A row for each speaker, a column for each condition."""
    rates = [group_rates(result.utterances, speaker) for result in results]
    columns = ("speaker", "clips", "words", *(f"WER %, {result.condition}" for result in results))
    rows = zip(*rates, strict=True)  # every condition has the same utterances
    page.table(columns, [(*row[0][:3], *(rate.wer for rate in row)) for row in rows])


class StreamComparison(NamedTuple):
    """Word error rates of audio, video and both under one condition.

    Attributes:
        condition: of the rate of both.
        audio, video, both: word error rates in percent.
        no_worse: whether both are at most TOLERANCE points worse than the better one alone.
    """

    condition: str
    audio: float
    video: float
    both: float
    no_worse: bool


def stream_comparisons(results: Sequence[Result]) -> list[StreamComparison]:
    """A comparison for each condition with results of a, v and av; noise does not change the result of v."""
    wer = {result.condition: result.wer for result in results}
    comparisons = []
    for result in results:
        if result.modality != "av" or result.fault is not None:
            continue
        audio, video = wer.get(Condition("a", result.noise, result.snr)), wer.get(Condition("v"))
        if audio is not None and video is not None:
            no_worse = result.wer <= min(audio, video) + TOLERANCE
            comparisons.append(StreamComparison(str(result.condition), audio, video, result.wer, no_worse))
    return comparisons


def _add_noise(page: Page, results: Sequence[Result]) -> None:
    noisy = sorted(((result.snr, result) for result in results if result.snr is not None), key=lambda item: item[0])
    if not noisy:
        return
    page.heading("In noise")
    series: dict[str, tuple[list[float], list[float]]] = {}
    for snr, result in noisy:
        name = " ".join(part for part in (result.modality, result.noise) if part)
        snrs, rates = series.setdefault(name, ([], []))
        snrs.append(snr)
        rates.append(result.wer)
    extremes: list[float] = [noisy[0][0], noisy[-1][0]]
    for result in results:
        if str(result.condition) == f"{result.modality}, clean":
            series[f"{result.modality}, clean"] = (extremes, [result.wer] * 2)
    page.plot(series, "SNR, dB", "WER, %", "word error rate against the signal-to-noise ratio")
    deviations = [abs(measured - snr) for snr, result in noisy for measured in result.measured_snr or ()]
    page.text(f"The measured ratios of the mixtures differ by at most {max(deviations, default=0):.2f} dB from these.")


def _add_stream_comparison(page: Page, results: Sequence[Result]) -> None:
    comparisons = stream_comparisons(results)
    if comparisons:
        page.heading("Two streams against one")
        page.text(
            f"Audio and video together should be no worse than the better one alone; {TOLERANCE} points are tolerated."
        )
        rows = [(*row[:4], "yes" if row.no_worse else "no") for row in comparisons]
        page.table(("condition", "a", "v", "av", "no worse"), rows)


def _add_utterance(page: Page, utterance: Utterance, clip: Clip) -> None:
    if clip.video_frames:
        frames = clip_frames(clip.video)
        chosen = frames[:: max(1, len(frames) // MOUTH_FRAMES)][:MOUTH_FRAMES]
        page.image(contact_sheet(list(chosen), MOUTH_FRAMES), clip.id)
    page.comparison(align_words(utterance.reference, utterance.hypothesis))
