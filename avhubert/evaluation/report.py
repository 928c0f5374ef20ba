"""What an evaluation shows: a table of all conditions, error rates against SNR, and the worst utterances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avhubert.data.manifest import Clip
from avhubert.data.shards import clip_frames
from avhubert.data.text import is_unspaced
from avhubert.evaluation.conditions import Condition
from avhubert.evaluation.metrics import Result, Utterance, aligned, by, length, speaker
from avhubert.report import Page, contact_sheet

COLUMNS = ("condition", "WER %", "95 % interval", "CER %", "sub", "del", "ins", "words", "clips", "× real time")


WORST = 5  # utterances shown of a condition


STRIP = 12  # frames shown of a mouth


SLACK = 0.5  # WER points by which two streams may be worse than the better one before it is called a failure


def result_row(result: Result) -> tuple:
    """A row for COLUMNS."""
    low, high = result.interval
    return (
        str(result.condition), round(result.wer, 1), f"{low:.1f} to {high:.1f}", round(result.cer, 1),
        result.substitutions, result.deletions, result.insertions, result.words, result.clips,
        round(result.seconds_of_video / result.seconds, 1),
    )  # fmt: skip


def result_page(results: Sequence[Result], clips: Sequence[Clip], split: str) -> Page:
    """The report of an evaluation of `clips`."""
    page = Page(f"Evaluation on {split}")
    page.table(COLUMNS, [result_row(result) for result in results])
    page.text(
        "WER and CER in percent; the interval is the bootstrap's over utterances. Every clip of the split is scored."
    )
    if is_unspaced(utterance.reference for utterance in results[0].utterances):
        page.text("These references are of a script without spaces between words: go by CER, WER counts whole lines.")
    page.table(
        ("condition", *(f"{name}, × real time" for name in results[0].stages)),
        [
            (str(r.condition), *(round(r.seconds_of_video / max(seconds, 1e-9), 1) for seconds in r.stages.values()))
            for r in results
        ],
    )
    _noise(page, results)
    for result in results:
        page.heading(f"{result.condition}: the worst utterances")
        for utterance in worst(result, WORST):
            _utterance(page, utterance, next(clip for clip in clips if clip.id == utterance.id))
    for name, key in (("speaker", speaker), ("length", length)):
        page.heading(f"By {name}: {results[0].condition}")
        page.table((name, "clips", "words", "WER %"), by(results[0].utterances, key))
    return page


def worst(result: Result, count: int) -> list[Utterance]:
    """The utterances with the most errors."""
    return sorted(result.utterances, key=lambda utterance: (-utterance.errors, utterance.id))[:count]


def cells(results: Sequence[Result]) -> list[tuple[str, float, float, float, bool]]:
    """(condition, WER of a, v and av, whether av ≤ min(a, v) + 0.5) of all conditions with the three of them.

    Noise does not reach the picture: v counts as it is clean.
    """
    known = {result.condition: result.wer for result in results}
    found = []
    for result in results:
        if result.modality != "av" or result.fault is not None:
            continue
        a, v = known.get(Condition("a", result.noise, result.snr)), known.get(Condition("v"))
        if a is not None and v is not None:
            found.append((str(result.condition), a, v, result.wer, result.wer <= min(a, v) + SLACK))
    return found


def _noise(page: Page, results: Sequence[Result]) -> None:
    noisy = [result for result in results if result.snr is not None]
    if noisy:
        page.heading("In noise")
        series: dict[str, Any] = {}
        for result in sorted(noisy, key=lambda one: one.snr or 0):
            name = " ".join(part for part in (result.modality, result.noise) if part)
            xs, ys = series.setdefault(name, ([], []))
            xs.append(result.snr)
            ys.append(result.wer)
        ends = [min(r.snr or 0 for r in noisy), max(r.snr or 0 for r in noisy)]
        for result in results:
            if str(result.condition) == f"{result.modality}, clean":
                series[f"{result.modality}, clean"] = (ends, [result.wer] * 2)
        page.plot(series, "SNR, dB", "WER, %", "word error rate against the signal-to-noise ratio")
        off = [abs(one - (result.snr or 0)) for result in noisy for one in result.measured_snr or ()]
        page.text(f"As measured in them, the mixtures are within {max(off, default=0):.2f} dB of the ratio asked for.")
    rows = cells(results)
    if rows:
        page.heading("Two streams against one")
        page.text(f"Sound and picture together should be no worse than the better of the two, {SLACK} points allowed.")
        page.table(("condition", "a", "v", "av", "no worse"), [(*row[:4], "yes" if row[4] else "no") for row in rows])


def _utterance(page: Page, utterance: Utterance, clip: Clip) -> None:
    if clip.video_frames:
        frames = clip_frames(clip.video)
        page.image(contact_sheet(list(frames[:: max(1, len(frames) // STRIP)][:STRIP]), STRIP), clip.id)
    page.comparison(aligned(utterance.reference, utterance.hypothesis))
