"""The files of an evaluation: hypotheses, results.json and report.html."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from avhubert.decode.batch_decoder import BatchDecoder
from avhubert.devices import to_host
from avhubert.errors import DataError
from avhubert.evaluation.evaluation_set import EvaluationSet
from avhubert.evaluation.metrics import Result, ScoredText, Utterance
from avhubert.evaluation.report import result_page
from avhubert.files import read_json, sha256, write_json
from avhubert.model.recognizer import Recognizer


@dataclass(frozen=True)
class Provenance:
    """What results depend on, besides the clips.

    Attributes:
        noises: noise files by the name of their list.
        normalise: name of the normaliser of texts.
        decoder: the model and its decoding settings.
    """

    noises: Mapping[str | None, Sequence[Path]]
    normalise: str
    decoder: BatchDecoder


def write_results(
    folder: Path, results: Sequence[Result], evaluation_set: EvaluationSet, provenance: Provenance
) -> None:
    """Write the hypotheses of every condition, results.json and report.html."""
    for result in results:
        rows = [asdict(utterance) for utterance in result.utterances]
        write_json(folder / f"hypotheses-{result.condition.file_name}.json", rows)
    summaries = [result.summary() for result in results]
    write_json(folder / "results.json", {"results": summaries, **_provenance(evaluation_set, provenance)})
    result_page(results, evaluation_set.clips, evaluation_set.split).write(folder / "report.html")


def _provenance(evaluation_set: EvaluationSet, provenance: Provenance) -> dict[str, Any]:
    decoder = provenance.decoder
    return {
        "data": str(evaluation_set.data_dir),
        "split": evaluation_set.split,
        "manifest_sha256": sha256(evaluation_set.manifest),
        "transcripts_sha256": sha256(evaluation_set.transcripts),
        "noise_sha256": {name or "noise": _hash_files(paths) for name, paths in provenance.noises.items()},
        "decode": asdict(decoder.settings),
        "normalise": provenance.normalise,
        "model": decoder.recognizer.metadata.to_dict(),
        "model_sha256": _hash_weights(decoder.recognizer),
        "avhubert": version("avhubert"),
        "compute": str(decoder.compute),
    }


def _hash_files(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(sha256(path).encode())
    return digest.hexdigest()


def _hash_weights(recognizer: Recognizer) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(recognizer.state_dict().items()):
        data = to_host(tensor).contiguous().flatten().view(torch.uint8)  # NumPy has no bfloat16
        digest.update(name.encode() + data.numpy().tobytes())
    return digest.hexdigest()


def read_hypotheses(path: str | Path) -> list[Utterance]:
    """The utterances in a `hypotheses-….json` of `avhubert evaluate`.

    Raises:
        DataError: the file is something else or empty.
    """
    rows = read_json(path)
    try:
        utterances = [
            Utterance(**{**row, "others": [ScoredText(*other) for other in row.get("others", [])]}) for row in rows
        ]
        if not all(utterance.is_valid() for utterance in utterances):
            raise TypeError("a value has the wrong type")
    except (TypeError, AttributeError) as error:
        raise DataError(f"{path} does not hold hypotheses; give a hypotheses-….json of `avhubert evaluate`") from error
    if not utterances:
        raise DataError(f"{path} holds no utterances; evaluate again")
    return utterances
