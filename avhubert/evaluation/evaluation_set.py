"""The clips and reference texts of an evaluation, checked before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avhubert.config.input_preparation import PUBLISHED, InputPreparation
from avhubert.config.schema import DataConfig
from avhubert.constants import FRAME_RATE, MODALITIES
from avhubert.data.dataset import ClipDataset
from avhubert.data.manifest import Clip, read_manifest
from avhubert.data.preparation import check_crop
from avhubert.data.transcripts import read_transcripts
from avhubert.decode.beam_search import check_lengths
from avhubert.errors import DataError
from avhubert.evaluation.conditions import Condition


@dataclass(frozen=True)
class EvaluationSet:
    """The clips of a split of a data directory, and their normalised transcripts; how the model's inputs are made."""

    data_dir: Path
    split: str
    clips: list[Clip]
    references: list[str]
    preparation: InputPreparation = PUBLISHED

    @property
    def manifest(self) -> Path:
        """The file that lists the clips."""
        return self.data_dir / f"{self.split}.tsv"

    @property
    def transcripts(self) -> Path:
        """The file with the transcripts."""
        return self.data_dir / f"{self.split}.wrd"

    @property
    def seconds(self) -> float:
        """Total duration of the clips."""
        return sum(clip.frames for clip in self.clips) / FRAME_RATE

    def dataset(
        self,
        condition: Condition,
        noises: Sequence[Path] | None,
        noise_speakers: Mapping[Path, frozenset[str]] | None = None,
    ) -> ClipDataset:
        """The clips under a condition.

        Args:
            condition: the condition.
            noises: its noise files; None without noise.
            noise_speakers: whose voices these files contain, as far as it is known.
        """
        config = DataConfig(
            dir=str(self.data_dir),
            modalities=condition.modality,
            max_frames=max(clip.frames for clip in self.clips),
            min_frames=1,
            augment=False,
            noise_prob=0.0 if condition.snr is None else 1.0,
            noise_snr=[0, 0] if condition.snr is None else [condition.snr, condition.snr],
        )
        return ClipDataset(
            self.clips,
            config,
            training=False,
            seed=0,
            noise=noises,
            corruption=condition.fault,
            noise_speakers=noise_speakers,
            preparation=self.preparation,
        )


def read_evaluation_set(
    data_dir: Path,
    split: str,
    modalities: Sequence[str],
    normalise: Callable[[str], str],
    preparation: InputPreparation = PUBLISHED,
) -> EvaluationSet:
    """Read a split; no clip is left out.

    Args:
        data_dir: the data directory.
        split: name of the split.
        modalities: those that every clip must have a stream of.
        normalise: applied to the transcripts.
        preparation: how the model's inputs are made.

    Raises:
        DataError: the split or its transcripts are missing or empty; a reference is empty, so that no error rate can be
            computed for it; a clip is empty, too long, or has no stream of a modality.
    """
    manifest, transcripts = data_dir / f"{split}.tsv", data_dir / f"{split}.wrd"
    clips = read_manifest(manifest)
    if not clips:
        raise DataError(f"{manifest} lists no clips; there is nothing to evaluate", path=manifest)
    references = [normalise(text) for text in read_transcripts(transcripts, clips)]
    for clip, reference in zip(clips, references, strict=True):
        if not reference:
            raise DataError(
                f"{transcripts}: the reference of clip '{clip.id}' is empty; write it or remove the clip",
                path=transcripts,
                clip_id=clip.id,
            )
    check_lengths([clip.frames for clip in clips], [clip.id for clip in clips])
    for modality in modalities:
        without = [clip.id for clip in clips if not clip.streams(MODALITIES[modality])]
        if without:
            raise DataError(
                f"{len(without)} of {len(clips)} clips have no stream of modality '{modality}', among them "
                f"'{without[0]}'; choose another modality, or take them out of the manifest",
                clip_id=without[0],
            )
    check_crop(data_dir, preparation, "".join(modalities))
    return EvaluationSet(data_dir, split, clips, references, preparation)
