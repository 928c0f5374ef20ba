"""What works without any extra; `python tests/minimal_install.py FOLDER` runs where only the core is installed.

The quick tests run it with the modules of all extras blocked, `make matrix` in an environment with the core only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from avhubert.checkpoints.directory import save_model
from avhubert.cli import main
from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.data.audio import write_wav
from avhubert.data.tokenizer import train_tokenizer
from avhubert.model.recognizer import Recognizer


def run(*words: str) -> None:
    """Run a command; it must succeed."""
    code = main(words)
    assert code == 0, f"{words} ended with exit code {code}"


def check(folder: Path) -> None:
    """Save, describe and use a recognizer with random weights."""
    model = ModelConfig(
        visual_width=4, visual_blocks=[1, 1, 1, 1], encoder_layers=1, encoder_embed_dim=16, encoder_ffn_embed_dim=16,
        encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2,
    )  # fmt: skip
    decoder = DecoderConfig(layers=1, ffn_embed_dim=16, attention_heads=2, vocab_size=7, ctc=True)
    tokenizer = train_tokenizer(["a b", "ab ba", "b a b", "aa bb", "abba", "b", "a", "ab ab a"], 7).serialized
    save_model(folder / "model", Recognizer.from_config(model, decoder).eval(), tokenizer)
    write_wav(folder / "noise.wav", np.random.default_rng(0).normal(0, 3000, 32000).astype(np.int16))
    run("info", str(folder / "model"))
    run("transcribe", str(folder / "noise.wav"), "--model", str(folder / "model"), "--out", str(folder / "text"))
    assert (folder / "text" / "noise.txt").is_file()
    assert main(["doctor"]) == 1  # the face detector is an extra


if __name__ == "__main__":
    check(Path(sys.argv[1]))
