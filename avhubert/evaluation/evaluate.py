"""A recognizer on a data directory: what it writes in every condition, scored, with intervals; every clip is scored."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from avhubert.checkpoints.load import load_recognizer
from avhubert.config.schema import DataConfig, DecodeConfig
from avhubert.constants import FRAME_RATE, MODALITIES
from avhubert.data.batching import make_batches
from avhubert.data.corruption import parse_corruption
from avhubert.data.dataset import ClipDataset
from avhubert.data.manifest import Clip, read_manifest
from avhubert.data.noise import read_noise_list
from avhubert.data.text import normaliser
from avhubert.data.transcripts import read_transcripts
from avhubert.decode.beam_search import beam_search, check_lengths
from avhubert.decode.lm.base import LanguageModel
from avhubert.decode.lm.load import load_language_model
from avhubert.errors import ConfigError, DataError
from avhubert.evaluation.conditions import Condition, check_modality, check_streams, conditions
from avhubert.evaluation.metrics import Result, score, summarise
from avhubert.evaluation.results import write_results
from avhubert.files import output_directory
from avhubert.model.recognizer import Recognizer
from avhubert.report import progress

FRAMES_PER_BATCH = 600  # video frames, padding included


def references_of(data: Path, split: str, clips: list[Clip], normalise: Callable[[str], str]) -> list[str]:
    """Normalised transcripts; DataError names an empty one, which no error rate can be computed for."""
    texts = [normalise(text) for text in read_transcripts(data / f"{split}.wrd", clips)]
    for clip, text in zip(clips, texts, strict=True):
        if not text:
            where = data / f"{split}.wrd"
            raise DataError(f"{where}: the reference of clip '{clip.id}' is empty; write it or remove the clip")
    return texts


def evaluate(
    model: str | Recognizer,
    data: str | Path,
    split: str = "test",
    modality: str | Sequence[str] = "av",
    noise: str | Path | Mapping[str, str | Path] | None = None,
    snrs: Sequence[int | None] = (None,),
    faults: Sequence[str] = (),
    out: str | Path | None = None,
    decode: Mapping[str, Any] | None = None,
    normalise: str = "basic",
    quiet: bool = False,
) -> list[Result]:
    """Decode a split in every one of `conditions` and score it.

    `noise`: a noise list or folder, or several by name; each utterance's noise is decided by its id and the list, so
    every model hears the same. `faults`: see `data.corruption`. `decode`: settings in place of the model's
    own. `normalise`: what both texts go through before they are compared, a name in `data.text.NORMALISERS`. With
    `out`, writes `hypotheses-<condition>.json`, `results.json` (with hashes of all that the figures depend on) and
    `report.html` there. Nothing is left out: a clip that cannot be read is a DataError that names it.

    Raises:
        DataError: no such split, no transcripts, an empty split; a clip that cannot be read, is empty or too long, or
            lacks every stream of a modality.
        ConfigError: a modality that the model was not trained for; a fault, normaliser or decode setting that does not
            exist.
        CheckpointError: `model` is not a recognizer.
    """
    data = Path(data)
    clean = normaliser(normalise)
    recognizer = load_recognizer(model)
    modalities = [modality] if isinstance(modality, str) else list(dict.fromkeys(modality))
    for one in modalities:
        check_modality(recognizer, one)
    if any(snr is not None for snr in snrs) and not any("audio" in MODALITIES[one] for one in modalities):
        raise ConfigError("noise is mixed into the sound, which modality 'v' does not hear; add 'a' or 'av'")
    if faults and not any("video" in MODALITIES[one] for one in modalities):
        raise ConfigError("faults are of the picture, which modality 'a' does not see; add 'v' or 'av'")
    for fault in faults:
        parse_corruption(fault)
    clips = read_manifest(data / f"{split}.tsv")
    if not clips:
        raise DataError(f"{data / f'{split}.tsv'} lists no clips; there is nothing to evaluate")
    references = references_of(data, split, clips, clean)
    check_lengths([clip.frames for clip in clips], [clip.id for clip in clips])
    for one in modalities:
        check_streams(clips, one)
    folder = output_directory(out) if out else None
    settings = replace(recognizer.decode_settings, **(decode or {}))
    lm = load_language_model(settings.lm, recognizer.tokenizer) if settings.lm and settings.lm_weight else None
    named: Mapping[Any, str | Path] = noise if isinstance(noise, Mapping) else {None: noise} if noise else {}
    lists: dict[str | None, list[Path]] = {name: read_noise_list(source, split) for name, source in named.items()}
    results = []
    for condition in conditions(modalities, list(lists), snrs, faults):
        noises = None if condition.snr is None else lists[condition.noise]
        dataset = _dataset(data, clips, condition, noises)
        results.append(_one_condition(recognizer, dataset, references, settings, lm, clean, condition, quiet))
        if not quiet:
            low, high = results[-1].interval
            rates = f"WER {results[-1].wer:.1f} % [{low:.1f}, {high:.1f}], CER {results[-1].cer:.1f} %"
            print(f"{condition}: {rates}, {len(clips)} clips", flush=True)
    if folder:
        write_results(folder, results, clips, data, split, lists, settings, normalise, recognizer)
    return results


def _dataset(data: Path, clips: list[Clip], condition: Condition, noises: Sequence[Path] | None) -> ClipDataset:
    config = DataConfig(
        dir=str(data),
        modalities=condition.modality,
        max_frames=max(clip.frames for clip in clips),
        min_frames=1,
        augment=False,
        noise_prob=0.0 if condition.snr is None else 1.0,
        noise_snr=[0, 0] if condition.snr is None else [condition.snr, condition.snr],
    )
    return ClipDataset(clips, config, training=False, seed=0, noise=noises, corruption=condition.fault)


def _one_condition(
    recognizer: Recognizer,
    dataset: ClipDataset,
    references: Sequence[str],
    settings: DecodeConfig,
    lm: LanguageModel | None,
    clean: Callable[[str], str],
    condition: Condition,
    quiet: bool,
) -> Result:
    started = time.perf_counter()
    clips = dataset.clips
    device = next(recognizer.parameters()).device
    tokenizer = recognizer.require_tokenizer("used")
    found: dict[int, list[tuple[str, float]]] = {}
    stages = dict.fromkeys(("reading", "encoding", "search"), 0.0)

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        stages[name] += time.perf_counter() - began

    with torch.inference_mode(), progress() as bar:
        task = bar.add_task(f"decoding {condition}", total=len(clips), unit="clips", visible=not quiet)
        for indices in make_batches([clip.frames for clip in clips], FRAMES_PER_BATCH):
            with stage("reading"):
                batch = dataset.batch(indices).to(device)
            with stage("encoding"):
                mask = batch.inputs.mask
                encoded = recognizer.encode(batch.inputs)
            with stage("search"):
                hypotheses = beam_search(recognizer, encoded, mask, settings, lm)
            for index, several in zip(indices, hypotheses, strict=True):
                kept = several[: settings.nbest or 1]
                texts = [clean(tokenizer.decode(one.tokens)) for one in kept]
                found[index] = [(text, float(one.score)) for text, one in zip(texts, kept, strict=True)]
            bar.advance(task, len(indices))
    seconds = time.perf_counter() - started
    measured = None
    if condition.snr is not None:
        ratios = [snr for index in range(len(clips)) if (snr := dataset.measured_snr(index)) is not None]
        measured = (min(ratios), max(ratios)) if ratios else None
    utterances = score([clip.id for clip in clips], references, [found[index] for index in range(len(clips))])
    return summarise(utterances, condition, sum(clip.frames for clip in clips) / FRAME_RATE, seconds, measured, stages)
