"""The files of an evaluation: hypotheses, results.json and report.html."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from avhubert.config.schema import DecodeConfig
from avhubert.data.manifest import Clip
from avhubert.errors import DataError
from avhubert.evaluation.metrics import Result, Utterance
from avhubert.evaluation.report import result_page
from avhubert.files import read_json, sha256, write_json
from avhubert.model.recognizer import Recognizer


def write_results(
    folder: Path,
    results: list[Result],
    clips: Sequence[Clip],
    data: Path,
    split: str,
    lists: Mapping[str | None, Sequence[Path]],
    settings: DecodeConfig,
    normalise: str,
    recognizer: Recognizer,
) -> None:
    provenance = {
        "data": str(data),
        "split": split,
        "manifest_sha256": sha256(data / f"{split}.tsv"),
        "transcripts_sha256": sha256(data / f"{split}.wrd"),
        "noise_sha256": {name or "noise": _hash_files(paths) for name, paths in lists.items()},
        "decode": asdict(settings),
        "normalise": normalise,
        "model": recognizer.metadata.to_dict(),
        "model_sha256": _hash_weights(recognizer),
        "avhubert": version("avhubert"),
    }
    for result in results:
        rows = [asdict(utterance) for utterance in result.utterances]
        write_json(folder / f"hypotheses-{result.condition.file_name}.json", rows)
    write_json(folder / "results.json", {"results": [result.summary() for result in results], **provenance})
    result_page(results, clips, split).write(folder / "report.html")


def _hash_files(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(sha256(path).encode())
    return digest.hexdigest()


def _hash_weights(recognizer: Recognizer) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(recognizer.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_hypotheses(path: str | Path) -> list[Utterance]:
    """Utterances of a `hypotheses-….json` that `avhubert evaluate` wrote; DataError for anything else."""
    rows = read_json(path)
    try:
        found = [Utterance(**{**row, "others": [tuple(other) for other in row.get("others", [])]}) for row in rows]
    except (TypeError, AttributeError) as error:
        raise DataError(f"{path} does not hold hypotheses; give a hypotheses-….json of `avhubert evaluate`") from error
    if not found:
        raise DataError(f"{path} holds no utterances; evaluate again")
    return found
