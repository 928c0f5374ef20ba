"""Published AV-HuBERT checkpoints (`.pt`, fairseq's layout), both ways, with neither fairseq nor omegaconf installed.

`module_names` is the one table between our tensor names and the published ones, read in both directions. It is strict:
a tensor that it does not know, or that the file lacks, is an error that names it. Tensors that a recognizer has no use
for (JUNK, UNUSED_IN_RECOGNIZERS) are listed here by name; the ones that a published file needs are kept beside the
converted model in KEPT, with the original's configuration, for the way back.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import re
import types
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from avhubert.config import MODALITIES, DecoderConfig, ModelConfig
from avhubert.data.text import SPECIALS, Tokenizer
from avhubert.errors import CheckpointError, ConfigError, DataError
from avhubert.files import atomic_directory, atomic_path, output_directory
from avhubert.interop.torchfile import Record, TensorRecord, TorchFile, printable
from avhubert.model.encoder import AVHubert
from avhubert.model.recognizer import Recognizer
from avhubert.model.store import TOKENIZER, load_model, read_config, save_model

KEPT = "published.safetensors"  # beside a converted model: what the way back needs and our model does not

JUNK = ("decoder.version", "decoder.embed_positions._float_tensor")  # never learned, never read
UNUSED_IN_RECOGNIZERS = ("mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias")  # of the encoder

SHARING = 4  # tensors may share numbers in a file (tied weights); ours do not: at most this many times the file's size

ENCODER = "encoder.w2v_model."  # where a fine-tuned file has the encoder
RESNET = "feature_extractor_video.resnet."


# --------------------------------------------------------------------------- the table
def module_names(config: ModelConfig, decoder: DecoderConfig | None) -> dict[str, str]:
    """Our module or parameter names → published ones; the last part of a tensor's name is the same."""
    pairs = dict(_encoder_names(config))
    if decoder is None:
        return pairs
    return {f"encoder.{ours}": ENCODER + theirs for ours, theirs in pairs.items()} | dict(_decoder_names(decoder))


def _encoder_names(config: ModelConfig) -> Iterator[tuple[str, str]]:
    yield "mask_embedding", "mask_emb"
    yield "head.class_embeddings", "label_embs_concat"
    yield "head.projection", "final_proj"
    yield "audio", "feature_extractor_audio.proj"
    yield "visual.projection", "feature_extractor_video.proj"
    yield "visual.stem_conv", f"{RESNET}frontend3D.0"
    yield "visual.stem_norm", f"{RESNET}frontend3D.1"
    yield "visual.stem_activation", f"{RESNET}frontend3D.2"
    for stage, blocks in enumerate(config.visual_blocks):
        for block in range(blocks):
            ours, theirs = f"visual.stages.{stage}.{block}", f"{RESNET}trunk.layer{stage + 1}.{block}"
            for number in (1, 2):
                yield f"{ours}.conv{number}", f"{theirs}.conv{number}"
                yield f"{ours}.norm{number}", f"{theirs}.bn{number}"
                yield f"{ours}.activation{number}", f"{theirs}.relu{number}"
            yield f"{ours}.shortcut_conv", f"{theirs}.downsample.0"
            yield f"{ours}.shortcut_norm", f"{theirs}.downsample.1"
    yield "fusion_norm", "layer_norm"
    yield "fusion_projection", "post_extract_proj"
    yield "encoder.position.bias", "encoder.pos_conv.0.bias"
    yield "encoder.position.gain", "encoder.pos_conv.0.weight_g"
    yield "encoder.position.direction", "encoder.pos_conv.0.weight_v"
    for layer in range(config.encoder_layers):
        ours, theirs = f"encoder.layers.{layer}", f"encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield f"{ours}.attention.{part}", f"{theirs}.self_attn.{part}"
        yield f"{ours}.attention_norm", f"{theirs}.self_attn_layer_norm"
        yield f"{ours}.fc1", f"{theirs}.fc1"
        yield f"{ours}.fc2", f"{theirs}.fc2"
        yield f"{ours}.ffn_norm", f"{theirs}.final_layer_norm"
    yield "encoder.norm", "encoder.layer_norm"


def _decoder_names(decoder: DecoderConfig) -> Iterator[tuple[str, str]]:
    yield "decoder.embedding", "decoder.embed_tokens"
    for layer in range(decoder.layers):
        ours = theirs = f"decoder.layers.{layer}"
        for attention, published in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                yield f"{ours}.{attention}.{part}", f"{theirs}.{published}.{part}"
            yield f"{ours}.{attention}_norm", f"{theirs}.{published}_layer_norm"
        yield f"{ours}.fc1", f"{theirs}.fc1"
        yield f"{ours}.fc2", f"{theirs}.fc2"
        yield f"{ours}.ffn_norm", f"{theirs}.final_layer_norm"
    yield "decoder.norm", "decoder.layer_norm"


def published_name(ours: str, table: dict[str, str]) -> str | None:
    """The published name of one of our tensors; None for one that published models do not have."""
    if ours in table:
        return table[ours]
    module, _, leaf = ours.rpartition(".")
    return f"{table[module]}.{leaf}" if module in table else None


# --------------------------------------------------------------------------- reading
@dataclass
class Published:
    """A published checkpoint: our configurations, tensors by published name, and what stands around them."""

    path: Path
    model: ModelConfig
    decoder: DecoderConfig | None  # None: a pre-trained model
    tensors: dict[str, Tensor]
    cfg: dict[str, Any]  # plain dicts, lists and scalars
    dictionaries: list[dict[str, Any]]  # of the clusters: symbols and counts
    words: dict[str, Any] | None  # dictionary of the tokens
    tokenizer: bytes | None
    notes: list[str] = field(default_factory=list)  # what was assumed

    @property
    def prefix(self) -> str:
        """Where the encoder's names begin."""
        return "" if self.decoder is None else ENCODER


def read(path: str | Path) -> Published:
    """Read a published `.pt`; nothing in it is executed.

    Raises CheckpointError in one sentence: not such a file, damaged, or naming something that no published checkpoint
    needs.
    """
    file = TorchFile(path)
    content = file.content
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(f"{path} is not a published AV-HuBERT checkpoint: it has no state dict under 'model'")
    records = content["model"]
    wrong = [
        name if isinstance(name, str) else f"a key of type {type(name).__name__}"
        for name, record in records.items()
        if not isinstance(record, TensorRecord) or not isinstance(name, str)
    ]
    if wrong:
        raise CheckpointError(f"{path}: under 'model' there is something that is not a tensor: {_listed(wrong)}")
    lengths = (math.prod(record.size) * record.storage.dtype.itemsize for record in records.values())
    if sum(min(length, file.length) for length in lengths) > SHARING * file.length:
        raise CheckpointError(f"{path} is refused: its tensors share their numbers, and are too large without that")
    cfg = _plain(content.get("cfg") or content.get("args") or {}, path)
    if not isinstance(cfg, dict):
        raise CheckpointError(f"{path}: its configuration is not made of keys and values")
    sizes = {name: record.size for name, record in records.items()}
    state = content.get("task_state")
    state = state if isinstance(state, dict) else {}
    listed = state.get("dictionaries")
    dictionaries = [_dictionary(item, path) for item in (listed if isinstance(listed, list) else [])]
    words = _dictionary(state["target_dictionary"], path) if state.get("target_dictionary") else None
    notes: list[str] = []
    recognizer = any(name.startswith(ENCODER) for name in sizes)
    settings = _Settings(cfg, sizes, recognizer, notes, Path(path))
    model, decoder = settings.encoder([len(item["symbols"]) for item in dictionaries]), settings.decoder()
    tensors = {name: file.tensor(record) for name, record in records.items()}
    return Published(Path(path), model, decoder, tensors, cfg, dictionaries, words, _tokenizer(state), notes)


def load(path: str | Path) -> AVHubert | Recognizer:
    """The model of a published `.pt` in evaluation mode; a recognizer with `.tokenizer` where the file has one.

    Raises CheckpointError: see `read`; a tensor that is missing or left over, or has another shape, is named.
    """
    return build(read(path))


def build(published: Published) -> AVHubert | Recognizer:
    """The model of what `read` gave, in evaluation mode."""
    path = published.path
    model = _without_numbers(published)
    table = module_names(published.model, published.decoder)
    ours = {name: published_name(name, table) for name in model.state_dict()}
    missing = [theirs for name, theirs in ours.items() if theirs not in published.tensors]
    left_over = [name for name in published.tensors if name not in ours.values() and name not in _unused(published)]
    for what, names in (("lacks", missing), ("has the unknown", left_over)):
        if names:
            raise CheckpointError(
                f"{path} {what} tensor{'s' * (len(names) > 1)} {_listed(names)}: "
                "it is not a model that this package knows"
            )
    expected = model.state_dict()
    for name, theirs in ours.items():
        if published.tensors[str(theirs)].shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {theirs} is {list(published.tensors[str(theirs)].shape)}, "
                f"its configuration asks for {list(expected[name].shape)}"
            )
    model.to_empty(device="cpu")  # in our dtypes and memory formats, which assigned tensors would not have
    model.load_state_dict({name: published.tensors[str(theirs)] for name, theirs in ours.items()})
    model.metadata = metadata(published)
    if isinstance(model, Recognizer) and published.tokenizer is not None:
        model.tokenizer = _checked_tokenizer(published)
    return model.eval()


def _without_numbers(published: Published) -> AVHubert | Recognizer:
    """The model on the meta device: a configuration may ask for any size, only the file's tensors take memory."""
    path, config, decoder = published.path, published.model, published.decoder
    parts = config.encoder_layers + sum(config.visual_blocks) + (decoder.layers if decoder else 0)
    if parts > len(published.tensors):
        raise CheckpointError(f"{path}: its configuration asks for {parts} layers and blocks; its tensors are fewer")
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return AVHubert(config) if decoder is None else Recognizer.from_config(config, decoder)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (RuntimeError, TypeError, OverflowError) as error:  # of torch, for sizes beyond 64 bits
        raise CheckpointError(f"{path}: its configuration asks for impossible sizes") from error


def metadata(published: Published) -> dict[str, Any]:
    """What a converted model's `config.json` says of where it came from."""
    told: dict[str, Any] = {"converted_from": published.path.name}
    task = published.cfg.get("task")
    streams = task.get("modalities") if isinstance(task, dict) else None
    if published.decoder is not None and isinstance(streams, list):
        told["fine_tuned_on"] = ", ".join(map(str, streams))
    if published.notes:
        told["assumed"] = "; ".join(published.notes)
    return told


def _unused(published: Published) -> set[str]:
    """Published names that our model has no place for: known, and therefore no left-overs."""
    if published.decoder is None:
        return set()
    return {*JUNK, *(ENCODER + name for name in UNUSED_IN_RECOGNIZERS)}


def _checked_tokenizer(published: Published) -> Tokenizer:
    assert published.tokenizer is not None
    assert published.decoder is not None
    try:
        tokenizer = Tokenizer(published.tokenizer)
    except DataError as error:
        raise CheckpointError(f"{published.path}: {error}") from error
    symbols = published.words["symbols"] if published.words else tokenizer.symbols
    if symbols != tokenizer.symbols or len(symbols) != published.decoder.vocab_size:
        raise CheckpointError(
            f"{published.path}: its tokenizer has {tokenizer.vocab_size} symbols, its dictionary {len(symbols)} and "
            f"its decoder {published.decoder.vocab_size}, or in another order: they do not belong together"
        )
    return tokenizer


# --------------------------------------------------------------------------- a published file → a model directory
def convert(path: str | Path, directory: str | Path) -> list[str]:
    """Write the model directory of a published `.pt`; returns what was assumed, a sentence each.

    What only the way back needs (see KEPT) lies beside the model. Raises CheckpointError: see `load`; a recognizer
    without a tokenizer, which could write no text. ConfigError: `directory` exists or cannot be written.
    """
    if Path(path).is_dir():
        raise CheckpointError(
            f"{path} is a folder, not a published checkpoint (.pt); --to-fairseq makes one of a model directory"
        )
    published = read(path)
    model = build(published)
    if published.decoder is not None and published.tokenizer is None:
        raise CheckpointError(f"{path} is a recognizer without its tokenizer, so its output cannot become text")
    _refuse_existing(directory)
    output_directory(Path(directory).parent)
    kept = {
        name: published.tensors[name].contiguous() for name in sorted(_unused(published)) if name in published.tensors
    }
    around = {"cfg": published.cfg, "dictionaries": published.dictionaries, "words": published.words}
    with atomic_directory(directory) as temporary:
        save_model(temporary, model, published.tokenizer, metadata(published))
        save_file(kept, temporary / KEPT, metadata={"published": json.dumps(around)})
    return published.notes


def _refuse_existing(path: str | Path) -> None:
    if Path(path).exists():
        raise ConfigError(f"{path} exists already; choose another place or delete it")


# --------------------------------------------------------------------------- a model directory → a published file
def to_fairseq(directory: str | Path, path: str | Path) -> list[str]:
    """Write a model directory as a published `.pt`, for the original code; returns what does not fit, a sentence each.

    A model that was converted from a `.pt` gets back that file's names, shapes, configuration and dictionaries. One
    that was trained here gets a configuration with the original's keys; a CTC head has no place there: it is left out.

    Raises CheckpointError: not a model directory, damaged. ConfigError: `path` exists or cannot be written.
    """
    directory = Path(directory)
    model = load_model(directory)
    _refuse_existing(path)
    told = read_config(directory)
    encoder, decoder = told["model"], told.get("decoder")
    table = module_names(encoder, decoder)
    tensors: dict[str, Tensor] = {}
    left_out = []
    for name, tensor in model.state_dict().items():
        theirs = published_name(name, table)
        if theirs is None:
            left_out.append(name)
        else:
            tensors[theirs] = tensor
    tokenizer = _read_tokenizer(directory) if decoder is not None else None
    if (directory / KEPT).is_file():
        kept, around = _read_kept(directory / KEPT)
    else:
        kept, around = _made_here(encoder, decoder, told, tokenizer)
    dictionaries = [_Dictionary(item) for item in around["dictionaries"]]
    state: dict[str, Any] = {"dictionaries": dictionaries}
    if tokenizer is not None:
        state["target_dictionary"] = _Dictionary(around["words"])
        state["s2s_tokenizer"] = _SentencepieceBPE(tokenizer.serialized)
    content = {
        "args": None, "cfg": around["cfg"], "model": {**tensors, **kept}, "criterion": None,
        "optimizer_history": [_history(decoder, told)], "task_state": state,
        "extra_state": {"train_iterator": {"epoch": 1}}, "last_optimizer_state": None,
    }  # fmt: skip
    output_directory(Path(path).parent)
    with atomic_path(path) as temporary:
        torch.save(content, temporary, pickle_module=_PICKLE)
    return _misfits(encoder, left_out)


def _misfits(encoder: ModelConfig, left_out: list[str]) -> list[str]:
    notes = []
    if left_out:
        notes.append(f"left out, for the published layout has no CTC head: {_listed(left_out)}")
    fixed = {"visual_width": 64, "visual_blocks": [2, 2, 2, 2]}
    odd = [f"{key}={getattr(encoder, key)}" for key, value in fixed.items() if getattr(encoder, key) != value]
    if odd:
        notes.append(f"the published code cannot build {', '.join(odd)}; only this package reads the file")
    return notes


def _read_tokenizer(directory: Path) -> Tokenizer:
    try:
        return Tokenizer(directory / TOKENIZER)
    except DataError as error:
        raise CheckpointError(f"{directory} is a recognizer without a usable tokenizer: {error}") from error


def _read_kept(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            around = json.loads(file.metadata()["published"])
            return {name: file.get_tensor(name) for name in file.keys()}, around  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); convert the published file again") from error


def _made_here(
    encoder: ModelConfig, decoder: DecoderConfig | None, told: dict[str, Any], tokenizer: Tokenizer | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, configuration and dictionaries that a published file has around a model that was trained here."""
    classes = encoder.num_classes or [len(SPECIALS)]
    dictionaries = []
    for count in classes:
        symbols = [*SPECIALS, *map(str, range(count - len(SPECIALS)))]
        dictionaries.append({"symbols": symbols, "count": [1] * count})
    cfg = _pretraining_cfg(encoder, told)
    if decoder is None:
        return {}, {"cfg": cfg, "dictionaries": dictionaries, "words": None}
    assert tokenizer is not None
    masked = encoder.audio_feat_dim if encoder.masking_type == "input" else encoder.encoder_embed_dim
    kept = {  # the original makes them and never reads them
        ENCODER + "mask_emb": torch.zeros(masked),
        ENCODER + "label_embs_concat": torch.zeros(sum(classes), encoder.final_dim),
    }
    words = {"symbols": tokenizer.symbols, "count": [1] * tokenizer.vocab_size}
    around = {"cfg": _finetuning_cfg(encoder, decoder, told, cfg), "dictionaries": dictionaries, "words": words}
    return kept, around


def _pretraining_cfg(encoder: ModelConfig, told: dict[str, Any]) -> dict[str, Any]:
    masking = told["metadata"].get("masking", {})
    rate = (told["metadata"].get("labels") or [{"rate": 25}])[0]["rate"]
    same = (
        *("modality_fuse", "masking_type", "final_dim", "encoder_layerdrop", "dropout_input", "dropout"),
        *("attention_dropout", "feature_grad_mult", "untie_final_proj", "activation_dropout", "layer_norm_first"),
        *("audio_feat_dim", "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads"),
        *("encoder_layers", "conv_pos", "conv_pos_groups", "logit_temp"),
    )
    model = {"_name": "av_hubert", "label_rate": rate, "skip_masked": False, "skip_nomask": False}
    model |= {key: getattr(encoder, key) for key in same}
    model |= {"resnet_relu_type": encoder.visual_activation, "extractor_mode": "default", "sub_encoder_layers": 0}
    model |= {theirs: masking[ours] for ours, theirs in _MASKING.items() if ours in masking}
    task = {
        "_name": "av_hubert_pretraining", "data": "???", "labels": ["km"], "label_rate": rate, "sample_rate": 25,
        "max_sample_size": 500, "min_sample_size": 5, "pad_audio": True, "random_crop": False, "normalize": True,
        "stack_order_audio": encoder.audio_feat_dim // 26, "image_aug": True,
    }  # fmt: skip
    criterion = {"_name": "av_hubert", "pred_masked_weight": 1.0, "pred_nomask_weight": 0.0, "loss_weights": [10]}
    return {
        "_name": None,
        "common": {"seed": told["metadata"].get("seed", 1)},
        "model": model,
        "task": task,
        "criterion": criterion,
    }


def _finetuning_cfg(
    encoder: ModelConfig, decoder: DecoderConfig, told: dict[str, Any], pretraining: dict[str, Any]
) -> dict[str, Any]:
    streams = {name for shown in told["metadata"].get("modalities", ["av"]) for name in MODALITIES[shown]}
    model = {
        "_name": "av_hubert_seq2seq", "w2v_path": "???", "apply_mask": False, "decoder_layers": decoder.layers,
        "decoder_dropout": decoder.dropout, "decoder_attention_dropout": decoder.attention_dropout,
        "decoder_activation_dropout": decoder.activation_dropout, "decoder_embed_dim": encoder.encoder_embed_dim,
        "decoder_ffn_embed_dim": decoder.ffn_embed_dim, "decoder_attention_heads": decoder.attention_heads,
        "freeze_finetune_updates": 0, **_DECODER_MUST_BE,
        **{theirs: getattr(encoder, ours) for ours, theirs, _ in _FINE_TUNED}, "w2v_args": pretraining,
    }  # fmt: skip
    task = pretraining["task"] | {
        "is_s2s": True, "labels": ["wrd"], "single_target": True, "fine_tuning": True,
        "tokenizer_bpe_name": "sentencepiece", "tokenizer_bpe_model": "???",
        "modalities": [name for name in ("audio", "video") if name in streams],
    }  # fmt: skip
    criterion = {"_name": "label_smoothed_cross_entropy", "label_smoothing": 0.1, "report_accuracy": True}
    return {"_name": None, "common": pretraining["common"], "model": model, "task": task, "criterion": criterion}


def _history(decoder: DecoderConfig | None, told: dict[str, Any]) -> dict[str, Any]:
    criterion = "AVHubertCriterion" if decoder is None else "LabelSmoothedCrossEntropyCriterion"
    return {
        "criterion_name": criterion, "optimizer_name": "FairseqAdam", "lr_scheduler_state": {"best": None},
        "num_updates": int(told["metadata"].get("step", 0)),
    }  # fmt: skip


_MASKING = {  # ours → theirs
    "prob_audio": "mask_prob_audio",
    "length_audio": "mask_length_audio",
    "prob_video": "mask_prob_image",
    "length_video": "mask_length_image",
    "selection": "selection_type",
    "modality_dropout": "modality_dropout",
    "audio_dropout": "audio_dropout",
}


# --------------------------------------------------------------------------- objects of the original, without its code
class _Dictionary:
    """Pickles as the original's dictionary."""

    published = ("fairseq.data.dictionary", "Dictionary")

    def __init__(self, item: dict[str, Any]) -> None:
        self.bos_word, self.pad_word, self.eos_word, self.unk_word = SPECIALS
        self.symbols = list(item["symbols"])
        self.count = list(item["count"])
        self.indices = {symbol: index for index, symbol in enumerate(self.symbols)}
        self.bos_index, self.pad_index, self.eos_index, self.unk_index = range(len(SPECIALS))
        self.nspecial = len(SPECIALS)


class _SentencePieceProcessor:
    """Pickles as sentencepiece's processor does: its state is the serialized model."""

    published = ("sentencepiece", "SentencePieceProcessor")

    def __init__(self, serialized: bytes) -> None:
        self._serialized = serialized

    def __getstate__(self) -> bytes:
        return self._serialized


class _SentencepieceBPE:
    """Pickles as the original's tokenizer."""

    published = ("fairseq.data.encoders.sentencepiece_bpe", "SentencepieceBPE")

    def __init__(self, serialized: bytes) -> None:
        self.sp = _SentencePieceProcessor(serialized)


class _Pickler(pickle._Pickler):
    """Writes the stand-ins under the names of what they stand for; Python's own pickler would import those first."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj not in (_Dictionary, _SentencePieceProcessor, _SentencepieceBPE):
            super().save_global(obj, name)  # type: ignore[misc]
            return
        module, qualified = obj.published
        self.write(pickle.GLOBAL + f"{module}\n{qualified}\n".encode())  # type: ignore[attr-defined]
        self.memoize(obj)  # type: ignore[attr-defined]


_PICKLE = types.SimpleNamespace(__name__="avhubert", Pickler=_Pickler)  # as much of a module as torch.save asks for


# --------------------------------------------------------------------------- configurations and what they leave out
class _Settings:
    """Our configurations from a published one; sizes that it does not give, from the tensors."""

    def __init__(
        self, cfg: dict, sizes: dict[str, tuple[int, ...]], recognizer: bool, notes: list[str], path: Path
    ) -> None:
        self.cfg, self.sizes, self.notes, self.path = cfg, sizes, notes, path
        self.recognizer = recognizer
        self.prefix = ENCODER if recognizer else ""
        outer = cfg.get("model") if isinstance(cfg.get("model"), dict) else cfg  # older files: one flat namespace
        self.outer: dict[str, Any] = outer if isinstance(outer, dict) else {}
        self.inner_root: dict[str, Any] | None = cfg
        if recognizer:
            pretrained = self.outer.get("w2v_args")
            self.inner_root = pretrained if isinstance(pretrained, dict) else None
        inner = self.inner_root or {}
        self.inner: dict[str, Any] = inner["model"] if isinstance(inner.get("model"), dict) else inner

    def encoder(self, dictionary_sizes: list[int]) -> ModelConfig:
        given = {
            name: value
            for name in (item.name for item in dataclasses.fields(ModelConfig))
            if (value := _resolved(self.inner.get(name), self.inner_root)) is not None
        }
        for key, needed in (("activation_fn", "gelu"), ("sim_type", "cosine"), ("sub_encoder_layers", 0)):
            self._only(self.inner, key, needed)
        config: dict[str, Any] = _FAIRSEQ_DEFAULTS | self._from_tensors()
        if self.inner:
            config["layer_norm_first"] = False  # the original's default; every published file says true
        else:
            self.notes.append("layer_norm_first: true, as in every published model")
        config |= {key: value for key, value in given.items() if key != "num_classes"}
        config["visual_activation"] = self.inner.get("resnet_relu_type", config["visual_activation"])
        for key in ("audio_feat_dim", "final_dim"):  # 0 and -1 stand for "as in the data", "as wide as the encoder"
            if given.get(key) in (None, 0, -1):
                config[key] = self._from_tensors()[key]
        if "encoder_attention_heads" not in given:
            config["encoder_attention_heads"] = self._heads(self._from_tensors()["encoder_embed_dim"])
        if self.recognizer:
            for ours, theirs, default in _FINE_TUNED:
                config[ours] = self.outer.get(theirs, default)
        else:
            config["num_classes"] = self._classes(dictionary_sizes)
        return self._dataclass(ModelConfig, config)

    def decoder(self) -> DecoderConfig | None:
        if not self.recognizer:
            return None
        for key, needed in _DECODER_MUST_BE.items():
            self._only(self.outer, key, needed)
        embedding = self.sizes.get("decoder.embed_tokens.weight")
        if embedding is None or len(embedding) != 2:
            raise CheckpointError(
                f"{self.path} has an encoder for fine-tuning but no attention decoder, the only kind that is read"
            )
        if "decoder.embed_out" in self.sizes:
            raise CheckpointError(
                f"{self.path} has an output embedding of its own (decoder.embed_out), which no published model has"
            )
        given = self.outer
        return self._dataclass(DecoderConfig, {
            "layers": given.get("decoder_layers", self._count(r"decoder\.layers\.(\d+)\.")),
            "ffn_embed_dim": given.get("decoder_ffn_embed_dim", self._size("decoder.layers.0.fc1.weight", 0)),
            "attention_heads": given.get("decoder_attention_heads", 4),
            "dropout": given.get("decoder_dropout", 0.1),
            "activation_dropout": given.get("decoder_activation_dropout", 0.0),
            "attention_dropout": given.get("decoder_attention_dropout", 0.0),
            "ctc": False,
            "vocab_size": embedding[0],
        })  # fmt: skip

    def _from_tensors(self) -> dict[str, Any]:
        """Every size that the shapes of the encoder's tensors tell."""
        p = self.prefix
        telling = (
            "feature_extractor_audio.proj.weight", f"{RESNET}frontend3D.0.weight", "encoder.layers.0.fc1.weight",
            "layer_norm.weight",
        )  # fmt: skip
        missing = [p + name for name in telling if p + name not in self.sizes]
        if missing:
            raise CheckpointError(f"{self.path} lacks {_listed(missing)}: it is not a whole AV-HuBERT model")
        width = self._size(f"{p}feature_extractor_audio.proj.weight", 0)
        blocks: list[int] = []
        while self._count(stage := rf"{re.escape(p + RESNET)}trunk\.layer{len(blocks) + 1}\.(\d+)\."):
            blocks.append(self._count(stage))
        position = self.sizes.get(f"{p}encoder.pos_conv.0.weight_v", (0, 0, 0))
        masked = self._size(f"{p}mask_emb", 0)
        audio = self._size(f"{p}feature_extractor_audio.proj.weight", 1)
        return {
            "audio_feat_dim": audio,
            "visual_width": self._size(f"{p}{RESNET}frontend3D.0.weight", 0),
            "visual_blocks": blocks,
            "visual_activation": "prelu" if f"{p}{RESNET}frontend3D.2.weight" in self.sizes else "relu",
            "modality_fuse": "concat" if self._size(f"{p}layer_norm.weight", 0) == 2 * width else "add",
            "encoder_layers": self._count(rf"{re.escape(p)}encoder\.layers\.(\d+)\."),
            "encoder_embed_dim": width,
            "encoder_ffn_embed_dim": self._size(f"{p}encoder.layers.0.fc1.weight", 0),
            "conv_pos": position[-1],
            "conv_pos_groups": position[0] // position[1] if len(position) == 3 and position[1] else 0,
            "final_dim": self._size(f"{p}label_embs_concat", 1) or width,
            "masking_type": "feature" if masked == width and masked != audio else "input",
        }

    def _classes(self, dictionary_sizes: list[int]) -> list[int]:
        rows = self._size("label_embs_concat", 0)
        if sum(dictionary_sizes) == rows:
            return dictionary_sizes
        if dictionary_sizes and len(dictionary_sizes) > 1:
            raise CheckpointError(
                f"{self.path}: label_embs_concat has {rows} rows, its dictionaries {dictionary_sizes}: they do not fit"
            )
        return [rows] if rows else []

    def _heads(self, width: int) -> int:
        known = {768: 12, 1024: 16}
        told = self.outer.get("decoder_attention_heads")
        heads = known.get(width) or (told if type(told) is int and told > 0 else max(width // 64, 1))
        self.notes.append(f"encoder_attention_heads: {heads}, which the file does not tell")
        if width not in known:
            warnings.warn(
                f"{self.path} does not tell the encoder's number of attention heads; {heads} is assumed: check results",
                stacklevel=2,
            )
        return heads

    def _count(self, pattern: str) -> int:
        return len({match[1] for name in self.sizes if (match := re.match(pattern, name))})

    def _size(self, name: str, dimension: int) -> int:
        shape = self.sizes.get(name, ())
        return shape[dimension] if len(shape) > dimension else 0

    def _only(self, given: dict[str, Any], key: str, needed: Any) -> None:
        if given.get(key, needed) not in (needed, None):
            raise CheckpointError(
                f"{self.path} was made with {key}={printable(given[key], 80)}; only {key}={needed} is read"
            )

    def _dataclass(self, schema: type, values: dict[str, Any]) -> Any:
        from avhubert.config import from_dict

        try:
            return from_dict(schema, values, str(self.path))
        except ConfigError as error:
            raise CheckpointError(printable(error, 1000)) from error


_FAIRSEQ_DEFAULTS = {
    "encoder_layerdrop": 0.0,
    "dropout_input": 0.0,
    "feature_grad_mult": 1.0,
    "untie_final_proj": False,
}
_FINE_TUNED = (  # our key, the fine-tuning configuration's, its default: they replace the pre-trained model's
    ("dropout", "dropout", 0.0),
    ("attention_dropout", "attention_dropout", 0.0),
    ("activation_dropout", "activation_dropout", 0.0),
    ("encoder_layerdrop", "layerdrop", 0.0),
    ("dropout_input", "dropout_input", 0.0),
    ("feature_grad_mult", "feature_grad_mult", 0.0),
)
_DECODER_MUST_BE = {
    "share_decoder_input_output_embed": True,
    "decoder_normalize_before": True,
    "decoder_learned_pos": False,
    "no_token_positional_embeddings": False,
}


def _resolved(value: Any, root: Any) -> Any:
    """`value`, or what `${a.b}` in it points to."""
    if not (isinstance(value, str) and value.startswith("${")):
        return value
    for part in value.strip("${}").split("."):
        root = root.get(part) if isinstance(root, dict) else None
    return None if isinstance(root, str) and root.startswith("${") else root


def _plain(value: Any, path: str | Path) -> Any:
    """Dicts, lists and scalars of a configuration: omegaconf's containers, namespaces and enums unwrapped."""
    left = 10_000_000  # characters, and 50 for each value: shared and cyclic references can make a file look endless

    def unwrap(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 50 + (len(value) if isinstance(value, str) else 0)
        if depth > 40 or left < 0:
            raise CheckpointError(f"{path}: its configuration is nested without end or huge; no published one is")
        if isinstance(value, Record):
            state = value.state if isinstance(value.state, dict) else {}
            if value.name.startswith("omegaconf."):
                return unwrap(state.get("_content", state.get("_val")), depth + 1)
            if value.name == "argparse.Namespace":
                return unwrap(state, depth + 1)
            return unwrap(value.arguments[0], depth + 1) if value.arguments else None  # an enum: its value
        if isinstance(value, dict):
            return {str(unwrap(key, depth + 1)): unwrap(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [unwrap(item, depth + 1) for item in value]
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode()  # half of a character could not be written again
        if isinstance(value, int):
            return value if -(1 << 63) <= value < 1 << 63 else None
        return value if isinstance(value, float) else None

    return unwrap(value, 0)


def _dictionary(item: Any, path: str | Path) -> dict[str, Any]:
    state = item.state if isinstance(item, Record) else None
    if not isinstance(state, dict) or not isinstance(state.get("symbols"), list):
        raise CheckpointError(f"{path}: a dictionary in its task_state has no symbols")
    symbols, counts = state["symbols"], state.get("count")
    if not all(isinstance(symbol, str) for symbol in symbols):
        raise CheckpointError(f"{path}: a dictionary in its task_state has a symbol that is not text")
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count < 1 << 63 for count in counts):
        counts = [1] * len(symbols)
    return {"symbols": list(symbols), "count": list(counts)}


def _tokenizer(state: dict[str, Any]) -> bytes | None:
    bpe = state.get("s2s_tokenizer")
    inside = bpe.state if isinstance(bpe, Record) else None
    processor = inside.get("sp") if isinstance(inside, dict) else None
    serialized = processor.state if isinstance(processor, Record) else None
    return serialized if isinstance(serialized, bytes) else None


def _listed(names: Iterable[Any]) -> str:
    names = [printable(name, 120) for name in names]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
