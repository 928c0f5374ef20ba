"""Self-training: a recognizer transcribes unlabelled clips, and confident transcripts are added to the labelled data.

The first step of the published `self_large_vox_*` recipes (ICLR 2022, § 4.3).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avhubert.checkpoints.directory import TOKENIZER
from avhubert.checkpoints.load import load_recognizer, weights_hash
from avhubert.config.command_defaults import MAX_PSEUDO_LABEL_FRAMES
from avhubert.config.schema import DataConfig
from avhubert.constants import MODALITIES, SPLITS, UNK
from avhubert.data.batching import make_batches
from avhubert.data.collate import Batch
from avhubert.data.dataset import ClipDataset
from avhubert.data.loader import Loader
from avhubert.data.manifest import Clip, read_manifest, select, write_manifest
from avhubert.data.preparation import check_crop, read_crop, write_crop
from avhubert.data.transcripts import read_transcripts, write_transcripts
from avhubert.decode.batch_decoder import FRAMES_PER_BATCH, BatchDecoder
from avhubert.devices import AUTO
from avhubert.errors import ConfigError, DataError, list_names
from avhubert.evaluation.conditions import check_modality
from avhubert.evaluation.pseudo_journal import JOURNAL, PseudoLabel, journal_line, read_journal
from avhubert.files import lock_directory, output_directory, read_json, sha256, write_json, write_text
from avhubert.model.recognizer import Recognizer
from avhubert.report import progress

SETTINGS, LEFT_OUT = "pseudo-labels.json", "left_out.tsv"


@dataclass(frozen=True)
class Summary:
    """The result of `pseudo_label`.

    Attributes:
        directory: the data directory that was written.
        labelled: training clips from the labelled data.
        transcribed: training clips with a pseudo-label.
        left_out: ids of the clips that were left out, by reason.
    """

    directory: Path
    labelled: int
    transcribed: int
    left_out: dict[str, list[str]]

    def __str__(self) -> str:
        lines = [f"{self.directory}: {self.labelled} labelled and {self.transcribed} transcribed clips to train on"]
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
    device: str = AUTO,
    precision: str = AUTO,
) -> Summary:
    """Transcribe a split and write a data directory of its confident transcripts and the labelled data.

    An interrupted run resumes: transcripts are kept in `out`. Another `min_confidence` selects among the same
    transcripts.

    Args:
        model: the recognizer, what `avhubert.load` takes.
        data: data directory with the clips to transcribe.
        out: data directory to write.
        min_confidence: smallest mean log-probability per token (natural, at most 0) of a transcript that is used.
        labelled: data directory with transcripts to add. It also gives the validation and test splits and the
            tokenizer; its clips are never transcribed. None: `out` has only a train split, and the model's tokenizer.
        split: of `data`.
        modality: streams to use: av, a or v.
        beam: beam size; None: the model's.
        max_frames: longer clips are left out.
        device: see `devices.resolve`.
        precision: see `devices.resolve`.

    Raises:
        ConfigError: `min_confidence` is above 0, the model was not trained for the modality, `out` holds transcripts of
            something else, the device or precision cannot be used.
        DataError: no manifest, or no transcript is confident enough.
        CheckpointError: `model` is not a recognizer.
    """
    _check_confidence(min_confidence)
    data, out, labelled = Path(data), Path(out), None if labelled is None else Path(labelled)
    recognizer = load_recognizer(model)
    _check_request(model, recognizer, modality, inputs=[data, *([labelled] if labelled else [])], out=out)
    known = set() if labelled is None else _labelled_ids(labelled)
    clips = read_manifest(data / f"{split}.tsv")
    decoder = BatchDecoder(recognizer, device, precision, None if beam is None else {"beam": beam})
    folder = output_directory(out)
    with lock_directory(folder):
        _check_settings(folder, _settings(Path(model), data / f"{split}.tsv", modality, decoder))
        new = [clip for clip in clips if clip.id not in known]
        chosen, left_out = select(new, 1, max_frames, streams=MODALITIES[modality])
        if len(new) < len(clips):
            left_out["in the labelled data already"] = [clip.id for clip in clips if clip.id in known]
        candidates = [new[index] for index in chosen]
        labels = _transcribe(decoder, candidates, modality, folder / JOURNAL)
        accepted = _accept(candidates, labels, min_confidence, left_out)
        if not accepted:
            raise _nothing_accepted(data / f"{split}.tsv", len(clips), left_out, list(labels.values()))
        _write_data(folder, accepted, labelled, recognizer.require_tokenizer("used").serialized, read_crop(data))
        rows = [f"{clip_id}\t{reason}\n" for reason, ids in left_out.items() for clip_id in ids]
        write_text(folder / LEFT_OUT, "".join(rows))
    return Summary(folder, len(read_manifest(labelled / "train.tsv")) if labelled else 0, len(accepted), left_out)


def _accept(
    clips: Sequence[Clip], labels: Mapping[str, PseudoLabel], min_confidence: float, left_out: dict[str, list[str]]
) -> list[tuple[Clip, str]]:
    """The clips whose transcript is used, with it; the others are added to `left_out` by reason."""
    accepted = []
    for clip in clips:
        reason = rejection_reason(labels[clip.id], min_confidence)
        if reason:
            left_out.setdefault(reason, []).append(clip.id)
        else:
            accepted.append((clip, labels[clip.id].text))
    return accepted


def rejection_reason(label: PseudoLabel, min_confidence: float) -> str:
    """Why a transcript is not used; empty if it is."""
    if label.problem:
        return label.problem
    if not label.text:
        return "with an empty transcript"
    return "" if label.confidence >= min_confidence else f"with a confidence below {min_confidence:g}"


# --------------------------------------------------------------------------- checks
def _check_confidence(min_confidence: float) -> None:
    if not min_confidence <= 0:
        raise ConfigError(
            f"--min-confidence {min_confidence:g} is a mean log-probability, so at most 0, such as -0.2 "
            "(0.82 per token)"
        )


def _check_request(model: str | Path, recognizer: Recognizer, modality: str, inputs: Sequence[Path], out: Path) -> None:
    recognizer.require_tokenizer("used")
    check_modality(recognizer, modality)
    if recognizer.metadata.ctc_weight == 1:
        raise ConfigError(f"{model} was trained with CTC only, and the search needs its decoder; give another model")
    for folder in inputs:
        check_crop(folder, recognizer.metadata.preparation(), modality)
    if out.resolve() in {path.resolve() for path in inputs}:
        raise ConfigError(f"{out} is an input folder; choose another one for the result")


def _labelled_ids(folder: Path) -> set[str]:
    """Clips of all splits: a pseudo-label of a test clip must not be trained on."""
    splits = [split for split in SPLITS if split == "train" or (folder / f"{split}.tsv").exists()]
    return {clip.id for split in splits for clip in read_manifest(folder / f"{split}.tsv")}


def _settings(model: Path, manifest: Path, modality: str, decoder: BatchDecoder) -> dict[str, Any]:
    """What the transcripts depend on; the precision is left out if it is fp32, as in older files."""
    precision = decoder.compute.precision
    return {
        "model_sha256": weights_hash(model),
        "manifest_sha256": sha256(manifest),
        "modality": modality,
        "decode": asdict(decoder.settings),
        **({} if precision == "fp32" else {"precision": precision}),
    }


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / SETTINGS
    if not path.exists():
        write_json(path, settings)
    elif (present := read_json(path)) != settings:
        names = dict.fromkeys([*settings, *present])
        differing = [name for name in names if present.get(name) != settings.get(name)]
        raise ConfigError(f"{folder} holds transcripts of another {', '.join(differing)}; choose another folder")


def _nothing_accepted(
    manifest: Path, clips: int, left_out: Mapping[str, Sequence[str]], labels: Sequence[PseudoLabel]
) -> DataError:
    best = max((label.confidence for label in labels if not label.problem), default=None)
    reasons = ", ".join(f"{len(ids)} {reason}" for reason, ids in left_out.items())
    advice = "" if best is None else f"; the highest confidence is {best:.3g}, give a lower --min-confidence"
    return DataError(f"none of the {clips} clips of {manifest} can be used: {reasons}{advice}", path=manifest)


# --------------------------------------------------------------------------- transcripts
def _transcribe(decoder: BatchDecoder, clips: Sequence[Clip], modality: str, journal: Path) -> dict[str, PseudoLabel]:
    """Transcripts by clip id: those in the journal, and the others, which are added to it batch by batch."""
    labels = {label.id: label for label in read_journal(journal)}
    write_text(journal, "".join(journal_line(label) for label in labels.values()))  # without an incomplete line
    remaining = [clip for clip in clips if clip.id not in labels]
    config = DataConfig(dir="", modalities=modality, augment=False)
    preparation = decoder.recognizer.metadata.preparation()
    dataset = ClipDataset(remaining, config, training=False, seed=0, tolerant=True, preparation=preparation)
    batches = make_batches([clip.frames for clip in remaining], FRAMES_PER_BATCH)
    with progress() as bar, open(journal, "a", encoding="utf-8", newline="\n") as lines:
        task = bar.add_task("transcribing", total=len(remaining), unit="clips")
        for batch in Loader(dataset, workers=1).batches((0, indices) for indices in batches):
            for label in _decode(decoder, batch):
                labels[label.id] = label
                lines.write(journal_line(label))
                bar.advance(task)
            lines.flush()
    return labels


def _decode(decoder: BatchDecoder, batch: Batch) -> Iterator[PseudoLabel]:
    for clip_id in batch.left_out:
        yield PseudoLabel(clip_id, problem="cannot be read")
    if not batch.ids:
        return
    inputs = batch.inputs.to(decoder.compute.device)
    for clip_id, hypotheses in zip(batch.ids, decoder.search(decoder.encode(inputs), inputs.mask), strict=True):
        best = hypotheses[0]
        problem = "with an unknown character in the transcript" if UNK in best.tokens else ""
        yield PseudoLabel(clip_id, decoder.text(best), best.confidence, problem)


# --------------------------------------------------------------------------- the data directory
def _write_data(
    folder: Path, accepted: Sequence[tuple[Clip, str]], labelled: Path | None, tokenizer: bytes, crop: str
) -> None:
    """Write the data directory; a split's manifest comes last."""
    write_crop(folder, crop)
    clips, texts = [clip for clip, _ in accepted], [text for _, text in accepted]
    if labelled is None:
        (folder / TOKENIZER).write_bytes(tokenizer)
    else:
        labelled_clips = read_manifest(labelled / "train.tsv")
        texts = [*read_transcripts(labelled / "train.wrd", labelled_clips), *texts]
        clips = [*labelled_clips, *clips]
        for name in (TOKENIZER, "dict.wrd.txt", "valid.wrd", "valid.phn", "test.wrd", "test.phn"):
            if (labelled / name).exists():
                shutil.copyfile(labelled / name, folder / name)
        for split in ("valid", "test"):
            if (labelled / f"{split}.tsv").exists():
                write_manifest(folder / f"{split}.tsv", read_manifest(labelled / f"{split}.tsv"), folder)
    write_transcripts(folder / "train.wrd", texts)
    write_manifest(folder / "train.tsv", clips, folder)
