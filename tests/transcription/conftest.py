"""Two people who talk, and a recognizer of random weights: what is tested is where things are read, not what."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import read_audio
from avhubert.data.tokenizer import Tokenizer, train_tokenizer
from avhubert.data.video import read_frames
from avhubert.model.recognizer import Recognizer


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [T, H, W, 3] at 25 fps and sound int16 [640 T] of one drawn person who says a sentence."""
    root = tmp_path_factory.mktemp("talk")
    make_corpus(root, 4, speakers=2, seed=9)
    path = min(root.rglob("*.mp4"))
    pictures, sound = np.stack(list(read_frames(path))), read_audio(path)
    return pictures, np.pad(sound, (0, len(pictures) * 640))[: len(pictures) * 640]


@pytest.fixture(scope="session")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    torch.manual_seed(3)
    model = ModelConfig(
        visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=1, encoder_embed_dim=16, encoder_ffn_embed_dim=32,
        encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("letters") / "tokenizer.model"
    path.write_bytes(train_tokenizer(["a b", "ab ba", "b a b", "aa bb", "abba", "b", "a", "ab ab a"], 7).serialized)
    decoder = DecoderConfig(layers=1, ffn_embed_dim=32, attention_heads=2, vocab_size=7, ctc=True)
    found = Recognizer.from_config(model, decoder).eval()
    found.tokenizer = Tokenizer(path)
    # always six different symbols, so that every segment has words
    found.decode_settings = DecodeConfig(beam=1, min_len=6, max_len_a=0.0, max_len_b=6, no_repeat_ngram=1)
    return found
