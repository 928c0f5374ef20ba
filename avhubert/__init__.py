"""Audio-visual speech recognition with AV-HuBERT: data preparation, training, transcription.

Modules are imported when one of their names is first used, so that `import avhubert` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from avhubert.checkpoints.directory import save
    from avhubert.checkpoints.hub import push_to_hub
    from avhubert.checkpoints.load import load
    from avhubert.errors import AvhubertError, CheckpointError, ConfigError, DataError, MediaError
    from avhubert.features.extract import extract_features
    from avhubert.live.recognizer import LiveRecognizer
    from avhubert.model.encoder import AVHubert
    from avhubert.model.recognizer import Recognizer
    from avhubert.transcription.people import transcribe_people
    from avhubert.transcription.pipeline import transcribe

_HOMES = {
    "AVHubert": "avhubert.model.encoder",
    "LiveRecognizer": "avhubert.live.recognizer",
    "Recognizer": "avhubert.model.recognizer",
    "extract_features": "avhubert.features.extract",
    "load": "avhubert.checkpoints.load",
    "push_to_hub": "avhubert.checkpoints.hub",
    "save": "avhubert.checkpoints.directory",
    "transcribe": "avhubert.transcription.pipeline",
    "transcribe_people": "avhubert.transcription.people",
    "AvhubertError": "avhubert.errors",
    "CheckpointError": "avhubert.errors",
    "ConfigError": "avhubert.errors",
    "DataError": "avhubert.errors",
    "MediaError": "avhubert.errors",
}

__all__ = [
    "AVHubert",
    "AvhubertError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "LiveRecognizer",
    "MediaError",
    "Recognizer",
    "extract_features",
    "load",
    "push_to_hub",
    "save",
    "transcribe",
    "transcribe_people",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'avhubert' has no attribute '{name}'")


def _version() -> str:
    """The version of the installed package; pyproject.toml defines it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("avhubert")
    except PackageNotFoundError:  # the sources are on PYTHONPATH and not installed
        return "0.0.0+uninstalled"
