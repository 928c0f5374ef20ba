"""The typed schema of every preset: one dataclass per group, one default per value, checks that name the key.

A preset is a YAML file in `avhubert/conf/<command>/NAME.yaml` that holds only what differs from its parent.
The defaults here are the published Base configuration (Shi et al., ICLR 2022, appendix; LRS3 iteration 5).
Counts of frames are video frames at 25 Hz, padding included.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avhubert.errors import ConfigError, one_of

REQUIRED = "???"  # OmegaConf's mark of a value that must be given
PRESETS = Path(__file__).parent / "conf"

MODALITIES = {"av": ("audio", "video"), "a": ("audio",), "v": ("video",)}


# --------------------------------------------------------------------------- what a saved model holds
@dataclass
class ModelConfig:
    """Sizes and regularisation of AVHubert: front ends, fusion, transformer encoder and cluster heads."""

    audio_feat_dim: int = 104  # stacked filterbank values per video frame
    visual_width: int = 64  # channels of the 3-D stem; the four stages have 1, 2, 4 and 8 times as many
    visual_blocks: list[int] = field(default_factory=lambda: [2, 2, 2, 2])  # residual blocks per stage
    visual_activation: str = "prelu"  # prelu | relu
    modality_fuse: str = "concat"  # concat | add
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    layer_norm_first: bool = True
    conv_pos: int = 128  # kernel of the position convolution, frames
    conv_pos_groups: int = 16
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    encoder_layerdrop: float = 0.05
    dropout_input: float = 0.1
    feature_grad_mult: float = 0.1  # scale of the gradients into both front ends
    masking_type: str = "input"  # input | feature: decides the length of the learned mask vector
    final_dim: int = 256  # width of the cluster embeddings
    untie_final_proj: bool = True  # one projection per label set
    logit_temp: float = 0.1
    num_classes: list[int] = field(default_factory=list)  # per label set; filled from the dictionaries


@dataclass
class DecoderConfig:
    """Sizes of a recognizer's heads: attention decoder (as wide as the encoder) and CTC."""

    layers: int = 6
    ffn_embed_dim: int = 3072
    attention_heads: int = 4
    dropout: float = 0.1
    activation_dropout: float = 0.1
    attention_dropout: float = 0.0
    ctc: bool = False  # a linear CTC head on the encoder's output, blank = <s>
    vocab_size: int = 0  # filled from the tokenizer


@dataclass
class DecodeConfig:
    """Beam search settings, stored with a recognizer (the published `s2s_decode` by default)."""

    beam: int = 50
    lenpen: float = 1.0
    max_len_a: float = 1.0  # length limit = max_len_a * frames + max_len_b
    max_len_b: int = 0
    min_len: int = 1
    nbest: int | None = None  # hypotheses kept of each utterance; None: all that the search found, at most `beam`
    ctc_weight: float = 0.0  # share of the CTC head's log p: 0 attention alone … 1 CTC alone
    lm: str | None = None  # n-gram file (.arpa, KenLM binary) or Hugging Face causal language model (folder, name)
    lm_weight: float = 0.0  # of the language model's log p; 0 leaves it out
    lm_use: str = "fusion"  # fusion: token by token in the search | rescoring: of the texts that the search found
    no_repeat_ngram: int = 0  # no n tokens come twice in a text; 0: they may


# --------------------------------------------------------------------------- what a training run needs
@dataclass
class DataConfig:
    """Where clips come from and how they become batches."""

    dir: str = REQUIRED  # data directory: {train,valid}.tsv, transcripts, dictionaries, tokenizer
    labels: str | list[str] | None = None  # pretrain: folder of {train,valid}.km and labels.json; a list: all at once
    modalities: str = "av"  # av | a | v: streams that are loaded at all
    max_frames: int = 500  # longer clips are left out (counted)
    min_frames: int = 5  # shorter clips are left out (counted)
    crop_frames: int | None = None  # cut longer clips to this many frames
    random_crop: bool = False  # where the cut starts: at random, else at 0
    pad: bool = True  # pad to the longest clip of a batch; false crops all to the shortest
    augment: bool = True  # random crop and flip of the training split's video
    noise: str | None = None  # a list of wav files, one path a line (or a folder's noise list)
    noise_prob: float = 0.0
    noise_snr: list[int] = field(default_factory=lambda: [0, 0])  # dB, both ends included
    noise_num: int = 1
    workers: int = 0  # threads that load batches ahead; 0: none
    max_bad_share: float = 0.01  # of a split's clips that may be unreadable and skipped; 0: the first stops the run


@dataclass
class FinetuneDataConfig(DataConfig):
    """Fine-tuning adds which stream an utterance is shown with."""

    min_frames: int = 1
    faults: list[str] = field(default_factory=list)  # of the picture: blur, freeze, occlusion, drop, offset:N
    fault_prob: float = 0.0  # share of training utterances that show one of them
    draw_av: float = 1.0  # relative weights of the modality drawn per utterance (training split only)
    draw_a: float = 0.0
    draw_v: float = 0.0
    time_mask_rate: float = 0.0  # masked spans per second of a training clip, in each stream; 0: none
    time_mask_frames: int = 10  # the longest of them


@dataclass
class MaskingConfig:
    """Span masks of pre-training (ICLR 2022, § 3.3). `model.masking_type` says where they act."""

    prob_audio: float = 0.8
    length_audio: int = 10
    prob_video: float = 0.3
    length_video: int = 5
    selection: str = "same_seq"  # same_seq | same_other_seq: what replaces masked video (input masking)
    thin: bool = True  # un-mask random frames until every row has as few as the least masked one (published)
    modality_dropout: float = 0.5
    audio_dropout: float = 0.5  # given modality dropout: the share in which audio goes
    dropout_per_utterance: bool = False  # one modality draw per utterance instead of per batch


@dataclass
class ObjectiveConfig:
    """Masked cluster prediction."""

    masked_weight: float = 1.0
    unmasked_weight: float = 0.0
    features_pen_weight: float = 10.0


@dataclass
class FinetuneObjectiveConfig:
    """Label-smoothed cross-entropy of the attention decoder, and CTC."""

    label_smoothing: float = 0.1
    ctc_weight: float = 0.0  # 0: the decoder alone; 1: CTC alone, the decoder learns nothing; between: both


@dataclass
class OptimizerConfig:
    """Adam with decoupled weight decay, and its schedule."""

    lr: float = 5.0e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1.0e-6
    weight_decay: float = 0.01
    clip_norm: float = 10.0  # 0 = no clipping
    schedule: str = "polynomial"  # polynomial | tri_stage
    warmup_steps: int = 32_000
    decay_steps: int | None = None  # tri_stage; None: the rest of the run
    init_lr_scale: float = 0.01  # tri_stage: the first rate, relative to lr
    final_lr_scale: float = 0.05  # tri_stage: the last rate, relative to lr


@dataclass
class FinetuneOptimizerConfig(OptimizerConfig):
    """Fine-tuning may let the lower layers learn more slowly."""

    layer_decay: float = 1.0  # each layer's rate relative to that of the one above; 1: all alike (published)


@dataclass
class TrainConfig:
    """Length, size and bookkeeping of a run. A step is one optimizer step on any number of devices."""

    max_steps: int = 400_000
    frames_per_step: int = 32_000  # per optimizer step, over all devices
    frames_per_batch: int = 1_000  # per micro-batch
    save_every: int = 5_000
    keep_last: int = 2
    validate_every: int = 10_000
    log_every: int = 50
    precision: str = "auto"  # auto | 32-true | bf16-mixed | 16-mixed
    accelerator: str = "auto"  # auto | cpu | cuda
    sharding: str = "none"  # none | fsdp: every device keeps its share of parameters and optimizer state (torchrun)
    compile: bool = False  # torch.compile of the layers: a slow start, then faster steps on a GPU
    checkpoint_activations: bool = False  # a fraction of the memory for a third more work
    trackers: list[str] = field(default_factory=list)  # tensorboard, wandb: beside RUN/metrics.jsonl


@dataclass
class FinetuneTrainConfig(TrainConfig):
    """Fine-tuning freezes the encoder first."""

    freeze_encoder_steps: int = 0  # the encoder gets no gradient while fewer steps are done
    freeze_encoder_drift: bool = False  # published: while frozen, its dropout stays on and its batch norm moves
    best_by: str = "accuracy"  # accuracy | wer: of tokens given those before, or of words decoded greedily (slower)


@dataclass
class PretrainModelConfig(ModelConfig):
    """Pre-training may start from another model (continued pre-training)."""

    pretrained: str | None = None


@dataclass
class FinetuneModelConfig:
    """The pre-trained model decides the encoder's sizes; these decide the rest."""

    pretrained: str = REQUIRED  # a model directory or published checkpoint; 'none' trains `scratch` from random weights
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.1
    encoder_layerdrop: float = 0.1
    dropout_input: float = 0.0
    feature_grad_mult: float = 1.0
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    scratch: ModelConfig = field(default_factory=ModelConfig)


@dataclass
class PretrainConfig:
    """`avhubert pretrain`."""

    run_dir: str = REQUIRED
    seed: int = 1337
    data: DataConfig = field(default_factory=DataConfig)
    model: PretrainModelConfig = field(default_factory=PretrainModelConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class FinetuneConfig:
    """`avhubert finetune`."""

    run_dir: str = REQUIRED
    seed: int = 1337
    data: FinetuneDataConfig = field(default_factory=FinetuneDataConfig)
    model: FinetuneModelConfig = field(default_factory=FinetuneModelConfig)
    objective: FinetuneObjectiveConfig = field(default_factory=FinetuneObjectiveConfig)
    optimizer: FinetuneOptimizerConfig = field(default_factory=FinetuneOptimizerConfig)
    train: FinetuneTrainConfig = field(default_factory=FinetuneTrainConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)


@dataclass
class RecipeDataConfig:
    """What all iterations learn from."""

    dir: str = REQUIRED


@dataclass
class RecipeConfig:
    """`avhubert iterate`: which preset learns which clusters, iteration by iteration."""

    run_dir: str = REQUIRED
    seed: int = 1337
    data: RecipeDataConfig = field(default_factory=RecipeDataConfig)
    presets: list[str] = field(default_factory=list)  # of `pretrain`, one per iteration
    clusters: list[int] = field(default_factory=list)  # one number per iteration; the first clusters MFCC
    teacher_layers: list[int] = field(default_factory=list)  # of the model before; one per iteration but the first
    percent: float = 100.0  # of the training clips, that k-means learns from


SCHEMAS = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "av-finetune": FinetuneConfig,
    "decode": DecodeConfig,
    "iterate": RecipeConfig,
}

CHOICES = {
    "visual_activation": ("prelu", "relu"),
    "modality_fuse": ("concat", "add"),
    "masking_type": ("input", "feature"),
    "modalities": tuple(MODALITIES),
    "selection": ("same_seq", "same_other_seq"),
    "schedule": ("polynomial", "tri_stage"),
    "precision": ("auto", "32-true", "bf16-mixed", "16-mixed"),
    "accelerator": ("auto", "cpu", "cuda"),
    "trackers": ("tensorboard", "wandb"),
    "sharding": ("none", "fsdp"),
    "lm_use": ("fusion", "rescoring"),
    "best_by": ("accuracy", "wer"),
}
SHARES = {
    *("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "dropout_input"),
    *("noise_prob", "prob_audio", "prob_video", "modality_dropout", "audio_dropout", "label_smoothing", "ctc_weight"),
    *("max_bad_share", "layer_decay", "fault_prob"),
}
POSITIVE = {
    *("audio_feat_dim", "visual_width", "encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim"),
    *("encoder_attention_heads", "conv_pos", "conv_pos_groups", "final_dim", "logit_temp", "layers", "ffn_embed_dim"),
    *("attention_heads", "beam", "max_frames", "min_frames", "crop_frames", "noise_num", "length_audio"),
    *("length_video", "lr", "max_steps", "frames_per_step", "frames_per_batch", "save_every", "keep_last"),
    *("validate_every", "log_every", "eps", "final_lr_scale", "percent", "nbest", "layer_decay", "time_mask_frames"),
}
NOT_NEGATIVE = {
    *("seed", "workers", "draw_av", "draw_a", "draw_v", "weight_decay", "clip_norm", "warmup_steps", "decay_steps"),
    *("freeze_encoder_steps", "masked_weight", "unmasked_weight", "features_pen_weight", "feature_grad_mult"),
    *("max_len_a", "max_len_b", "min_len", "lenpen", "num_classes", "visual_blocks", "betas", "init_lr_scale"),
    *("vocab_size", "clusters", "teacher_layers", "lm_weight", "no_repeat_ngram", "time_mask_rate"),
}


# --------------------------------------------------------------------------- presets → checked dataclasses
def presets(command: str) -> list[str]:
    """Names of the presets that the package has for a command."""
    return sorted(path.stem for path in (PRESETS / command).glob("*.yaml") if not path.stem.startswith("_"))


def preset_command(name: str, config_dir: str | Path | None) -> str:
    """The folder that a fine-tuning preset lives in: audio-visual recipes have their own."""
    return "av-finetune" if config_dir is None and name in presets("av-finetune") else "finetune"


def compose(command: str, name: str, overrides: typing.Sequence[str] = (), config_dir: str | Path | None = None) -> Any:
    """Read preset `name` of `command` with Hydra, apply `key=value` overrides, check everything.

    Hydra reads the presets and chooses config groups (folders beside a preset); `key=value`, `+key=value` and `~key`
    (back to the default) are in Hydra's grammar but set here, so that a wrong key or value gets a clear sentence.

    Returns the dataclass of SCHEMAS[command]. ConfigError names the preset, key or value that is wrong
    and lists the valid ones.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # OmegaConf's own parser

    directory = Path(config_dir) if config_dir else PRESETS / command
    if not directory.is_dir():
        raise ConfigError(f"--config-dir {directory} is not a folder")
    if not (directory / f"{name}.yaml").is_file():
        raise ConfigError(one_of(f"{command} preset", name, _names(command, config_dir)))
    where = f"{command} preset '{name}'"
    schema = SCHEMAS[command]
    # our own presets stay reachable as parents of a user's preset, and fine-tuning's as parents of audio-visual ones
    parents = [PRESETS / command, *([PRESETS / "finetune"] if command == "av-finetune" else [])]
    changes = [_parsed(text, schema) for text in overrides]
    groups = [c for c in changes if c.key and any((folder / c.key).is_dir() for folder in (directory, *parents))]
    search = ",".join(_quoted(f"file://{parent}") for parent in parents)
    try:
        with initialize_config_dir(config_dir=str(directory.resolve()), version_base="1.3"):
            for_hydra = [f"hydra.searchpath=[{search}]", *(change.text for change in groups)]
            preset = hydra_compose(config_name=name, overrides=for_hydra)
        OmegaConf.set_struct(preset, False)
        for change in changes:
            if change not in groups:
                _apply(change, preset, schema, where)
        # under the schema's defaults, so that ${seed} is known where the preset leaves it out
        merged = OmegaConf.merge(OmegaConf.create(to_dict(schema())), preset)
        for key in _leaves(schema):
            group, _, leaf = key.rpartition(".")
            node = OmegaConf.select(preset, group) if group else preset
            if OmegaConf.is_dict(node) and OmegaConf.is_missing(node, leaf):  # merge leaves it at the default
                OmegaConf.update(merged, key, REQUIRED)
        values = OmegaConf.to_container(merged, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"{where} cannot be read: {' '.join(str(error).split())}") from error
    config = from_dict(schema, values, where)
    _check_together(config, where)
    return config


@dataclass(frozen=True)
class _Change:
    """A parsed override: `text` as it was given."""

    text: str
    key: str
    value: Any
    delete: bool


def _names(command: str, config_dir: str | Path | None) -> list[str]:
    if config_dir is not None:
        return [path.stem for path in Path(config_dir).glob("*.yaml")]
    return [*presets("finetune"), *presets("av-finetune")] if command == "finetune" else presets(command)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _parsed(text: str, schema: type) -> _Change:
    """An override in Hydra's grammar; text values, such as paths, are taken as they stand."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, raw = text.lstrip("+").partition("=")
    kind = _leaves(schema).get(key)
    written = "'\"[" if kind == str | list[str] | None else "'\""  # how text begins that Hydra's grammar reads
    text_kinds = (str, str | None, str | list[str] | None)
    if equals and kind in text_kinds and raw not in ("", "null") and raw[0] not in written:
        return _Change(text, key, raw, delete=False)
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(f"'{text}' is not of the form key=value, such as optimizer.betas=[0.9,0.98]") from error
    if override.is_sweep_override():
        raise ConfigError(f"'{text}' gives several values; give one (a list is written [1,2])")
    return _Change(text, override.key_or_group, override.value(), override.is_delete())


def _apply(change: _Change, preset: Any, schema: type, where: str) -> None:
    """Set or delete one key of the composed preset, checked against the schema first."""
    from omegaconf import OmegaConf

    kind: Any = schema
    parts = change.key.split(".")
    for position, part in enumerate(parts):
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        if part not in hints:
            if not hints:  # something below a value: name it from the top
                kind, position = schema, 0
            prefix = ".".join([*parts[:position], ""])
            raise ConfigError(_unknown_key(kind, prefix, ".".join(parts[position:]), where))
        kind = hints[part]
    if change.delete:
        parent = OmegaConf.select(preset, ".".join(parts[:-1])) if parts[:-1] else preset
        if parent is not None:
            parent.pop(parts[-1], None)
        return
    if dataclasses.is_dataclass(kind):
        if not isinstance(change.value, dict):
            known = ", ".join(keys(typing.cast(type, kind), f"{change.key}."))
            raise ConfigError(f"{where}: {change.text} cannot be set as a whole; set one of its keys: {known}")
        from_dict(typing.cast(type, kind), change.value, where, f"{change.key}.")
    elif not (isinstance(change.value, str) and "${" in change.value):
        _checked(kind, parts[-1], change.value, f"{where}: {change.key}")
    OmegaConf.update(preset, change.key, change.value, force_add=True)


def _leaves(schema: type, prefix: str = "") -> dict[str, Any]:
    """Type of every dotted key of a schema."""
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(schema).items():
        if dataclasses.is_dataclass(kind):
            found |= _leaves(typing.cast(type, kind), f"{prefix}{name}.")
        else:
            found[prefix + name] = kind
    return found


def keys(schema: type, prefix: str = "") -> list[str]:
    """All dotted keys of a schema."""
    return list(_leaves(schema, prefix))


def from_dict(schema: type, values: Any, where: str, prefix: str = "") -> Any:
    """Build dataclass `schema` from nested dicts; ConfigError names the wrong key or value and where it stands."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: '{prefix.rstrip('.')}' must hold keys, not '{values}'")
    hints = typing.get_type_hints(schema)
    built = {}
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(_unknown_key(schema, prefix, name, where))
        kind = hints[name]
        if dataclasses.is_dataclass(kind):
            built[name] = from_dict(typing.cast(type, kind), value, where, f"{prefix}{name}.")
        else:
            built[name] = _checked(kind, name, value, f"{where}: {prefix}{name}")
    return schema(**built)


def _unknown_key(schema: type, prefix: str, name: str, where: str) -> str:
    here = keys(schema, prefix)
    near = difflib.get_close_matches(prefix + name, here, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return f"{where}: unknown key '{prefix}{name}'{hint}; known keys: {', '.join(here)}"


def _checked(kind: Any, name: str, value: Any, where: str) -> Any:
    if isinstance(value, str) and value == REQUIRED:
        return value
    converted = _converted(kind, value, where)
    items = converted if isinstance(converted, list) else [converted]
    if name in CHOICES and any(item not in CHOICES[name] for item in items):
        raise ConfigError(f"{where}={value} is not one of: {', '.join(CHOICES[name])}")
    if converted is None:
        return None
    if any(isinstance(item, float) and not math.isfinite(item) for item in items):
        raise ConfigError(f"{where}={value} must be finite")
    if name in NOT_NEGATIVE and any(item < 0 for item in items):
        raise ConfigError(f"{where}={value} must be at least 0")
    if name in SHARES and not 0 <= converted <= 1:
        raise ConfigError(f"{where}={value} must be between 0 and 1")
    if name in POSITIVE and not converted > 0:
        raise ConfigError(f"{where}={value} must be greater than 0")
    return converted


def _converted(kind: Any, value: Any, where: str) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if value is None and type(None) in options:
            return None
        options = tuple(option for option in options if option is not type(None))
        kind = options[-1] if isinstance(value, list) else options[0]
    if typing.get_origin(kind) is list:
        inner = typing.get_args(kind)[0]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}={value} must be a list, such as [1,2]")
        return [_converted(inner, item, where) for item in value]
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, kind) and (kind is not int or not isinstance(value, bool)):
        return value
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    raise ConfigError(f"{where}={value} must be {words.get(kind, kind)}")


def _check_together(config: Any, where: str) -> None:
    """Values that must fit each other; ConfigError names both."""
    values = dict(flatten(config))

    def refuse(condition: bool, sentence: str) -> None:
        if condition:
            raise ConfigError(f"{where}: {sentence}")

    for prefix in ("model.", "model.scratch."):
        if f"{prefix}encoder_embed_dim" in values:
            width = values[f"{prefix}encoder_embed_dim"]
            for key in (f"{prefix}encoder_attention_heads", f"{prefix}conv_pos_groups"):
                refuse(
                    width % values[key] != 0,
                    f"{prefix}encoder_embed_dim={width} must be a multiple of {key}={values[key]}",
                )
            blocks = values[f"{prefix}visual_blocks"]
            refuse(
                len(blocks) != 4 or 0 in blocks, f"{prefix}visual_blocks={blocks} must be four numbers of at least 1"
            )
    if "clusters" in values:
        iterations = [len(values[key]) for key in ("presets", "clusters", "teacher_layers")]
        refuse(
            iterations[0] < 1 or iterations != [iterations[0], iterations[0], iterations[0] - 1],
            f"{iterations[0]} presets, {iterations[1]} clusters and {iterations[2]} teacher_layers do not fit: every "
            "iteration has a preset and a number of clusters, and all but the first have a layer of their teacher",
        )
        refuse(min(values["clusters"]) < 2, f"clusters={values['clusters']} must each be at least 2")
    if "data.min_frames" not in values:
        return
    least, most = values["data.min_frames"], values["data.max_frames"]
    refuse(least > most, f"data.min_frames={least} is greater than data.max_frames={most}: no clip would be left")
    snr = values["data.noise_snr"]
    refuse(len(snr) != 2 or snr[0] > snr[1], f"data.noise_snr={snr} must be [lowest,highest], such as [0,0]")
    betas = values["optimizer.betas"]
    refuse(len(betas) != 2 or max(betas) >= 1, f"optimizer.betas={betas} must be two numbers in 0 ≤ β < 1")
    draws = [values.get(f"data.draw_{name}", 1) for name in MODALITIES]
    refuse(sum(draws) == 0, "data.draw_av, data.draw_a and data.draw_v are all 0: give at least one a weight")


def require(config: Any, prefix: str = "") -> None:
    """ConfigError names every value that must be given and is not."""
    needed = {item for item, value in flatten(type(config)()) if value == REQUIRED}
    missing = [key for key, value in flatten(config) if value == REQUIRED or (key in needed and not value)]
    if missing:
        raise ConfigError(f"give a value for {', '.join(f'{prefix}{key}=…' for key in missing)}")


def flatten(config: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of every leaf of a configuration dataclass."""
    found: list[tuple[str, Any]] = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            found += flatten(value, f"{prefix}{item.name}.")
        else:
            found.append((prefix + item.name, value))
    return found


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration dataclass as plain nested dicts and lists."""
    return dataclasses.asdict(config)


def write_yaml(config: Any, path: str | Path) -> None:
    """Write the fully resolved configuration as YAML."""
    from omegaconf import OmegaConf

    from avhubert.files import write_text

    write_text(path, OmegaConf.to_yaml(OmegaConf.create(to_dict(config))))
