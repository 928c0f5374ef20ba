"""Word and character error rates of a recognizer on a data directory, with intervals; every clip is scored."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch

from avhubert.config import DataConfig, DecodeConfig
from avhubert.data.batches import Batch, ClipDataset, make_batches
from avhubert.data.manifest import Clip, read_manifest, read_noise_list, read_transcripts
from avhubert.data.text import normalise_text
from avhubert.decode.beam import beam_search
from avhubert.errors import ConfigError, DataError
from avhubert.files import output_directory, sha256, write_json
from avhubert.loading import load_recognizer
from avhubert.model.recognizer import Recognizer
from avhubert.report import Page, progress

FRAMES_PER_BATCH = 600  # video frames, padding included
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

    def summary(self) -> dict[str, Any]:
        """The figures without the utterances."""
        figures = asdict(replace(self, utterances=()))
        del figures["utterances"]
        return figures

    @property
    def condition(self) -> str:
        return f"{self.modality}, clean" if self.snr is None else f"{self.modality}, {self.snr} dB"


def bootstrap(errors: np.ndarray, words: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the error rate in percent: utterances drawn with replacement (Bisani & Ney, 2004).

    `errors`, `words`: int [utterances].
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(errors), size=(RESAMPLES, len(errors)))
    rates = 100 * errors[drawn].sum(1) / np.maximum(words[drawn].sum(1), 1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)


def score(
    ids: Sequence[str], references: Sequence[str], hypotheses: Sequence[str], scores: Sequence[float]
) -> tuple[Utterance, ...]:
    """Align every hypothesis to its reference (both normalised) and count word errors."""
    scored = []
    for identifier, reference, hypothesis, value in zip(ids, references, hypotheses, scores, strict=True):
        counts = jiwer.process_words(reference, hypothesis)
        scored.append(
            Utterance(
                identifier, reference, hypothesis, value, len(reference.split()),
                counts.substitutions, counts.deletions, counts.insertions,
            )
        )  # fmt: skip
    return tuple(scored)


def summarise(
    utterances: tuple[Utterance, ...], modality: str, snr: int | None, seconds_of_video: float, seconds: float
) -> Result:
    """Totals and intervals of scored utterances."""
    errors = np.array([utterance.errors for utterance in utterances])
    words = np.array([utterance.words for utterance in utterances])
    return Result(
        modality=modality,
        snr=snr,
        wer=100 * float(errors.sum()) / float(words.sum()),
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
    )


@torch.inference_mode()
def decode_batch(recognizer: Recognizer, batch: Batch, settings: DecodeConfig) -> list[tuple[str, float]]:
    """Best text and its score for every utterance of a batch."""
    encoded = recognizer.encode(batch.audio, batch.video, batch.padding_mask, batch.has_audio, batch.has_video)
    found = beam_search(recognizer, encoded, batch.padding_mask, settings)
    assert recognizer.tokenizer is not None
    return [(recognizer.tokenizer.decode(best[0].tokens), float(best[0].score)) for best in found]


def check_modality(recognizer: Recognizer, modality: str) -> None:
    """ConfigError if the recognizer was never shown what it is asked to read."""
    trained = recognizer.metadata.get("modalities")
    if trained and modality not in trained:
        raise ConfigError(
            f"this model was fine-tuned for {', '.join(trained)}, not for '{modality}'; choose one of those or "
            "fine-tune with data.draw_* above 0 for it"
        )


def references_of(data: Path, split: str, clips: list[Clip]) -> list[str]:
    """Normalised transcripts; DataError names an empty one, which no error rate can be computed for."""
    texts = [normalise_text(text) for text in read_transcripts(data / f"{split}.wrd", clips)]
    for clip, text in zip(clips, texts, strict=True):
        if not text:
            where = data / f"{split}.wrd"
            raise DataError(f"{where}: the reference of clip '{clip.id}' is empty; write it or remove the clip")
    return texts


def evaluate(
    model: str | Recognizer,
    data: str | Path,
    split: str = "test",
    modality: str = "av",
    noise: str | Path | None = None,
    snrs: Sequence[int | None] = (None,),
    out: str | Path | None = None,
    beam: int | None = None,
    lenpen: float | None = None,
    quiet: bool = False,
) -> list[Result]:
    """Decode a split and score it, once per SNR in `snrs` (None = clean).

    Noise falls on an utterance by its id, so every model hears the same. With `out`, writes
    `hypotheses-<condition>.json`, `results.json` and `report.html` there. Nothing is left out: a clip
    that cannot be read is a DataError that names it.

    Raises:
        DataError: no such split, no transcripts, an empty split, an unreadable clip.
        ConfigError: a modality that the model was not trained for.
        CheckpointError: `model` is not a recognizer.
    """
    data = Path(data)
    recognizer = load_recognizer(model) if not isinstance(model, Recognizer) else model
    check_modality(recognizer, modality)
    clips = read_manifest(data / f"{split}.tsv")
    if not clips:
        raise DataError(f"{data / f'{split}.tsv'} lists no clips; there is nothing to evaluate")
    references = references_of(data, split, clips)
    folder = output_directory(out) if out else None
    own = recognizer.decode_settings
    settings = replace(own, beam=own.beam if beam is None else beam, lenpen=own.lenpen if lenpen is None else lenpen)
    noises = read_noise_list(noise, split) if noise else None
    results = []
    for snr in snrs:
        config = DataConfig(
            dir=str(data),
            modalities=modality,
            max_frames=max(clip.video_frames for clip in clips),
            min_frames=1,
            augment=False,
            noise_prob=0.0 if snr is None else 1.0,
            noise_snr=[0, 0] if snr is None else [snr, snr],
        )
        dataset = ClipDataset(clips, config, training=False, seed=0, noise=None if snr is None else noises)
        results.append(_one_condition(recognizer, dataset, clips, references, settings, modality, snr, quiet))
        if not quiet:
            low, high = results[-1].interval
            rates = f"WER {results[-1].wer:.1f} % [{low:.1f}, {high:.1f}], CER {results[-1].cer:.1f} %"
            print(f"{results[-1].condition}: {rates}, {len(clips)} clips")
    if folder:
        _write(folder, results, data, split, noise, settings, recognizer)
    return results


def _one_condition(recognizer, dataset, clips, references, settings, modality, snr, quiet) -> Result:
    started = time.perf_counter()
    device = next(recognizer.parameters()).device
    found: dict[int, tuple[str, float]] = {}
    batches = make_batches([clip.video_frames for clip in clips], FRAMES_PER_BATCH)
    with progress() as bar:
        task = bar.add_task(f"decoding {modality}", total=len(clips), unit="clips", visible=not quiet)
        for indices in batches:
            batch = dataset.collate([dataset.load(index, 0) for index in indices]).to(device)
            found.update(zip(indices, decode_batch(recognizer, batch, settings), strict=True))
            bar.advance(task, len(indices))
    texts = [normalise_text(found[index][0]) for index in range(len(clips))]
    utterances = score([clip.id for clip in clips], references, texts, [found[index][1] for index in range(len(clips))])
    video_seconds = sum(clip.video_frames for clip in clips) / 25
    return summarise(utterances, modality, snr, video_seconds, time.perf_counter() - started)


def _write(folder: Path, results: list[Result], data: Path, split: str, noise, settings, recognizer) -> None:
    provenance = {
        "data": str(data),
        "split": split,
        "manifest_sha256": sha256(data / f"{split}.tsv"),
        "transcripts_sha256": sha256(data / f"{split}.wrd"),
        "noise": None if noise is None else str(noise),
        "noise_sha256": None if noise is None else _hash_list(read_noise_list(noise, split)),
        "decode": asdict(settings),
        "model": recognizer.metadata,
    }
    for result in results:
        name = result.condition.replace(", ", "-").replace(" ", "")
        write_json(folder / f"hypotheses-{name}.json", [asdict(utterance) for utterance in result.utterances])
    write_json(folder / "results.json", {"results": [result.summary() for result in results], **provenance})
    page = Page(f"Evaluation on {split}")
    page.table(RESULT_COLUMNS, [result_row(result) for result in results])
    for result in results:
        page.heading(f"Worst utterances: {result.condition}")
        page.table(("clip", "errors", "reference", "hypothesis"), worst(result, 15))
    page.write(folder / "report.html")


def _hash_list(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(sha256(path).encode())
    return digest.hexdigest()


RESULT_COLUMNS = ("condition", "WER %", "95 % interval", "CER %", "sub", "del", "ins", "words", "clips", "× real time")


def result_row(result: Result) -> tuple:
    """A row for RESULT_COLUMNS."""
    low, high = result.interval
    return (
        result.condition, round(result.wer, 1), f"{low:.1f} to {high:.1f}", round(result.cer, 1), result.substitutions,
        result.deletions, result.insertions, result.words, result.clips,
        round(result.seconds_of_video / result.seconds, 1),
    )  # fmt: skip


def worst(result: Result, count: int) -> list[tuple]:
    """Rows (clip, errors, reference, hypothesis), most errors first."""
    ordered = sorted(result.utterances, key=lambda utterance: (-utterance.errors, utterance.id))
    return [(u.id, u.errors, u.reference, u.hypothesis) for u in ordered[:count]]
