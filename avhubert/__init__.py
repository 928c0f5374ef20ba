"""avhubert: audio-visual speech in one package. Heavy parts load when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from avhubert.errors import AvhubertError, CheckpointError, ConfigError, DataError, MediaError
    from avhubert.extract import extract_features
    from avhubert.interop.hub import push_to_hub
    from avhubert.loading import load
    from avhubert.model.encoder import AVHubert
    from avhubert.model.recognizer import Recognizer
    from avhubert.transcription.people import transcribe_people
    from avhubert.transcription.pipeline import transcribe

_HOMES = {
    "AVHubert": "avhubert.model.encoder",
    "Recognizer": "avhubert.model.recognizer",
    "extract_features": "avhubert.extract",
    "load": "avhubert.loading",
    "push_to_hub": "avhubert.interop.hub",
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
    "MediaError",
    "Recognizer",
    "extract_features",
    "load",
    "push_to_hub",
    "transcribe",
    "transcribe_people",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'avhubert' has no attribute '{name}'")
