"""Models on the Hugging Face Hub: download by name, from the cache if offline, and upload.

Needs the extra `hub`. Only the files of a model are downloaded, `config.json` before the weights, and no code of a
repository is downloaded or run.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from avhubert.checkpoints.avista.read import TEXT_FILES
from avhubert.checkpoints.avista.weights import SAFETENSORS, TORCH
from avhubert.checkpoints.config_file import CONFIG, read_config
from avhubert.checkpoints.directory import CARD, TOKENIZER, WEIGHTS, save_model
from avhubert.checkpoints.kinds import PUBLISHED_SUFFIXES, Kind, kind_of_config
from avhubert.errors import AvhubertError, CheckpointError, ConfigError, DataError
from avhubert.files import read_json
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@([^\s@]+))?")
_LOG_IN = "`hf auth login` or HF_TOKEN"
_RESULT_KEYS = ("modality", "noise", "snr", "fault", "wer", "interval", "cer", "words", "clips")


def is_name(source: str | Path) -> bool:
    """Whether `source` looks like "org/name" or "org/name@revision"; a path to a checkpoint (.pt) does not."""
    return bool(_NAME.fullmatch(str(source))) and Path(source).suffix not in PUBLISHED_SUFFIXES


def fetch(source: str) -> Path:
    """The model directory of "org/name" or "org/name@revision" (branch, tag or commit) in the Hub's cache.

    Downloads the newest commit; without internet access, or with HF_HUB_OFFLINE set, the cache is used.

    Raises:
        CheckpointError: The extra is not installed, there is no such model or no permission to read it, it is neither
            in the cache nor can the Hub be reached, or it is a model of another library.
    """
    name, revision = _split(source)
    with _hub_errors(name, revision, CheckpointError):
        from huggingface_hub import snapshot_download

        snapshot = Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG]))
        try:
            kind = kind_of_config(snapshot / CONFIG) if (snapshot / CONFIG).is_file() else Kind.DIRECTORY
            if kind is Kind.DIRECTORY:
                read_config(snapshot)
        except CheckpointError as error:
            raise CheckpointError(
                f"{name} on the Hugging Face Hub is not a model that this version reads: {error}"
            ) from error
        files = [WEIGHTS, CONFIG, TOKENIZER, CARD] if kind is Kind.DIRECTORY else [SAFETENSORS, *TEXT_FILES]
        # the commit of that config.json, so that all files belong together
        folder = Path(snapshot_download(name, revision=snapshot.name, allow_patterns=files))
        if kind is Kind.AVISTA and not (folder / SAFETENSORS).is_file():
            snapshot_download(name, revision=snapshot.name, allow_patterns=[TORCH])
        return folder


def repository(source: str) -> str:
    """The name of "org/name" or "org/name@revision" without the revision."""
    return _split(source)[0]


def push_to_hub(
    model: AVHubert | Recognizer,
    name: str,
    *,
    license: str | None = None,
    results: str | Path | None = None,
    private: bool | None = None,
    message: str = "Model of avhubert",
) -> str:
    """Upload a model to the Hugging Face Hub.

    Absolute paths in the metadata are shortened to their last part.

    Args:
        model: The model.
        name: "org/name" or "org/name@branch"; the repository and the branch are made if needed.
        license: The Hub's identifier for the weights, such as "apache-2.0"; None: the one of the model's metadata.
        results: A `results.json` of `avhubert evaluate`, for the card.
        private: Whether a new repository is private; None: the default of the organisation.
        message: The commit message.

    Returns:
        The address of the commit.

    Raises:
        ConfigError: Not a name, the extra is not installed, or a recognizer without tokenizer.
        CheckpointError: The Hub cannot be reached or refuses the upload.
        DataError: `results` has no word error rates.
    """
    if not is_name(name):
        raise ConfigError(f"'{name}' is not a name on the Hugging Face Hub: give org/name or org/name@branch")
    tokenizer = model.require_tokenizer("pushed").serialized if isinstance(model, Recognizer) else None
    repository, branch = _split(name)
    metadata = ModelMetadata.from_dict(_public(model.metadata.to_dict()))
    if license is not None:
        metadata.license = license
    if results is not None:
        metadata.results = read_results(Path(results))
    with tempfile.TemporaryDirectory() as scratch:
        save_model(scratch, model, tokenizer, metadata, name=name)
        with _hub_errors(repository, branch, ConfigError):
            from huggingface_hub import HfApi

            hub = HfApi()
            hub.create_repo(repository, private=private, exist_ok=True)
            if branch is not None:
                hub.create_branch(repository, branch=branch, exist_ok=True)
            commit = hub.upload_folder(repo_id=repository, folder_path=scratch, revision=branch, commit_message=message)
    return str(commit.commit_url)


def _split(source: str) -> tuple[str, str | None]:
    match = _NAME.fullmatch(source)
    assert match is not None
    return match.group(1), match.group(2)


def _public(value: Any) -> Any:
    """A JSON value in which absolute paths are shortened to their last part."""
    if isinstance(value, Mapping):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(item) for item in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def read_results(path: Path) -> list[dict[str, Any]]:
    """The rows of a `results.json` of `avhubert evaluate`, for the card, without absolute paths.

    Raises:
        DataError: The file has no word error rates.
    """
    content = read_json(path)
    rows = content.get("results") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "wer" in row for row in rows):
        raise DataError(f"{path} has no word error rates: give the results.json that `avhubert evaluate --out` wrote")
    shared = {key: _public(content[key]) for key in ("data", "split") if key in content}
    return [shared | {key: row[key] for key in _RESULT_KEYS if key in row} for row in rows]


@contextmanager
def _hub_errors(name: str, revision: str | None, without_extra: type[AvhubertError]) -> Iterator[None]:
    """Turns the errors of the Hub's client into ours, each one sentence."""
    try:
        from huggingface_hub import errors
    except ImportError as error:
        raise without_extra(
            f"'{name}' is not a local folder, and the Hugging Face Hub needs its client: pip install 'avhubert[hub]'"
        ) from error
    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name} is gated on the Hugging Face Hub: accept its terms on its page, then log in ({_LOG_IN})"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"'{name}' is neither a folder here nor a model that the Hugging Face Hub shows you: check the name, or "
            f"log in ({_LOG_IN}) if it is private"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{name} on the Hugging Face Hub has no revision '{revision}'") from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"'{name}' is not a folder here, not in the Hugging Face Hub's cache, and the Hub cannot be reached: check "
            "the name and the connection (or unset HF_HUB_OFFLINE), or copy a model directory here"
        ) from error
    except errors.HfHubHTTPError as error:
        raise CheckpointError(_refusal(name, error)) from error
    except (errors.HTTPError, ConnectionError) as error:  # no answer, or HF_HUB_OFFLINE
        raise CheckpointError(f"the Hugging Face Hub cannot be reached for {name}: {_first_line(error)}") from error


def _refusal(name: str, error: Any) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return f"the Hugging Face Hub does not let you do this to {name}: log in ({_LOG_IN}) with a token that may"
    return f"the Hugging Face Hub answered {status} for {name}: {error.server_message or _first_line(error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
