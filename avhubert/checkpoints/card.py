"""The card of a model directory: `README.md` as the Hugging Face Hub shows it, and as plain text.

Its first lines (YAML between dashes) are for the Hub; licence, training data and results are said only where known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

UNKNOWN = "unknown"


_OWN_ROWS = {"license", "data", "results"}  # of the metadata: they have their own places


_LABELS = ("clusters", "source", "layer", "rate")  # of a label set's figures; the others are hashes


def card(config: Mapping[str, Any], parameters: int, name: str | None = None) -> str:
    """The card, in Markdown, of the model with this `config.json` and number of parameters.

    `name`: what `avhubert.load` takes, where that is not a directory. Of the metadata are shown `license` (an
    identifier of the Hub), `data` (what it was trained on), `results` (rows with `modality`, `snr`, `wer` …) and the
    rest as it is.
    """
    metadata = config["metadata"]
    recognizer = "decoder" in config
    parts = [
        _front_matter(metadata, recognizer),
        f"# {'Audio-visual speech recognizer' if recognizer else 'AV-HuBERT, pre-trained'}",
        _table(["", ""], [*_sizes(config, parameters), *_decoding(config), *_provenance(metadata)]),
        "Input: 25 fps gray mouth clips of 88×88 and 16 kHz sound. Load it with "
        f"`avhubert.load({json.dumps(name) if name else 'directory'})`.",
        f"**Licence.** {_licence(metadata)}",
        *_results(metadata.get("results")),
        "**Intended use.** Research, and tools that the people shown agreed to: captioning, assistance.",
        "**Sensitive.** Lip reading can take words from people who are not heard and did not consent. Do not use it\n"
        "on recordings made without consent, nor for decisions about people: it errs often, unevenly between\n"
        "speakers, and much more often far from its training data (other languages, angles, light).",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(metadata: Mapping[str, Any], recognizer: bool) -> str:
    task = "automatic-speech-recognition" if recognizer else "feature-extraction"
    tags = ("audio-visual", "lip-reading", "av-hubert")
    lines = [f"license: {json.dumps(licence(metadata))}", "library_name: avhubert", f"pipeline_tag: {task}", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in tags), "---"])


def licence(metadata: Mapping[str, Any]) -> str:
    """The Hub's identifier: what was said, `other` for converted weights, else `unknown`."""
    return str(metadata.get("license") or ("other" if "converted_from" in metadata else UNKNOWN))


def _licence(metadata: Mapping[str, Any]) -> str:
    if metadata.get("license"):
        return f"These weights: {metadata['license']}. The data that they learned from has its own terms."
    if "converted_from" in metadata:
        return (
            "These weights were converted from a published checkpoint, whose licence they keep (Meta's AV-HuBERT "
            "weights: non-commercial research)."
        )
    return "Not stated: ask who trained it. The data that it learned from has its own terms."


def _sizes(config: Mapping[str, Any], parameters: int) -> list[tuple[str, Any]]:
    sizes = config["model"]
    rows = [
        ("Parameters", f"{parameters / 1e6:.1f} M"),
        ("Encoder", f"{sizes['encoder_layers']} layers, width {sizes['encoder_embed_dim']}"),
        ("Visual front end", f"width {sizes['visual_width']}, blocks {sizes['visual_blocks']}"),
    ]
    if "decoder" in config:
        decoder = config["decoder"]
        ctc = " and CTC" if decoder["ctc"] else ""
        rows.append(("Decoder", f"{decoder['layers']} layers{ctc}, {decoder['vocab_size']} tokens"))
    return rows


def _decoding(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    if "decode" not in config:
        return []
    return [("Decoding", ", ".join(f"{key} {value}" for key, value in config["decode"].items() if value is not None))]


def _provenance(metadata: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = [("data", metadata.get("data", UNKNOWN))]
    for key, value in metadata.items():
        if key == "labels" and isinstance(value, list):
            value = "; ".join(label_set(labels) for labels in value)
        if key not in _OWN_ROWS and value not in ({}, [], None):
            rows.append((key, value))
    return rows


def label_set(labels: Any) -> str:
    """A label set of the metadata in words, without its hashes."""
    if not isinstance(labels, dict):
        return str(labels)
    return ", ".join(f"{key} {labels[key]}" for key in _LABELS if labels.get(key) is not None)


def _results(results: Any) -> list[str]:
    """A table of figures as `avhubert evaluate` writes them; nothing where there are none."""
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results) or not results:
        return []
    rows = []
    for row in results:
        condition = "clean" if row.get("snr") is None else f"{row['snr']} dB {row.get('noise') or 'noise'}"
        condition += f", picture: {row['fault']}" if row.get("fault") else ""
        low, high = row.get("interval") or (None, None)
        between = "" if low is None else f"{low:.1f} to {high:.1f}"
        wer = f"{row['wer']:.1f}" if isinstance(row.get("wer"), (int, float)) else UNKNOWN
        on = PurePath(str(row.get("data", UNKNOWN))).name + f", {row.get('split', 'test')}"
        rows.append((on, row.get("modality", UNKNOWN), condition, wer, between, row.get("clips", "")))
    head = ["data", "modality", "condition", "WER, %", "95 % interval", "clips"]
    return ["**Results.** Word error rates, measured by `avhubert evaluate`:", _table(head, rows)]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[str(value).replace("|", "/").replace("\n", " ") for value in row] for row in rows]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in cells])
