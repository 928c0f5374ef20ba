"""Evaluation of a recognizer on a data directory: every clip is decoded and scored under every condition."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from avhubert.checkpoints.load import load_recognizer
from avhubert.config.command_defaults import NORMALISER
from avhubert.data.batching import make_batches
from avhubert.data.dataset import ClipDataset
from avhubert.data.noise import read_noise_list, read_noise_speakers
from avhubert.data.text import normaliser
from avhubert.decode.batch_decoder import FRAMES_PER_BATCH, BatchDecoder
from avhubert.devices import AUTO
from avhubert.evaluation.conditions import Condition, check_conditions, check_modality, conditions
from avhubert.evaluation.evaluation_set import EvaluationSet, read_evaluation_set
from avhubert.evaluation.metrics import Result, ScoredText, score, summarise
from avhubert.evaluation.results import Provenance, write_results
from avhubert.files import output_directory
from avhubert.model.recognizer import Recognizer
from avhubert.report import progress

_log = logging.getLogger(__name__)


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
    normalise: str = NORMALISER,
    quiet: bool = False,
    device: str = AUTO,
    precision: str = AUTO,
) -> list[Result]:
    """Decode and score a split under every condition (see `conditions`).

    No clip is left out: one that cannot be read is an error. Each result is logged.

    Args:
        model: what `avhubert.load` takes, or a loaded recognizer, which is moved to the device.
        data: the data directory.
        split: name of the split.
        modality: streams to use: av, a or v, or several of them.
        noise: a noise list or folder, or several by name. The noise of an utterance depends only on its id and the
            list, so that it is the same for every model.
        snrs: signal-to-noise ratios in dB; None: clean.
        faults: video corruptions, see `data.corruption`.
        out: folder for `hypotheses-<condition>.json`, `results.json` (with hashes of everything that the results depend
            on) and `report.html`; None: nothing is written.
        decode: settings of `DecodeConfig`, in place of the model's.
        normalise: normaliser of both texts, a name in `data.text.NORMALISERS`.
        quiet: show no progress and log no results.
        device: auto, cpu, cuda, cuda:N or mps; see `devices.resolve`.
        precision: auto, fp32, bf16 or fp16; see `devices.resolve`.

    Returns:
        A result for every condition.

    Raises:
        DataError: the split or its transcripts are missing or empty; a clip cannot be read, is empty or too long, or
            has no stream of a modality; the mouth clips have another crop than the model reads.
        ConfigError: the model was not trained for a modality; a corruption, normaliser, setting, device or precision is
            unknown or cannot be used.
        CheckpointError: `model` is not a recognizer.
    """
    normalise_text = normaliser(normalise)
    recognizer = load_recognizer(model)
    modalities = [modality] if isinstance(modality, str) else list(dict.fromkeys(modality))
    for name in modalities:
        check_modality(recognizer, name)
    check_conditions(modalities, snrs, faults)
    preparation = recognizer.metadata.preparation()
    evaluation_set = read_evaluation_set(Path(data), split, modalities, normalise_text, preparation)
    folder = output_directory(out) if out else None
    decoder = BatchDecoder(recognizer, device, precision, decode)
    noises, noise_speakers = _read_noises(noise, split)
    results = []
    for condition in conditions(modalities, list(noises), snrs, faults):
        files = None if condition.snr is None else noises[condition.noise]
        dataset = evaluation_set.dataset(condition, files, noise_speakers)
        result = _evaluate_condition(decoder, evaluation_set, dataset, condition, normalise_text, quiet)
        results.append(result)
        if not quiet:
            _log.info("%s", result)
    if folder:
        write_results(folder, results, evaluation_set, Provenance(noises, normalise, decoder))
    return results


class _Noises(NamedTuple):
    """Noise files by the name of their list, and whose voices they contain, as far as it is known."""

    files: dict[str | None, list[Path]]
    speakers: dict[Path, frozenset[str]]


def _read_noises(noise: str | Path | Mapping[str, str | Path] | None, split: str) -> _Noises:
    sources: Mapping[Any, str | Path] = noise if isinstance(noise, Mapping) else {None: noise} if noise else {}
    speakers = {file: names for source in sources.values() for file, names in read_noise_speakers(source).items()}
    return _Noises({name: read_noise_list(source, split) for name, source in sources.items()}, speakers)


def _evaluate_condition(
    decoder: BatchDecoder,
    evaluation_set: EvaluationSet,
    dataset: ClipDataset,
    condition: Condition,
    normalise: Callable[[str], str],
    quiet: bool,
) -> Result:
    started = time.perf_counter()
    clips = evaluation_set.clips
    nbest = decoder.settings.nbest or 1
    texts: dict[int, list[ScoredText]] = {}
    timer = _StageTimer(decoder.compute.device)
    with progress() as bar:
        task = bar.add_task(f"decoding {condition}", total=len(clips), unit="clips", visible=not quiet)
        for indices in make_batches([clip.frames for clip in clips], FRAMES_PER_BATCH):
            with timer.stage("reading"):
                inputs = dataset.batch(indices).inputs.to(decoder.compute.device)
            with timer.stage("encoding"):
                encoded = decoder.encode(inputs)
            with timer.stage("search"):
                hypotheses = decoder.search(encoded, inputs.mask)
            for index, candidates in zip(indices, hypotheses, strict=True):
                texts[index] = [ScoredText(normalise(decoder.text(best)), best.score) for best in candidates[:nbest]]
            bar.advance(task, len(indices))
    seconds = time.perf_counter() - started
    utterances = score(
        [clip.id for clip in clips],
        evaluation_set.references,
        [texts[index] for index in range(len(clips))],
        [clip.speaker for clip in clips],
    )
    measured = None if condition.snr is None else _measured_snrs(dataset)
    return summarise(utterances, condition, evaluation_set.seconds, seconds, measured, timer.seconds)


def _measured_snrs(dataset: ClipDataset) -> tuple[float, float] | None:
    """Lowest and highest signal-to-noise ratio of the mixtures, dB; None if no clip has audio."""
    ratios = [snr for index in range(len(dataset)) if (snr := dataset.measured_snr(index)) is not None]
    return (min(ratios), max(ratios)) if ratios else None


class _StageTimer:
    """Wall-clock seconds of the stages of decoding."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(("reading", "encoding", "search"), 0.0)
        self._device = device

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage; a GPU's work belongs to the stage that started it."""
        started = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[name] += time.perf_counter() - started
