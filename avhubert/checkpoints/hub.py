"""Models on the Hugging Face Hub: fetch by name (or take from its cache), and push.

Needs the extra `hub`. What is fetched is only a model directory's own files, and its `config.json` first: nothing large
comes from a repository of another kind, and nothing in it is ever run.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from avhubert.checkpoints.config_file import CONFIG, read_config
from avhubert.checkpoints.directory import CARD, TOKENIZER, WEIGHTS, save_model
from avhubert.errors import AvhubertError, CheckpointError, ConfigError, DataError
from avhubert.files import read_json
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"


_NAME = re.compile(rf"({_PART}/{_PART})(?:@([^\s@]+))?")


_CHECKPOINTS = (".pt", ".pth")


_LOG_IN = "`hf auth login` or HF_TOKEN"


def is_name(source: str | Path) -> bool:
    """Whether `source` looks like "org/name" or "org/name@revision"; a path to a checkpoint (.pt) does not."""
    return bool(_NAME.fullmatch(str(source))) and Path(source).suffix not in _CHECKPOINTS


def fetch(source: str) -> Path:
    """The model directory of "org/name" or "org/name@revision" (branch, tag or commit) in the Hub's cache.

    Asks the Hub what is newest, and takes what the cache has where it cannot be reached or HF_HUB_OFFLINE is set.

    Raises:
        CheckpointError: the extra is not installed, there is no such model or none that may be seen, the Hub cannot be
            reached and the cache has not got it, or it is a model of another kind.
    """
    name, revision = _split(source)
    with _sentences(name, revision, CheckpointError):
        from huggingface_hub import snapshot_download

        found = Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG]))
        try:
            read_config(found)
        except CheckpointError as error:
            raise CheckpointError(
                f"{name} on the Hugging Face Hub is no model that this version reads: {error}"
            ) from error
        # the commit that was read, so that all files are of one state
        return Path(snapshot_download(name, revision=found.name, allow_patterns=[WEIGHTS, CONFIG, TOKENIZER, CARD]))


def push_to_hub(
    model: AVHubert | Recognizer,
    name: str,
    *,
    license: str | None = None,
    results: str | Path | None = None,
    private: bool | None = None,
    message: str = "Model of avhubert",
) -> str:
    """Write `model` to the repository "org/name" or "org/name@branch", made if needed; the address of the commit.

    `license`: the Hub's identifier for these weights, such as "apache-2.0"; without it what the model's metadata say.
    `results`: a `results.json` of `avhubert evaluate`, for the card. `private`: who sees a repository made here; None
    leaves it to the organisation. Folders of this machine in the metadata are cut to their last part.

    Raises:
        ConfigError: not a name, the extra is not installed, a recognizer without tokenizer.
        CheckpointError: the Hub cannot be reached or refuses. DataError: `results` are none.
    """
    if not is_name(name):
        raise ConfigError(f"'{name}' is not a name on the Hugging Face Hub: give org/name or org/name@branch")
    tokenizer = model.require_tokenizer("pushed").serialized if isinstance(model, Recognizer) else None
    repository, branch = _split(name)
    metadata = ModelMetadata.from_dict(_public(model.metadata.to_dict()))
    if license is not None:
        metadata.license = license
    if results is not None:
        metadata.results = _results(Path(results))
    with tempfile.TemporaryDirectory() as scratch:
        save_model(scratch, model, tokenizer, metadata, name=name)
        with _sentences(repository, branch, ConfigError):
            from huggingface_hub import HfApi

            hub = HfApi()
            hub.create_repo(repository, private=private, exist_ok=True)
            if branch is not None:
                hub.create_branch(repository, branch=branch, exist_ok=True)
            done = hub.upload_folder(repo_id=repository, folder_path=scratch, revision=branch, commit_message=message)
    return str(done.commit_url)


def _split(source: str) -> tuple[str, str | None]:
    match = _NAME.fullmatch(source)
    assert match is not None
    return match.group(1), match.group(2)


def _public(value: Any) -> Any:
    """`value` without the folders of this machine: of an absolute path only the last part."""
    if isinstance(value, Mapping):
        return {key: _public(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(one) for one in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def _results(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    rows = content.get("results") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "wer" in row for row in rows):
        raise DataError(f"{path} has no word error rates: give the results.json that `avhubert evaluate --out` wrote")
    shared = {key: _public(content[key]) for key in ("data", "split") if key in content}
    kept = ("modality", "noise", "snr", "fault", "wer", "interval", "cer", "words", "clips")
    return [shared | {key: row[key] for key in kept if key in row} for row in rows]


@contextmanager
def _sentences(name: str, revision: str | None, without_extra: type[AvhubertError]) -> Iterator[None]:
    """The client's errors as one sentence each."""
    try:
        from huggingface_hub import errors
    except ImportError as error:
        raise without_extra(
            f"'{name}' is not here, and to ask the Hugging Face Hub for it needs its client: "
            "pip install 'avhubert[hub]'"
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
    except (errors.HTTPError, ConnectionError) as error:  # no answer at all, or HF_HUB_OFFLINE
        raise CheckpointError(f"the Hugging Face Hub cannot be reached for {name}: {_first_line(error)}") from error


def _refusal(name: str, error: Any) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return f"the Hugging Face Hub does not let you do this to {name}: log in ({_LOG_IN}) with a token that may"
    return f"the Hugging Face Hub answered {status} for {name}: {error.server_message or _first_line(error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
