"""Self-training: a recognizer transcribes clips that nobody has, and what it is sure of joins the labelled data.

As the published `self_large_vox_*` recipes begin (ICLR 2022, § 4.3).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from avhubert.checkpoints.directory import TOKENIZER, WEIGHTS
from avhubert.checkpoints.load import load_recognizer
from avhubert.config.defaults import MAX_PSEUDO_LABEL_FRAMES
from avhubert.config.schema import DataConfig, DecodeConfig
from avhubert.constants import MODALITIES, UNK
from avhubert.data.batching import make_batches
from avhubert.data.collate import Batch
from avhubert.data.dataset import ClipDataset
from avhubert.data.loader import Loader
from avhubert.data.manifest import Clip, read_manifest, select, write_manifest
from avhubert.data.transcripts import read_transcripts, write_transcripts
from avhubert.decode.beam_search import beam_search
from avhubert.errors import ConfigError, DataError, list_names
from avhubert.evaluation.conditions import check_modality
from avhubert.evaluation.pseudo_journal import JOURNAL, Heard, journal_line, read_journal
from avhubert.files import lock_directory, output_directory, read_json, sha256, write_json, write_text
from avhubert.model.recognizer import Recognizer
from avhubert.report import progress

FRAMES_PER_BATCH = 600  # video frames, padding included


SETTINGS, LEFT_OUT = "pseudo-labels.json", "left_out.tsv"


@dataclass(frozen=True)
class Summary:
    """What `pseudo_label` did: clips of the mixture and clips left out, by reason."""

    directory: Path
    labelled: int
    kept: int
    left_out: dict[str, list[str]]

    def __str__(self) -> str:
        lines = [f"{self.directory}: {self.labelled} labelled and {self.kept} transcribed clips to train on"]
        for reason, ids in self.left_out.items():
            lines.append(f"  {len(ids)} left out, {reason}: {list_names(ids)}")
        if self.left_out:
            lines.append(f"all of them are named in {self.directory / LEFT_OUT}")
        return "\n".join(lines)


def pseudo_label(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    min_confidence: float,
    labelled: str | Path | None = None,
    split: str = "train",
    modality: str = "av",
    beam: int | None = None,
    max_frames: int = MAX_PSEUDO_LABEL_FRAMES,
) -> Summary:
    """Transcribe `data`/`split`.tsv and write the data directory `out`: what was heard surely, and what is `labelled`.

    Kept are clips whose tokens have a mean log-probability (natural, at most 0) of at least `min_confidence`. The
    labelled directory also gives validation, test and the tokenizer; its clips are never transcribed. Without one,
    `out` has a train split alone and the model's tokenizer. Can be killed and started again: transcripts are kept in
    `out`, and another `min_confidence` chooses anew among them.

    Raises:
        ConfigError: a confidence above 0, a modality the model lacks, `out` holds transcripts of something else.
        DataError: no manifest, nothing that is sure enough.
        CheckpointError: `model` is not a recognizer.
    """
    if not min_confidence <= 0:
        raise ConfigError(
            f"--min-confidence {min_confidence:g} is a mean log-probability, so at most 0, such as -0.2 "
            "(0.82 per token)"
        )
    data, out = Path(data), Path(out)
    recognizer = load_recognizer(model)
    tokenizer = recognizer.require_tokenizer("used")
    check_modality(recognizer, modality)
    if recognizer.metadata.ctc_weight == 1:
        raise ConfigError(f"{model} was trained with CTC alone, and the search needs its decoder; give another model")
    known = {} if labelled is None else _labelled_clips(Path(labelled))
    if out.resolve() in {data.resolve(), *([Path(labelled).resolve()] if labelled is not None else [])}:
        raise ConfigError(f"{out} is a folder that is read; choose another one for the result")
    clips = read_manifest(data / f"{split}.tsv")
    own = recognizer.decode_settings
    settings = replace(own, beam=own.beam if beam is None else beam)
    folder = output_directory(out)
    with lock_directory(folder):
        _check_settings(folder, {
            "model_sha256": _identity(Path(model)), "manifest_sha256": sha256(data / f"{split}.tsv"),
            "modality": modality, "decode": asdict(settings),
        })  # fmt: skip
        new = [clip for clip in clips if clip.id not in known]
        chosen, left_out = select(new, 1, max_frames, streams=MODALITIES[modality])
        if len(new) < len(clips):
            left_out["in the labelled data already"] = [clip.id for clip in clips if clip.id in known]
        heard = _transcribe(recognizer, [new[index] for index in chosen], modality, settings, folder / JOURNAL)
        pairs = []
        for index in chosen:
            one = heard[new[index].id]
            reason = _doubt(one, min_confidence)
            if reason:
                left_out.setdefault(reason, []).append(one.id)
            else:
                pairs.append((new[index], one.text))
        if not pairs:
            surest = max((f"{one.confidence:.3g}" for one in heard.values() if not one.problem), key=float, default="")
            raise DataError(
                f"none of the {len(clips)} clips of {data / f'{split}.tsv'} can be used: "
                + ", ".join(f"{len(ids)} {reason}" for reason, ids in left_out.items())
                + (f"; the surest has {surest}, give a lower --min-confidence" if surest else "")
            )
        _write(folder, pairs, None if labelled is None else Path(labelled), tokenizer.serialized)
        rows = [f"{identifier}\t{reason}\n" for reason, ids in left_out.items() for identifier in ids]
        write_text(folder / LEFT_OUT, "".join(rows))
    mixed = 0 if labelled is None else len(read_manifest(Path(labelled) / "train.tsv"))
    return Summary(folder, mixed, len(pairs), left_out)


def _labelled_clips(folder: Path) -> dict[str, str]:
    """The split of every labelled clip: a transcript of one for testing must not be trained on."""
    splits = [split for split in ("train", "valid", "test") if split == "train" or (folder / f"{split}.tsv").exists()]
    return {clip.id: split for split in splits for clip in read_manifest(folder / f"{split}.tsv")}


def _identity(model: Path) -> str:
    return sha256(model / WEIGHTS if model.is_dir() else model)


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / SETTINGS
    if not path.exists():
        write_json(path, settings)
    elif (there := read_json(path)) != settings:
        differing = [key for key in settings if there.get(key) != settings[key]]
        raise ConfigError(f"{folder} holds transcripts of another {', '.join(differing)}; choose another folder")


def _doubt(heard: Heard, least: float) -> str:
    """Why a transcript is not used; empty if it is."""
    if heard.problem:
        return heard.problem
    if not heard.text:
        return "nothing was heard"
    return "" if heard.confidence >= least else f"with a confidence below {least:g}"


# --------------------------------------------------------------------------- transcripts
def _transcribe(
    recognizer: Recognizer, clips: Sequence[Clip], modality: str, settings: DecodeConfig, journal: Path
) -> dict[str, Heard]:
    """What is heard in each clip; those of the journal are done, the others are added to it batch by batch."""
    done = {one.id: one for one in read_journal(journal)}
    write_text(journal, "".join(journal_line(one) for one in done.values()))  # without a line that a kill cut short
    todo = [clip for clip in clips if clip.id not in done]
    config = DataConfig(dir="", modalities=modality, augment=False)
    dataset = ClipDataset(todo, config, training=False, seed=0, tolerant=True)
    batches = make_batches([clip.frames for clip in todo], FRAMES_PER_BATCH)
    recognizer.to("cuda" if torch.cuda.is_available() else "cpu")
    with progress() as bar, open(journal, "a", encoding="utf-8") as lines:
        task = bar.add_task("transcribing", total=len(todo), unit="clips")
        for batch in Loader(dataset, workers=1).batches((0, indices) for indices in batches):
            for one in _decode(recognizer, batch, settings):
                done[one.id] = one
                lines.write(journal_line(one))
                bar.advance(task)
            lines.flush()
    return done


@torch.inference_mode()
def _decode(recognizer: Recognizer, batch: Batch, settings: DecodeConfig) -> list[Heard]:
    heard = [Heard(identifier, problem="cannot be read") for identifier in batch.left_out]
    if not batch.ids:
        return heard
    batch = batch.to(next(recognizer.parameters()).device)
    encoded = recognizer.encode(batch.inputs)
    for identifier, found in zip(batch.ids, beam_search(recognizer, encoded, batch.inputs.mask, settings), strict=True):
        best = found[0]
        confidence = sum(best.positional_scores) / len(best.positional_scores)
        problem = "an unknown character was heard" if UNK in best.tokens else ""
        heard.append(Heard(identifier, recognizer.require_tokenizer("used").decode(best.tokens), confidence, problem))
    return heard


# --------------------------------------------------------------------------- the mixture
def _write(folder: Path, pairs: list[tuple[Clip, str]], labelled: Path | None, tokenizer: bytes) -> None:
    """The data directory; a split's manifest comes last."""
    clips, texts = [clip for clip, _ in pairs], [text for _, text in pairs]
    if labelled is None:
        (folder / TOKENIZER).write_bytes(tokenizer)
    else:
        own = read_manifest(labelled / "train.tsv")
        texts = [*read_transcripts(labelled / "train.wrd", own), *texts]
        clips = [*own, *clips]
        for name in (TOKENIZER, "dict.wrd.txt", "valid.wrd", "valid.phn", "test.wrd", "test.phn"):
            if (labelled / name).exists():
                shutil.copyfile(labelled / name, folder / name)
        for split in ("valid", "test"):
            if (labelled / f"{split}.tsv").exists():
                write_manifest(folder / f"{split}.tsv", read_manifest(labelled / f"{split}.tsv"), folder)
    write_transcripts(folder / "train.wrd", texts)
    write_manifest(folder / "train.tsv", clips, folder)
