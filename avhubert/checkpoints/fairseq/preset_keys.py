"""The keys of the published project's training configurations, and ours that they become.

Each published key is in exactly one of the tables: it becomes one of our keys (SHARED_KEYS, PRETRAIN_KEYS,
FINETUNE_KEYS), has one supported value (REQUIRED_VALUES), is ignored (IGNORED_KEYS), or makes one of our keys together
with others (COMBINED_KEYS).
"""

from __future__ import annotations

from typing import Any

GROUPS = {  # a file with one of these groups is a configuration of the published project
    "task",
    "criterion",
    "lr_scheduler",
    "optimization",
    "distributed_training",
    "dataset",
    "checkpoint",
}

COMMANDS = {"av_hubert": "pretrain", "av_hubert_seq2seq": "finetune"}  # model._name → command

DEFAULT_MAX_TOKENS = 1000  # frames per device, if `dataset.max_tokens` is missing

SHARED_KEYS = {  # of pre-training and of fine-tuning
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

PRETRAIN_KEYS = {
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

FINETUNE_KEYS = {
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

KEYS = {"pretrain": SHARED_KEYS | PRETRAIN_KEYS, "finetune": SHARED_KEYS | FINETUNE_KEYS}

# the original's values of missing keys, where they differ from ours
DEFAULTS: dict[str, dict[str, Any]] = {
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

REQUIRED_VALUES: dict[str, tuple[Any, ...]] = {  # other values are not supported
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

IGNORED_KEYS = {  # nothing reads them
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

COMBINED_KEYS = {  # several of these make one of our keys
    *("distributed_training.distributed_world_size", "optimization.update_freq", "task.label_dir", "hydra.run.dir"),
    *("task.tokenizer_bpe_model", "model._name"),
}
