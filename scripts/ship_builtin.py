"""Puts a recognizer into the package as its built-in model: weights in half precision, and a card with its results.

    python scripts/ship_builtin.py runs/builtin/model --results runs/builtin/eval/results.json

The last stage of `scripts/train_builtin.py` calls it. The sample clip beside the model stays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from avhubert.checkpoints.builtin import DIRECTORY
from avhubert.checkpoints.directory import WEIGHTS, save_model
from avhubert.checkpoints.hub import read_results
from avhubert.checkpoints.load import load_recognizer
from avhubert.constants import MODALITIES
from avhubert.model.metadata import ModelMetadata

MAX_BYTES = 8_000_000  # of the weights
LICENSE = "apache-2.0"
DATA = "clips of the GRID corpus, and synthetic faces"
ATTRIBUTION = (
    'The GRID audiovisual sentence corpus: M. Cooke, J. Barker, S. Cunningham and X. Shao, "An audio-visual corpus for '
    'speech perception and automatic speech recognition", Journal of the Acoustical Society of America 120 (2006), '
    "2421–2424; licence CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). The model is derived from its clips; "
    "it contains none of them. The synthetic faces are made by `avhubert synth`."
)


def ship(
    source: Path,
    results: Sequence[Path] = (),
    out: Path = DIRECTORY,
    grid: bool = True,
    ctc_weight: float | None = None,
) -> int:
    """Write the built-in model.

    Args:
        source: A fine-tuned model that reads a, v and av.
        results: Files `results.json` of `avhubert evaluate`, for the card.
        out: The folder to write.
        grid: Whether the model was trained on GRID too.
        ctc_weight: Weight of CTC in decoding; None: that of the model.

    Returns:
        The size of the weights in bytes.
    """
    recognizer = load_recognizer(source)
    trained = recognizer.metadata
    supported = trained.supported_modalities()
    if set(supported) != set(MODALITIES):
        sys.exit(f"{source} reads {', '.join(supported)}, and the built-in model must read {', '.join(MODALITIES)}")
    metadata = ModelMetadata(
        stage=trained.stage,
        step=trained.step,
        seed=trained.seed,
        averaged=trained.averaged,
        modalities=trained.modalities,
        longest_frames=trained.longest_frames,
        ctc_weight=trained.ctc_weight,
        noise=trained.noise,
        data=DATA if grid else "synthetic faces",
        license=LICENSE,
        attribution=ATTRIBUTION if grid else "Synthetic faces made by `avhubert synth`; no recording of a person.",
        results=[row for file in results for row in read_results(file)] or None,
    )
    if ctc_weight is not None:
        recognizer.decode_settings = replace(recognizer.decode_settings, ctc_weight=ctc_weight)
    tokenizer = recognizer.require_tokenizer("shipped").serialized
    save_model(out, recognizer, tokenizer, metadata, name="builtin", dtype=torch.float16)
    size = (out / WEIGHTS).stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"{out / WEIGHTS} has {size} bytes, and at most {MAX_BYTES} are allowed")
    return size


def main() -> None:
    """Ship the model that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model directory")
    parser.add_argument("--results", type=Path, action="append", default=[], help="results.json; repeatable")
    parser.add_argument("--synthetic-only", action="store_true", help="the model was trained on synthetic faces alone")
    parser.add_argument(
        "--ctc-weight", type=float, metavar="W", help="weight of CTC in decoding (default: the model's)"
    )
    options = parser.parse_args()
    size = ship(options.model, options.results, grid=not options.synthetic_only, ctc_weight=options.ctc_weight)
    print(f"{DIRECTORY}: {size:,} bytes of weights")


if __name__ == "__main__":
    main()
