"""Small AVista folders with random weights, in the layout of the published ones."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from avhubert.checkpoints.avista.names import EMBEDDING, OUTPUT, POSITIONS, module_names
from avhubert.checkpoints.fairseq.names import published_name
from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.data.tokenizer import Tokenizer, train_tokenizer
from avhubert.model.decoder import interleaved_sinusoid
from avhubert.model.encoder import AVHubert
from avhubert.model.recognizer import Recognizer

SIZES = ModelConfig(
    visual_width=4,
    visual_blocks=[1, 1, 1, 1],
    encoder_layers=1,
    encoder_embed_dim=16,
    encoder_ffn_embed_dim=16,
    encoder_attention_heads=2,
    conv_pos=4,
    conv_pos_groups=2,
)
LONGEST_TEXT = 32
TEXTS = ("今日は天気です", "日本の音声認識", "口の動きと映像", "おおきな明日は電車")
CARD = "---\nlicense: apache-2.0\nlanguage: ja\n---\n# A small model\n"
PREPROCESSING = {
    "feature_extractor_type": "AVHubertFeatureExtractor",
    "image_crop_size": 88,
    "landmark_indices": [5, 411, 199, 187],
    "normalize": True,
    "sr": 16000,
    "stack_order_audio": 4,
    "transforms": [{"transforms_type": "Normalize", "mean": "[0.421]", "std": "[0.165]"}],
}


def write_recognizer(folder: Path, shared: bool = True, safetensors: bool = False) -> Path:
    """Write the folder of a recognizer, with `pytorch_model.bin` unless `safetensors`; returns it."""
    tokenizer = train_tokenizer(TEXTS, 60)
    size = tokenizer.vocab_size
    decoder = DecoderConfig(
        layers=1,
        ffn_embed_dim=16,
        attention_heads=2,
        activation="gelu",
        positions="interleaved",
        start="<s>",
        shared_embedding=shared,
        longest_text=LONGEST_TEXT,
        vocab_size=size,
    )
    torch.manual_seed(1)
    state = renamed(Recognizer.from_config(SIZES, decoder), decoder)
    # in a folder <unk> is first and <s>, </s> and <pad> are last
    order = torch.tensor([3, *range(4, size), 0, 2, 1])
    for name in {EMBEDDING, OUTPUT} & state.keys():
        state[name] = state[name][order].contiguous()
    state[POSITIONS] = interleaved_sinusoid(torch.arange(LONGEST_TEXT), SIZES.encoder_embed_dim)
    if shared:
        state[OUTPUT] = state[EMBEDDING]
    folder.mkdir(parents=True)
    write_weights(folder, state, safetensors)
    config = {
        **encoder_values("AVHubertForConditionalGeneration"),
        "decoder_layers": 1,
        "decoder_embed_dim": SIZES.encoder_embed_dim,
        "decoder_ffn_embed_dim": 16,
        "decoder_attention_heads": 2,
        "decoder_normalize_before": False,
        "max_target_positions": LONGEST_TEXT,
        "share_decoder_input_output_embed": shared,
        "vocab_size": size,
        "bos_token_id": size - 3,
        "eos_token_id": size - 2,
        "pad_token_id": size - 1,
        "auto_map": {"AutoModelForSpeechSeq2Seq": "modeling_avhubert.AVHubertForConditionalGeneration"},
    }
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer.json", tokenizer_values(tokenizer))
    write_json(folder / "preprocessor_config.json", PREPROCESSING)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return folder


def write_pretrained(folder: Path, **changes: Any) -> Path:
    """Write the folder of a pre-trained model; returns it."""
    torch.manual_seed(1)
    folder.mkdir(parents=True)
    write_weights(folder, renamed(AVHubert(SIZES), None), safetensors=True)
    write_json(folder / "config.json", encoder_values("AVHubertModel") | changes)
    return folder


def encoder_values(architecture: str) -> dict[str, Any]:
    return {
        "model_type": "avhubert",
        "architectures": [architecture],
        "activation_fn": "gelu",
        "audio_feat_dim": SIZES.audio_feat_dim,
        "do_stable_layer_norm": True,
        "encoder_layers": SIZES.encoder_layers,
        "encoder_embed_dim": SIZES.encoder_embed_dim,
        "encoder_ffn_embed_dim": SIZES.encoder_ffn_embed_dim,
        "encoder_attention_heads": SIZES.encoder_attention_heads,
        "conv_pos": SIZES.conv_pos,
        "conv_pos_groups": SIZES.conv_pos_groups,
    }


def renamed(model: AVHubert | Recognizer, decoder: DecoderConfig | None) -> dict[str, Tensor]:
    table = module_names(SIZES, decoder)
    return {str(published_name(ours, table)): x.contiguous() for ours, x in model.state_dict().items()}


def tokenizer_values(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of a `tokenizer.json` with the pieces of a SentencePiece model."""
    processor = tokenizer._processor
    scores = {processor.IdToPiece(number): processor.GetScore(number) for number in range(len(processor))}
    pieces = tokenizer.symbols[4:]
    last = len(pieces) + 1
    added = {"<unk>": 0, "<s>": last, "</s>": last + 1, "<pad>": last + 2}
    properties = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": name, **properties} for name, number in added.items()],
        "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": None,
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [["<unk>", 0.0], *([piece, scores[piece]] for piece in pieces)],
            "byte_fallback": False,
        },
    }


def write_weights(folder: Path, state: dict[str, Tensor], safetensors: bool) -> None:
    if safetensors:
        save_file({name: x.clone() for name, x in state.items()}, folder / "model.safetensors", {"format": "pt"})
    else:
        torch.save(OrderedDict(state), folder / "pytorch_model.bin")


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
