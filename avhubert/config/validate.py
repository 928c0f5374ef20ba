"""Checks of configuration values: types, ranges, and values that must fit each other."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from pathlib import Path
from typing import Any

from avhubert.config.schema import REQUIRED
from avhubert.constants import MODALITIES
from avhubert.errors import ConfigError

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


def leaf_types(schema: type, prefix: str = "") -> dict[str, Any]:
    """Type of every dotted key of a schema."""
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(schema).items():
        if dataclasses.is_dataclass(kind):
            found |= leaf_types(typing.cast(type, kind), f"{prefix}{name}.")
        else:
            found[prefix + name] = kind
    return found


def keys(schema: type, prefix: str = "") -> list[str]:
    """All dotted keys of a schema."""
    return list(leaf_types(schema, prefix))


def from_dict(schema: type, values: Any, where: str, prefix: str = "") -> Any:
    """Build dataclass `schema` from nested dicts; ConfigError names the wrong key or value and where it stands."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: '{prefix.rstrip('.')}' must hold keys, not '{values}'")
    hints = typing.get_type_hints(schema)
    built = {}
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(unknown_key_message(schema, prefix, name, where))
        kind = hints[name]
        if dataclasses.is_dataclass(kind):
            built[name] = from_dict(typing.cast(type, kind), value, where, f"{prefix}{name}.")
        else:
            built[name] = checked_value(kind, name, value, f"{where}: {prefix}{name}")
    return schema(**built)


def unknown_key_message(schema: type, prefix: str, name: str, where: str) -> str:
    here = keys(schema, prefix)
    near = difflib.get_close_matches(prefix + name, here, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return f"{where}: unknown key '{prefix}{name}'{hint}; known keys: {', '.join(here)}"


def checked_value(kind: Any, name: str, value: Any, where: str) -> Any:
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


def check_together(config: Any, where: str) -> None:
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
