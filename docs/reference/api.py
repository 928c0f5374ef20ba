"""Writes docs/api.md from the docstrings: python docs/reference/api.py"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import avhubert

TARGET = Path(__file__).with_name("api.md")
ROOMS = {
    "Preparing": (
        "avhubert.corpora.synthetic.writer.make_corpus",
        "avhubert.prepare.pipeline.prepare",
        "avhubert.prepare.mouth.mouth_clip",
        "avhubert.corpora.noise.make_noise",
    ),
    "Reading data": (
        "avhubert.data.manifest.read_manifest",
        "avhubert.data.video.read_frames",
        "avhubert.data.video.read_gray",
        "avhubert.data.video.transform",
        "avhubert.data.audio.read_audio",
        "avhubert.data.filterbank.audio_features",
        "avhubert.data.noise.mix",
        "avhubert.data.tokenizer.Tokenizer",
    ),
    "Clusters and training": (
        "avhubert.cluster.labels.cluster",
        "avhubert.config.compose.compose",
        "avhubert.train.pretrain.run",
        "avhubert.train.finetune.run",
    ),
    "Decoding and evaluating": (
        "avhubert.decode.beam_search.beam_search",
        "avhubert.evaluation.evaluate.evaluate",
        "avhubert.transcription.pipeline.Transcription",
        "avhubert.transcription.transcript.Transcript",
        "avhubert.transcription.transcript.Segment",
        "avhubert.transcription.transcript.Word",
        "avhubert.transcription.transcript.render",
    ),
}


def page() -> str:
    """The whole document."""
    parts = [
        "# Python API",
        "Made from the docstrings by `python docs/reference/api.py`. Shapes are in brackets: B clips, T frames of 25 a\n"
        "second, N samples of 16 000 a second, D features. Heavy parts load when they are first used.",
        "## `avhubert`",
    ]
    parts += [_entry(f"avhubert.{name}", getattr(avhubert, name)) for name in avhubert.__all__]
    for title, names in ROOMS.items():
        parts.append(f"## {title}")
        for name in names:
            module, _, last = name.rpartition(".")
            parts.append(_entry(name, getattr(importlib.import_module(module), last)))
    return "\n\n".join(parts) + "\n"


def _entry(name: str, thing: Any) -> str:
    lines = [f"### `{name}{_signature(thing)}`", _doc(thing)]
    if inspect.isclass(thing) and not issubclass(thing, Exception):
        for member, value in vars(thing).items():
            if member.startswith("_") or not inspect.getdoc(value):
                continue
            if isinstance(value, property):
                lines.append(f"**`.{member}`**: {_doc(value)}")
            elif isinstance(value, (staticmethod, classmethod)) or inspect.isfunction(value):
                function = value if inspect.isfunction(value) else value.__func__
                lines.append(f"**`.{member}{_signature(function)}`**\n\n{_doc(function)}")
    return "\n\n".join(line for line in lines if line)


def _signature(thing: Any) -> str:
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return ""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in found.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    return str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def _doc(thing: Any) -> str:
    """The docstring; its indented sections as lists."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    return "\n".join(f"- {line.strip()}" if line.startswith("    ") else line for line in lines)


if __name__ == "__main__":
    TARGET.write_text(page())
