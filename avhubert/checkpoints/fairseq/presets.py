"""Training configurations of the published project (fairseq's layout: `task.data`, `model.w2v_path`, …) as ours.

Every key is one of four kinds: MAPPED to one of ours, FIXED (one value is all that we do), DEAD (nothing reads it any
more; one warning names them) or unknown, which is refused. What such a file leaves out has the original's default where
that is known, else ours.
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from avhubert.config import compose
from avhubert.errors import ConfigError
from avhubert.files import sha256, write_json

GROUPS = {"task", "criterion", "lr_scheduler", "optimization", "distributed_training", "dataset", "checkpoint"}


KINDS = {"av_hubert": "pretrain", "av_hubert_seq2seq": "finetune"}  # model._name → command


GPU_FRAMES = 1000  # of max_tokens where it is left out


# --------------------------------------------------------------------------- the tables: published key → ours
MAPPED = {
    "common.seed": "seed",
    "common.log_interval": "train.log_every",
    "checkpoint.save_interval_updates": "train.save_every",
    "checkpoint.keep_interval_updates": "train.keep_last",
    "dataset.num_workers": "data.workers",
    "dataset.max_tokens": "train.frames_per_batch",
    "dataset.validate_interval_updates": "train.validate_every",
    "optimization.max_update": "train.max_steps",
    "optimization.lr": "optimizer.lr",
    "optimization.clip_norm": "optimizer.clip_norm",
    "optimizer.adam_betas": "optimizer.betas",
    "optimizer.adam_eps": "optimizer.eps",
    "optimizer.weight_decay": "optimizer.weight_decay",
    "lr_scheduler._name": "optimizer.schedule",
    "lr_scheduler.warmup_updates": "optimizer.warmup_steps",
    "lr_scheduler.warmup_steps": "optimizer.warmup_steps",
    "lr_scheduler.decay_steps": "optimizer.decay_steps",
    "lr_scheduler.init_lr_scale": "optimizer.init_lr_scale",
    "lr_scheduler.final_lr_scale": "optimizer.final_lr_scale",
    "task.data": "data.dir",
    "task.max_sample_size": "data.max_frames",
    "task.min_sample_size": "data.min_frames",
    "task.max_trim_sample_size": "data.crop_frames",
    "task.pad_audio": "data.pad",
    "task.random_crop": "data.random_crop",
    "task.image_aug": "data.augment",
    "task.modalities": "data.modalities",
    "task.noise_wav": "data.noise",
    "task.noise_prob": "data.noise_prob",
    "task.noise_snr": "data.noise_snr",
    "task.noise_num": "data.noise_num",
    "model.dropout": "model.dropout",
    "model.attention_dropout": "model.attention_dropout",
    "model.activation_dropout": "model.activation_dropout",
    "model.dropout_input": "model.dropout_input",
    "model.feature_grad_mult": "model.feature_grad_mult",
}


PRETRAIN = {
    "task.label_dir": "data.labels",
    "criterion.pred_masked_weight": "objective.masked_weight",
    "criterion.pred_nomask_weight": "objective.unmasked_weight",
    "criterion.loss_weights": "objective.features_pen_weight",
    "model.resnet_relu_type": "model.visual_activation",
    "model.mask_prob_audio": "masking.prob_audio",
    "model.mask_length_audio": "masking.length_audio",
    "model.mask_prob_image": "masking.prob_video",
    "model.mask_length_image": "masking.length_video",
    "model.selection_type": "masking.selection",
    "model.modality_dropout": "masking.modality_dropout",
    "model.audio_dropout": "masking.audio_dropout",
} | {
    f"model.{key}": f"model.{key}"
    for key in (
        *("modality_fuse", "masking_type", "final_dim", "encoder_layerdrop", "untie_final_proj", "layer_norm_first"),
        *("audio_feat_dim", "encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads"),
        *("conv_pos", "conv_pos_groups", "logit_temp"),
    )
}  # fmt: skip


FINETUNE = {
    "criterion.label_smoothing": "objective.label_smoothing",
    "model.w2v_path": "model.pretrained",
    "model.layerdrop": "model.encoder_layerdrop",
    "model.freeze_finetune_updates": "train.freeze_encoder_steps",
    "model.decoder_layers": "model.decoder.layers",
    "model.decoder_ffn_embed_dim": "model.decoder.ffn_embed_dim",
    "model.decoder_attention_heads": "model.decoder.attention_heads",
    "model.decoder_dropout": "model.decoder.dropout",
    "model.decoder_activation_dropout": "model.decoder.activation_dropout",
    "model.decoder_attention_dropout": "model.decoder.attention_dropout",
}


KEYS = {"pretrain": MAPPED | PRETRAIN, "finetune": MAPPED | FINETUNE}


# what the original takes for keys that are left out
LEFT_OUT: dict[str, dict[str, Any]] = {
    "pretrain": {
        "common.seed": 1, "optimization.clip_norm": 0.0, "optimizer.adam_betas": [0.9, 0.999],
        "optimizer.adam_eps": 1e-8, "optimizer.weight_decay": 0.0, "model.encoder_layerdrop": 0.0,
        "model.dropout_input": 0.0, "model.feature_grad_mult": 1.0, "model.untie_final_proj": False,
        "model.layer_norm_first": False, "task.min_sample_size": 1,
    },
    "finetune": {
        "common.seed": 1, "optimization.clip_norm": 0.0, "optimizer.adam_betas": [0.9, 0.999],
        "optimizer.adam_eps": 1e-8, "optimizer.weight_decay": 0.0, "model.dropout": 0.0,
        "model.attention_dropout": 0.0, "model.activation_dropout": 0.0, "model.layerdrop": 0.0,
        "model.dropout_input": 0.0, "model.feature_grad_mult": 0.0,
    },
}  # fmt: skip


FIXED: dict[str, tuple[Any, ...]] = {
    "task._name": ("av_hubert_pretraining",),
    "task.normalize": (True,),
    "task.stack_order_audio": (4,),
    "task.sample_rate": (25, 16000),
    "task.tokenizer_bpe_name": ("sentencepiece", None),
    "task.image_mean": (0.421,),
    "task.image_std": (0.165,),
    "task.image_crop_size": (88,),
    "optimizer._name": ("adam",),
    "lr_scheduler.hold_steps": (0,),
    "lr_scheduler.phase_ratio": (None,),
    "lr_scheduler.end_learning_rate": (0, 0.0),
    "lr_scheduler.power": (1, 1.0),
    "criterion._name": ("av_hubert", "label_smoothed_cross_entropy"),
    "model.sub_encoder_layers": (0,),
    "model.sim_type": ("cosine",),
    "model.activation_fn": ("gelu",),
    "model.share_decoder_input_output_embed": (True,),
    "model.decoder_normalize_before": (True,),
    "model.decoder_learned_pos": (False,),
    "model.no_token_positional_embeddings": (False,),
    "model.no_scale_embedding": (True,),
    "model.decoder_layerdrop": (0, 0.0),
    "model.no_pretrained_weights": (False,),
    "checkpoint.restore_file": ("checkpoint_last.pt",),
    "checkpoint.finetune_from_model": (None,),
}


DEAD = {
    *("common.fp16", "common.log_format", "common.user_dir", "common.tensorboard_logdir", "common.empty_cache_freq"),
    *("common.wandb_project", "common.no_progress_bar", "common.fp16_init_scale", "common.memory_efficient_fp16"),
    *("common.min_loss_scale", "common.fp16_no_flatten_grads", "common.all_gather_list_size"),
    *("checkpoint.save_interval", "checkpoint.save_dir", "checkpoint.no_epoch_checkpoints"),
    *("checkpoint.best_checkpoint_metric", "checkpoint.maximize_best_checkpoint_metric", "checkpoint.patience"),
    *("checkpoint.keep_last_epochs", "checkpoint.keep_best_checkpoints", "checkpoint.no_last_checkpoints"),
    *("checkpoint.reset_optimizer", "checkpoint.reset_dataloader", "checkpoint.reset_meters"),
    *("checkpoint.reset_lr_scheduler", "checkpoint.no_save", "checkpoint.save_interval_updates_offset"),
    *("distributed_training.ddp_backend", "distributed_training.distributed_backend"),
    *("distributed_training.distributed_port", "distributed_training.nprocs_per_node"),
    *("distributed_training.find_unused_parameters", "distributed_training.distributed_init_method"),
    *("distributed_training.distributed_rank", "distributed_training.device_id"),
    *("dataset.skip_invalid_size_inputs_valid_test", "dataset.validate_interval", "dataset.validate_after_updates"),
    *("dataset.train_subset", "dataset.valid_subset", "dataset.required_batch_size_multiple"),
    *("dataset.max_tokens_valid", "dataset.batch_size", "dataset.disable_validation", "dataset.fixed_validation_seed"),
    *("dataset.data_buffer_size", "dataset.gen_subset"),
    *("optimization.sentence_avg", "optimization.max_epoch", "optimization.stop_time_hours", "optimization.use_bmuf"),
    "optimization.stop_min_lr",
    *("optimizer.use_old_adam", "optimizer.tpu", "optimizer.lr", "optimizer.fp16_adam_stats"),
    *("lr_scheduler.total_num_update", "lr_scheduler.max_update", "lr_scheduler.lr", "lr_scheduler.force_anneal"),
    *("task.labels", "task.label_rate", "task.input_modality", "task.is_s2s", "task.single_target", "task.fine_tuning"),
    *("task.tokenizer_bpe_model", "task.enable_padding", "task.shuffle"),
    *("criterion.report_accuracy", "criterion.log_keys", "criterion.sentence_avg", "criterion.ignore_prefix_size"),
    *("model._name", "model.label_rate", "model.skip_masked", "model.skip_nomask", "model.dropout_features"),
    *("model.extractor_mode", "model.wav_input", "model.conv_feature_layers", "model.conv_bias", "model.w2v_args"),
    *("model.apply_mask", "model.mask_prob", "model.mask_length", "model.mask_selection", "model.mask_other"),
    *("model.mask_min_space", "model.no_mask_overlap", "model.mask_channel_prob", "model.mask_channel_length"),
    *("model.mask_channel_selection", "model.mask_channel_other", "model.mask_channel_min_space"),
    *("model.no_mask_channel_overlap", "model.final_dropout", "model.decoder_embed_dim", "model.decoder_output_dim"),
    *("model.decoder_input_dim", "model.max_target_positions", "model.target_glu", "model.resnet_weights"),
    *("model.autoregressive", "model.adaptive_softmax_cutoff", "model.adaptive_softmax_dropout", "model.normalize"),
    *("model.data",),
}  # fmt: skip


ELSEWHERE = {  # read below, by more than one rule
    *("distributed_training.distributed_world_size", "optimization.update_freq", "task.label_dir", "hydra.run.dir"),
    *("task.tokenizer_bpe_model", "model._name"),
}


# --------------------------------------------------------------------------- the way from there to here
def compose_any(
    command: str, name: str, overrides: Sequence[str], config_dir: Path | None, say: Callable[[str], None]
) -> Any:
    """`config.compose`, or the same of a file in `config_dir` that the published project's training would read.

    `overrides` of such a file may be in its words (`task.data=…`, `hydra.run.dir=…`) or in ours. `say` gets the one
    warning. Raises ConfigError: keys that neither knows, a value that we have nothing for, the other command's file.
    """
    path = None if config_dir is None else Path(config_dir) / f"{name.removesuffix('.yaml')}.yaml"
    if path is None or not path.is_file() or not GROUPS & (old := _read(path)).keys():
        return compose(command, name, overrides, config_dir)
    kind = _kind(old, path)
    if kind != command:
        raise ConfigError(f"{path} is a configuration for `avhubert {kind}`, not for `avhubert {command}`")
    known = MAPPED.keys() | PRETRAIN.keys() | FINETUNE.keys() | FIXED.keys() | DEAD | ELSEWHERE
    ours = []
    for text in overrides:
        key, equals, value = text.lstrip("+").partition("=")
        if equals and (key in known or key.startswith("hydra.")):
            _set(old, key, value)
        else:
            ours.append(text)
    flat = _resolved(old, path)
    unknown = [key for key in flat if key not in known and not key.startswith("hydra.")]
    if unknown:
        raise ConfigError(
            f"{path}: unknown key {', '.join(unknown)}: not one of the published project's training; remove it, or "
            f"give what you mean in the words of `avhubert {kind}`"
        )
    values = _translated(flat, kind, path)
    dead = [key for key in flat if (key in DEAD or key.startswith("hydra.")) and key not in ELSEWHERE]
    if dead:
        say(f"warning: {path}: without effect here: {', '.join(dead)}")
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / path.name, _nested(values))  # JSON is YAML
        return compose(command, path.stem, ours, folder)


def _read(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def _kind(old: dict[str, Any], path: Path) -> str:
    model = old.get("model")
    name = model.get("_name") if isinstance(model, dict) else None
    if name not in KINDS:
        raise ConfigError(f"{path}: model._name={name}: only {' and '.join(KINDS)} are trained here")
    return KINDS[name]


def _set(old: dict[str, Any], key: str, value: str) -> None:
    """Set a dotted key to a value as it is written on the command line."""
    *groups, leaf = key.split(".")
    for group in groups:
        old = old.setdefault(group, {})
    try:
        old[leaf] = {"true": True, "false": False, "null": None}[value.lower()]
    except KeyError:
        try:
            old[leaf] = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # text, such as a path
            old[leaf] = value


def _resolved(old: dict[str, Any], path: Path) -> dict[str, Any]:
    """Dotted key → value, `${…}` followed; what hydra fills in at run time stays as it is written."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in values.items():
            inside = isinstance(value, dict) and value
            found |= flatten(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
        return found

    hydra = {"hydra": old["hydra"]} if isinstance(old.get("hydra"), dict) else {}
    rest = {key: value for key, value in old.items() if key not in ("hydra", "_name")}
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(rest), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    assert isinstance(resolved, dict)
    return flatten(resolved) | flatten(hydra)  # type: ignore[arg-type]


def _translated(flat: dict[str, Any], kind: str, path: Path) -> dict[str, Any]:
    """Our dotted keys and their values."""

    def refuse(key: str, sentence: str) -> None:
        raise ConfigError(f"{path}: {key}={flat[key]} {sentence}")

    for key, allowed in FIXED.items():
        if key in flat and not any(flat[key] == value for value in allowed):
            refuse(key, f"is not done here, only {' or '.join(map(str, allowed))}")
    if kind == "finetune" and not flat.get("optimization.sentence_avg", True):
        refuse("optimization.sentence_avg", "is not done here: the loss is divided by sentences")
    values: dict[str, Any] = {}
    for key, value in (LEFT_OUT[kind] | flat).items():
        ours = KEYS[kind].get(key)
        if ours is not None and value is not None and value != "???":
            values[ours] = _converted(key, value, path)
        elif ours is None and key in PRETRAIN | FINETUNE and key not in ELSEWHERE:
            other = "finetune" if kind == "pretrain" else "pretrain"
            refuse(key, f"belongs to `avhubert {other}`; remove it")
    for key in ("checkpoint.save_interval_updates", "checkpoint.keep_interval_updates"):  # 0, -1: by epochs, all
        if flat.get(key, 1) < 1:
            del values[KEYS[kind][key]]
    if flat.get("dataset.validate_interval_updates", 1) < 1:
        del values["train.validate_every"]
    if flat.get("model.final_dim", 1) == 0:  # as wide as the encoder
        values["model.final_dim"] = values.get("model.encoder_embed_dim", 768)
    if flat.get("model.audio_feat_dim", 1) == -1:
        del values["model.audio_feat_dim"]
    devices = flat.get("distributed_training.distributed_world_size", 1)
    gathered = flat.get("optimization.update_freq", 1)
    gathered = gathered[0] if isinstance(gathered, list) else gathered
    values["train.frames_per_step"] = (
        int(devices) * int(gathered) * values.setdefault("train.frames_per_batch", GPU_FRAMES)
    )
    run_dir = flat.get("hydra.run.dir")
    if run_dir is not None and "${" not in str(run_dir):
        values["run_dir"] = str(run_dir)
    if kind == "finetune":
        _check_texts(flat, values, path)
        modality = values.setdefault("data.modalities", "av")
        values |= {"data.draw_av": 0.0, f"data.draw_{modality}": 1.0}
    return values


def _check_texts(flat: dict[str, Any], values: dict[str, Any], path: Path) -> None:
    """Transcripts and tokenizer lie in the data directory here; others would be another training."""
    data, labels = values.get("data.dir"), flat.get("task.label_dir")
    if data is None:
        return
    if labels not in (None, "???") and Path(labels).resolve() != Path(data).resolve():
        raise ConfigError(
            f"{path}: task.label_dir={labels}: transcripts are read from task.data={data}; put them there"
        )
    model, own = flat.get("task.tokenizer_bpe_model"), Path(data) / "tokenizer.model"
    if model in (None, "???"):
        return
    if not Path(model).is_file():
        raise ConfigError(f"{path}: task.tokenizer_bpe_model={model} does not exist")
    if not own.is_file() or sha256(own) != sha256(model):
        raise ConfigError(f"{path}: task.tokenizer_bpe_model={model} is not {own}, which is read here; copy it there")


def _converted(key: str, value: Any, path: Path) -> Any:
    """A value in our form."""
    if isinstance(value, str) and value[:1] in "([":  # "(0.9,0.98)"
        try:
            value = list(ast.literal_eval(value))
        except (ValueError, SyntaxError, TypeError) as error:
            raise ConfigError(f"{path}: {key}={value} is not a list of numbers") from error
    if key in ("optimization.lr", "criterion.loss_weights"):
        given = value if isinstance(value, list) else [value]
        if len(given) != 1:
            raise ConfigError(f"{path}: {key}={value}: only one value is used here")
        return given[0]
    if key == "lr_scheduler._name":
        names = {"polynomial_decay": "polynomial", "tri_stage": "tri_stage"}
        if value not in names:
            raise ConfigError(f"{path}: {key}={value}: only {' and '.join(names)} are done here")
        return names[value]
    if key == "task.modalities":
        found = "".join(letter for letter, name in (("a", "audio"), ("v", "video")) if name in value)
        if not found or len(found) != len(value):
            raise ConfigError(f"{path}: {key}={value}: must be of audio and video")
        return found
    if key == "task.noise_snr":
        try:
            snr = [int(item) for item in value] if isinstance(value, list) else [int(value)] * 2
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}: {key}={value} must be one or two whole numbers of dB") from error
        return snr
    return value


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for key, value in values.items():
        *groups, leaf = key.split(".")
        place = root
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = value
    return root
