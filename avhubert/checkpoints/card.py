"""The card of a model directory: `README.md`, which is readable as text and shown by the Hugging Face Hub.

The first lines (YAML between dashes) are for the Hub. Licence, training data and results are stated only if known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from avhubert.checkpoints.config_file import ModelFile, section_values
from avhubert.model.metadata import LabelSet, ModelMetadata

UNKNOWN = "unknown"
# keys of the metadata that are not in the table of the others
_OWN_ROWS = {"license", "attribution", "data", "results"}
_LABELS = ("clusters", "source", "layer", "rate")  # the fields of a label set that the card shows


def card(config: ModelFile, parameters: int, name: str | None = None) -> str:
    """The card of a model, in Markdown.

    Args:
        config: The model's `config.json`.
        parameters: The number of the model's parameters.
        name: The name on the Hugging Face Hub, for the example; None for a directory.
    """
    metadata = config.metadata
    recognizer = config.decoder is not None
    parts = [
        _front_matter(metadata, recognizer),
        f"# {'Audio-visual speech recognizer' if recognizer else 'AV-HuBERT, pre-trained'}",
        _table(["", ""], [*_sizes(config, parameters), *_decoding(config), *_provenance(metadata)]),
        "Input: 25 fps gray mouth clips of 88×88 and 16 kHz audio. Load it with "
        f"`avhubert.load({json.dumps(name) if name else 'directory'})`.",
        f"**Licence.** {_licence(metadata)}",
        *([f"**Training data.** {metadata.attribution}"] if metadata.attribution else []),
        *_results(metadata.results),
        "**Intended use.** Research, and captioning or assistance with the consent of the recorded people.",
        "**Sensitive.** Lip reading can transcribe people who cannot be heard and did not consent. Do not use it on\n"
        "recordings made without consent, nor for decisions about people: it makes many errors, unevenly between\n"
        "speakers, and many more on data unlike its training data (other languages, angles, light).",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(metadata: ModelMetadata, recognizer: bool) -> str:
    task = "automatic-speech-recognition" if recognizer else "feature-extraction"
    tags = ("audio-visual", "lip-reading", "av-hubert")
    lines = [f"license: {json.dumps(licence(metadata))}", "library_name: avhubert", f"pipeline_tag: {task}", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in tags), "---"])


def licence(metadata: ModelMetadata) -> str:
    """The Hub's identifier: the one of the metadata, else `other` for converted weights, else `unknown`."""
    return metadata.license or ("other" if metadata.converted_from is not None else UNKNOWN)


def _licence(metadata: ModelMetadata) -> str:
    if metadata.license:
        return f"These weights: {metadata.license}. The training data has its own terms."
    if metadata.converted_from is not None:
        return (
            "These weights were converted from a published checkpoint and keep its licence (Meta's AV-HuBERT weights: "
            "non-commercial research)."
        )
    return "Not stated: ask the author of the model. The training data has its own terms."


def _sizes(config: ModelFile, parameters: int) -> list[tuple[str, Any]]:
    model, decoder = config.model, config.decoder
    rows = [
        ("Parameters", f"{parameters / 1e6:.1f} M"),
        ("Encoder", f"{model.encoder_layers} layers, width {model.encoder_embed_dim}"),
        ("Visual front end", f"width {model.visual_width}, blocks {model.visual_blocks}"),
    ]
    if decoder is not None:
        ctc = " and CTC" if decoder.ctc else ""
        rows.append(("Decoder", f"{decoder.layers} layers{ctc}, {decoder.vocab_size} tokens"))
    return rows


def _decoding(config: ModelFile) -> list[tuple[str, Any]]:
    if config.decode is None:
        return []
    settings = section_values(config.decode)
    return [("Decoding", ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None))]


def _provenance(metadata: ModelMetadata) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = [("data", UNKNOWN if metadata.data is None else metadata.data)]
    for key, value in metadata.to_dict().items():
        if key == "labels" and metadata.labels:
            value = "; ".join(map(label_set, metadata.labels))
        if key not in _OWN_ROWS and value not in ({}, [], None):
            rows.append((key, value))
    return rows


def label_set(labels: LabelSet) -> str:
    """A label set in words, without its hashes."""
    values = {name: getattr(labels, name) for name in _LABELS}
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _results(results: list[dict[str, Any]] | None) -> list[str]:
    """A table of word error rates as `avhubert evaluate` writes them; nothing without results."""
    if not results:
        return []
    rows = []
    for row in results:
        low, high = row.get("interval") or (None, None)
        interval = "" if low is None else f"{low:.1f} to {high:.1f}"
        rows.append(
            (_data(row), row.get("modality", UNKNOWN), _condition(row), _wer(row), interval, row.get("clips", ""))
        )
    head = ["data", "modality", "condition", "WER, %", "95 % interval", "clips"]
    return ["**Results.** Word error rates, measured by `avhubert evaluate`:", _table(head, rows)]


def result_text(row: dict[str, Any]) -> str:
    """A row of `results` in words: data, modality, condition and word error rate."""
    return f"{_data(row)}, {row.get('modality', UNKNOWN)}, {_condition(row)}: WER {_wer(row)} %"


def _data(row: dict[str, Any]) -> str:
    return PurePath(str(row.get("data", UNKNOWN))).name + f", {row.get('split', 'test')}"


def _condition(row: dict[str, Any]) -> str:
    condition = "clean" if row.get("snr") is None else f"{row['snr']} dB {row.get('noise') or 'noise'}"
    return condition + (f", video: {row['fault']}" if row.get("fault") else "")


def _wer(row: dict[str, Any]) -> str:
    return f"{row['wer']:.1f}" if isinstance(row.get("wer"), (int, float)) else UNKNOWN


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[str(value).replace("|", "/").replace("\n", " ") for value in row] for row in rows]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in cells])
