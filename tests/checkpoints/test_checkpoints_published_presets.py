"""Configurations of the published project: what they say is what our presets of the same recipes say."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from avhubert.checkpoints.fairseq.preset_keys import COMBINED_KEYS, IGNORED_KEYS, KEYS, REQUIRED_VALUES, SHARED_KEYS
from avhubert.checkpoints.fairseq.presets import compose_any
from avhubert.cli.app import main
from avhubert.config import compose
from avhubert.config.validate import flatten
from avhubert.errors import ConfigError

pytestmark = pytest.mark.quick

PRETRAIN: dict[str, Any] = {
    "common": {"fp16": True, "log_interval": 50, "seed": 1337, "user_dir": "???"},
    "checkpoint": {"save_interval_updates": 5000, "keep_interval_updates": 2, "no_epoch_checkpoints": True},
    "distributed_training": {"ddp_backend": "no_c10d", "distributed_world_size": 32, "nprocs_per_node": 8},
    "task": {
        "_name": "av_hubert_pretraining", "data": "???", "label_dir": "???", "labels": ["km"],
        "label_rate": "${model.label_rate}", "sample_rate": 25, "max_sample_size": 500, "min_sample_size": 5,
        "pad_audio": True, "random_crop": False, "normalize": True, "stack_order_audio": 4, "image_aug": True,
        "input_modality": "image",
    },
    "dataset": {"num_workers": 0, "max_tokens": 1000, "validate_interval_updates": 10000},
    "criterion": {"_name": "av_hubert", "pred_masked_weight": 1.0, "pred_nomask_weight": 0.0, "loss_weights": [10]},
    "optimization": {"max_update": 400000, "lr": [0.0005], "clip_norm": 10.0},
    "optimizer": {"_name": "adam", "adam_betas": "(0.9,0.98)", "adam_eps": 1e-06, "weight_decay": 0.01},
    "lr_scheduler": {"_name": "polynomial_decay", "warmup_updates": 32000},
    "model": {
        "_name": "av_hubert", "label_rate": 25, "skip_masked": False, "skip_nomask": False, "modality_dropout": 0.5,
        "audio_dropout": 0.5, "modality_fuse": "concat", "selection_type": "same_seq", "masking_type": "input",
        "mask_prob_image": 0.3, "mask_length_image": 5, "mask_prob_audio": 0.8, "mask_length_audio": 10,
        "extractor_mode": "default", "final_dim": 256, "encoder_layerdrop": 0.05, "dropout_input": 0.1,
        "dropout_features": 0.1, "dropout": 0.1, "attention_dropout": 0.1, "feature_grad_mult": 0.1,
        "untie_final_proj": True, "activation_dropout": 0.0, "wav_input": False, "layer_norm_first": True,
        "audio_feat_dim": 104,
    },
    "hydra": {"run": {"dir": "out/${now:%H}"}, "job": {"name": "x"}},
}  # fmt: skip
FINETUNE: dict[str, Any] = {
    "common": {"fp16": True, "log_interval": 50, "seed": 1337},
    "checkpoint": {"save_interval": 2, "keep_interval_updates": 2, "best_checkpoint_metric": "accuracy",
                   "save_interval_updates": 1000},
    "distributed_training": {"distributed_world_size": 8},
    "task": {
        "_name": "av_hubert_pretraining", "is_s2s": True, "data": "???", "label_dir": "???",
        "tokenizer_bpe_model": "???", "normalize": True, "labels": ["wrd"], "single_target": True,
        "fine_tuning": True, "stack_order_audio": 4, "tokenizer_bpe_name": "sentencepiece", "max_sample_size": 500,
        "modalities": ["video"], "image_aug": True, "pad_audio": True, "random_crop": False,
    },
    "dataset": {"num_workers": 0, "max_tokens": 1000, "validate_interval_updates": 1000},
    "criterion": {"_name": "label_smoothed_cross_entropy", "report_accuracy": True, "label_smoothing": 0.1},
    "optimization": {"max_update": 45000, "lr": [0.001], "sentence_avg": True, "update_freq": [1]},
    "optimizer": {"_name": "adam", "adam_betas": "(0.9,0.98)", "adam_eps": 1e-08},
    "lr_scheduler": {"_name": "tri_stage", "warmup_steps": 15000, "hold_steps": 0, "decay_steps": 30000,
                     "final_lr_scale": 0.05},
    "model": {
        "_name": "av_hubert_seq2seq", "w2v_path": "???", "apply_mask": False, "mask_prob": 0.5, "layerdrop": 0.1,
        "activation_dropout": 0.1, "attention_dropout": 0.0, "dropout": 0.0, "feature_grad_mult": 1.0,
        "decoder_layers": 6, "decoder_dropout": 0.1, "decoder_attention_dropout": 0.0,
        "decoder_activation_dropout": 0.1, "freeze_finetune_updates": 22500,
        "share_decoder_input_output_embed": True, "decoder_normalize_before": True, "final_dropout": 0.0,
    },
}  # fmt: skip


def written(folder: Path, old: dict[str, Any], *changes: tuple[str, Any]) -> Path:
    """`old` with changed keys as folder/old.yaml; returns the folder."""
    old = copy.deepcopy(old)
    for key, value in changes:
        *groups, leaf = key.split(".")
        place = old
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = value
    (folder / "old.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(old)), encoding="utf-8")
    return folder


def test_pre_training_is_that_of_our_preset(tmp_path: Path) -> None:
    said: list[str] = []
    given = ["task.data=d", "task.label_dir=l", "hydra.run.dir=r", "common.user_dir=here"]
    config = compose_any("pretrain", "old.yaml", given, written(tmp_path, PRETRAIN), said.append)
    expected = compose("pretrain", "base_lrs3_iter5", ["data.dir=d", "data.labels=l", "run_dir=r"])
    assert dict(flatten(config)) == dict(flatten(expected))
    assert len(said) == 1
    for dead in ("common.fp16", "common.user_dir", "model.skip_masked", "task.labels", "hydra.job.name"):
        assert dead in said[0]
    assert "task.data" not in said[0]


def test_fine_tuning_is_that_of_our_preset(tmp_path: Path, data_dir: Path) -> None:
    said: list[str] = []
    given = [
        f"task.data={data_dir}", f"task.label_dir={data_dir}", "model.w2v_path=p.pt", "run_dir=r",
        f"task.tokenizer_bpe_model={data_dir / 'tokenizer.model'}", "optimization.max_update=30", "data.workers=3",
    ]  # fmt: skip
    config = compose_any("finetune", "old", given, written(tmp_path, FINETUNE), said.append)
    same = [f"data.dir={data_dir}", "model.pretrained=p.pt", "run_dir=r", "train.max_steps=30", "data.workers=3"]
    assert dict(flatten(config)) == dict(flatten(compose("finetune", "base_vox_433h", same)))
    assert "model.apply_mask, model.mask_prob, model.final_dropout" in said[0]


def test_noise_and_both_streams(tmp_path: Path) -> None:
    noisy = [
        ("task.modalities", ["audio", "video"]), ("task.noise_prob", 0.25), ("task.noise_snr", "(-10,10)"),
        ("task.noise_num", 1), ("task.noise_wav", "noise"), ("task.noise_snr", "(-10,10)"),
    ]  # fmt: skip
    config = compose_any("finetune", "old", [], written(tmp_path, FINETUNE, *noisy), print)
    assert (config.data.modalities, config.data.draw_av, config.data.draw_v) == ("av", 1.0, 0.0)
    assert (config.data.noise, config.data.noise_prob, config.data.noise_snr) == ("noise", 0.25, [-10, 10])
    config = compose_any("finetune", "old", ["task.noise_snr=0"], written(tmp_path, FINETUNE, *noisy), print)
    assert config.data.noise_snr == [0, 0]


def test_what_is_left_out_has_the_originals_default(tmp_path: Path) -> None:
    short = {"task": {"data": "d"}, "model": {"_name": "av_hubert", "final_dim": 0, "encoder_embed_dim": 1024,
             "encoder_attention_heads": 16}, "optimization": {"update_freq": [4], "lr": [0.1]},
             "checkpoint": {"save_interval_updates": 0, "keep_interval_updates": -1}}  # fmt: skip
    config = compose_any("pretrain", "old", [], written(tmp_path, short), print)
    assert (config.seed, config.optimizer.clip_norm, config.optimizer.betas) == (1, 0.0, [0.9, 0.999])
    assert (config.model.final_dim, config.model.layer_norm_first) == (1024, False)
    assert (config.train.frames_per_batch, config.train.frames_per_step) == (1000, 4000)
    assert config.train.keep_last == 2


@pytest.mark.parametrize(
    ("command", "changes", "words"),
    [
        ("pretrain", {"task.colour": 1, "modell.x": 2}, r"unknown key task\.colour, modell\.x: not one of"),
        ("finetune", {}, "is a configuration for `avhubert pretrain`, not for `avhubert finetune`"),
        ("pretrain", {"model._name": "wav2vec2"}, "wav2vec2 is not supported; supported: av_hubert and av_"),
        ("pretrain", {"model.sub_encoder_layers": 2}, r"model\.sub_encoder_layers=2 is not supported; supported: 0"),
        ("pretrain", {"model.w2v_path": "x"}, r"model\.w2v_path=x belongs to `avhubert finetune`; remove it"),
        ("pretrain", {"optimization.lr": [0.1, 0.2]}, r"optimization\.lr=\[0\.1, 0\.2\] is not supported: only one"),
        ("pretrain", {"optimizer.adam_betas": "(0.9"}, r"optimizer\.adam_betas=\(0\.9 is not a list of numbers"),
        ("pretrain", {"lr_scheduler._name": "cosine"}, "cosine is not supported; supported: polynomial_decay and"),
        ("pretrain", {"task.modalities": ["smell"]}, r"task\.modalities=\['smell'\] must be a list of audio and video"),
        ("pretrain", {"task.modalities": 2}, r"task\.modalities=2 must be a list of audio and video"),
        ("pretrain", {"optimization.update_freq": "many"}, r"optimization\.update_freq=many must be a whole number"),
        ("pretrain", {"dataset.max_tokens": "many"}, r"dataset\.max_tokens=many must be a whole number"),
        ("pretrain", {"checkpoint.save_interval_updates": "many"}, r"train\.save_every=many must be a whole number"),
        ("pretrain", {"task.noise_snr": "loud"}, r"task\.noise_snr=loud must be one or two whole numbers"),
        ("pretrain", {"task.data": "${nothing.there}"}, "cannot be read"),
        ("pretrain", {"model.dropout": 2}, r"model\.dropout=2 must be between 0 and 1"),
    ],
)  # fmt: skip
def test_what_is_refused(command: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        compose_any(command, "old", [], written(tmp_path, PRETRAIN, *changes.items()), print)


def test_texts_and_tokenizer_must_be_those_of_the_data(tmp_path: Path, data_dir: Path) -> None:
    folder = written(tmp_path, FINETUNE)
    other = tmp_path / "other.model"
    other.write_bytes(b"another")
    for given, words in (
        (f"task.label_dir={tmp_path}", r"transcripts are read from task\.data="),
        ("task.tokenizer_bpe_model=nowhere", "tokenizer_bpe_model=nowhere does not exist"),
        (f"task.tokenizer_bpe_model={other}", r"other\.model is not .*tokenizer\.model, which is read here; copy it"),
        ("optimization.sentence_avg=false", "the loss is divided by sentences"),
    ):
        with pytest.raises(ConfigError, match=words):
            compose_any("finetune", "old", [f"task.data={data_dir}", given], folder, print)


def test_the_command_warns_once_and_trains(
    tmp_path: Path, data_dir: Path, labels_dir: Path, small_model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path, PRETRAIN)
    given = [
        f"task.data={data_dir}", f"task.label_dir={labels_dir}", f"hydra.run.dir={tmp_path / 'run'}",
        "optimization.max_update=1", "distributed_training.distributed_world_size=1", "dataset.max_tokens=80",
        *small_model,
    ]  # fmt: skip
    assert main(["pretrain", "--config-dir", str(folder), "--config-name", "old.yaml", *given]) == 0
    error = capsys.readouterr().err
    assert error.count("warning") == 1
    assert "old.yaml: these keys have no effect: common.fp16" in error
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert main(["finetune", "--config-dir", str(folder), "--config-name", "old"]) == 2
    shutil.copy(folder / "old.yaml", folder / "new.yaml")
    (folder / "new.yaml").write_text("seed: 3\nrun_dr: x\n", encoding="utf-8")
    assert main(["pretrain", "--config-dir", str(folder), "--config-name", "new"]) == 2
    assert "unknown key 'run_dr'" in capsys.readouterr().err


def test_every_key_is_of_one_kind() -> None:
    mapped = KEYS["pretrain"].keys() | KEYS["finetune"].keys()
    assert not mapped & REQUIRED_VALUES.keys()
    assert not mapped & IGNORED_KEYS - COMBINED_KEYS
    assert not REQUIRED_VALUES.keys() & IGNORED_KEYS
    for command, preset in (("pretrain", "base_lrs3_iter5"), ("finetune", "base_vox_433h")):
        ours = {key for key, _ in flatten(compose(command, preset))}
        assert set(KEYS[command].values()) <= ours
    assert SHARED_KEYS.keys() <= KEYS["pretrain"].keys() & KEYS["finetune"].keys()
