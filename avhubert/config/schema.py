"""The schema of every preset: one dataclass per group of keys, and for each key default, allowed values and meaning.

A preset is a YAML file in `avhubert/config/presets` that holds only what differs from its parent. The defaults here are
the published Base configuration (Shi et al., ICLR 2022, appendix; LRS3 iteration 5). Frames are video frames at 25 Hz.
"""

# ruff: noqa: RUF009 (the calls in the class bodies return dataclass fields)
from __future__ import annotations

from dataclasses import dataclass

from avhubert.config.fields import choice, group, key, not_negative, positive, required, share, variation
from avhubert.constants import AUDIO_DIM, MODALITIES


# --------------------------------------------------------------------------- saved with a model
@dataclass
class ModelConfig:
    """Sizes and regularisation of AVHubert: front ends, fusion, transformer encoder and cluster heads."""

    audio_feat_dim: int = positive(AUDIO_DIM, "Stacked filterbank values per video frame.")
    visual_width: int = positive(64, "Channels of the 3-D stem; the four stages have 1, 2, 4 and 8 times as many.")
    visual_blocks: list[int] = key([2, 2, 2, 2], "Residual blocks of each of the four stages.", lowest=1)
    visual_activation: str = choice("prelu", ("prelu", "relu"), "Activation of the visual front end.")
    modality_fuse: str = choice("concat", ("concat", "add"), "How audio and video features are combined.")
    encoder_layers: int = positive(12, "Transformer layers.")
    encoder_embed_dim: int = positive(
        768, "Width of the encoder; a multiple of encoder_attention_heads and of conv_pos_groups."
    )
    encoder_ffn_embed_dim: int = positive(3072, "Width of the feed-forward blocks.")
    encoder_attention_heads: int = positive(12, "Attention heads per layer.")
    layer_norm_first: bool = key(True, "Layer norm before each block (true) or after it (false).")
    conv_pos: int = positive(128, "Kernel size of the positional convolution.", "frames")
    conv_pos_groups: int = positive(16, "Groups of the positional convolution.")
    dropout: float = share(0.1, "Dropout after attention and feed-forward blocks.")
    attention_dropout: float = share(0.1, "Dropout of the attention weights.")
    activation_dropout: float = share(0.0, "Dropout inside the feed-forward blocks.")
    encoder_layerdrop: float = share(0.05, "Probability that a layer is skipped in training.")
    dropout_input: float = share(0.1, "Dropout of the encoder's input.")
    feature_grad_mult: float = not_negative(0.1, "Scale of the gradients into both front ends.")
    masking_type: str = choice(
        "input", ("input", "feature"), "Where pre-training masks: the inputs, or the fused features."
    )
    final_dim: int = positive(256, "Width of the cluster embeddings.")
    untie_final_proj: bool = key(True, "One projection per label set (true) or one for all (false).")
    logit_temp: float = positive(0.1, "Temperature that divides the cosine similarities.")
    num_classes: list[int] = not_negative([], "Classes of each label set; filled in from the cluster dictionaries.")


@dataclass
class DecoderConfig:
    """Sizes of a recognizer's heads: an attention decoder as wide as the encoder, and CTC."""

    layers: int = positive(6, "Transformer layers.")
    ffn_embed_dim: int = positive(3072, "Width of the feed-forward blocks.")
    attention_heads: int = positive(4, "Attention heads per layer.")
    dropout: float = share(0.1, "Dropout after attention and feed-forward blocks.")
    activation_dropout: float = share(0.1, "Dropout inside the feed-forward blocks.")
    attention_dropout: float = share(0.0, "Dropout of the attention weights.")
    ctc: bool = key(False, "Add a linear CTC head on the encoder's output; its blank symbol is <s>.")
    activation: str = choice("relu", ("relu", "gelu"), "Activation of the feed-forward blocks.")
    positions: str = choice(
        "halves",
        ("halves", "interleaved"),
        "Sinusoidal positions: sines, then cosines, counted from 2 (halves, published), or sines and cosines in turn, "
        "counted from 0 (interleaved).",
    )
    start: str = choice("</s>", ("</s>", "<s>"), "Symbol before the first token of a text.")
    shared_embedding: bool = key(True, "Use the input embedding for the output (true) or a matrix of its own (false).")
    longest_text: int | None = positive(None, "Longest text, </s> included; null: no limit.", "tokens")
    vocab_size: int = not_negative(0, "Symbols; filled in from the tokenizer.")


@dataclass
class DecodeConfig:
    """Beam search settings, saved with a recognizer; the defaults are the published `s2s_decode`."""

    beam: int = positive(50, "Hypotheses kept at each step.")
    lenpen: float = not_negative(1.0, "Length penalty: a score is divided by length ** lenpen.")
    max_len_a: float = not_negative(1.0, "Longest hypothesis: max_len_a * frames + max_len_b.", "tokens per frame")
    max_len_b: int = not_negative(0, "Longest hypothesis: max_len_a * frames + max_len_b.", "tokens")
    min_len: int = not_negative(1, "Shortest hypothesis.", "tokens")
    nbest: int | None = positive(None, "Hypotheses returned per utterance; null: all finished ones, at most `beam`.")
    ctc_weight: float = share(0.0, "Weight of the CTC head in the score: 0 attention only, 1 CTC only.")
    lm: str | None = key(
        None,
        "Language model: an n-gram file (ARPA or KenLM binary), or a Hugging Face causal language model (folder or "
        "name).",
    )
    lm_weight: float = not_negative(0.0, "Weight of the language model's log-probability; 0: not used.")
    lm_use: str = choice(
        "fusion",
        ("fusion", "rescoring"),
        "Score each token during the search (fusion), or the finished hypotheses (rescoring).",
    )
    stop: str = choice(
        "first",
        ("first", "best"),
        "The search of an utterance ends as soon as `beam` texts have ended (first, published), or when no unfinished "
        "text scores better than the `beam` best ended ones; unfinished texts then count at the length limit (best, as "
        "in transformers).",
    )
    no_repeat_ngram: int = not_negative(0, "No n-gram of this length occurs twice; 0: no such limit.", "tokens")


# --------------------------------------------------------------------------- data
@dataclass
class DataConfig:
    """Which clips are read and how they become batches."""

    dir: str = required("Data directory: {train,valid}.tsv, transcripts, dictionaries, tokenizer.")
    labels: str | list[str] | None = key(
        None, "Pre-training only: folder of {train,valid}.km and labels.json; a list of folders trains on all of them."
    )
    modalities: str = choice("av", tuple(MODALITIES), "Streams to load: audio and video, audio (a) or video (v).")
    max_frames: int = positive(500, "Longest clip; longer ones are skipped and counted.", "frames")
    min_frames: int = positive(5, "Shortest clip; shorter ones are skipped and counted.", "frames")
    crop_frames: int | None = positive(None, "Cut longer clips to this length; null: no cut.", "frames")
    random_crop: bool = key(False, "Cut at a random position instead of the beginning.")
    pad: bool = key(True, "Pad a batch to its longest clip (true) or cut it to its shortest one (false).")
    augment: bool = key(True, "Random crop and horizontal flip of the training video.")
    noise: str | None = key(None, "Noise list: WAV files, one path per line; or a folder of `avhubert noise`.")
    noise_prob: float = share(0.0, "Probability that noise is added to an utterance.")
    noise_snr: list[int] = key([0, 0], "Signal-to-noise ratio: lowest and highest, both included.", unit="dB")
    noise_num: int = positive(1, "Noise files averaged for one utterance.")
    workers: int = not_negative(0, "Threads that load batches in advance; 0: none.")
    max_bad_share: float = share(
        0.01, "Share of a split's clips that may be unreadable and are skipped; 0: the first one stops the run."
    )


@dataclass
class FinetuneDataConfig(DataConfig):
    """The data of fine-tuning: also video corruption, modality choice and time masks."""

    min_frames: int = positive(1, "Shortest clip; shorter ones are skipped and counted.", "frames")
    faults: list[str] = key(
        [], "Video corruptions of the training split: blur, freeze, occlusion, drop, offset:N (N frames)."
    )
    fault_prob: float = share(0.0, "Probability that an utterance gets one of `faults`.")
    wrong_video_prob: float = share(
        0.0,
        "Probability that an utterance trained on audio and video gets the video of another training clip, so that the "
        "model learns to rely on the audio where the lips do not fit.",
    )
    draw_av: float = not_negative(1.0, "Relative weight of training an utterance on audio and video.")
    draw_a: float = not_negative(0.0, "Relative weight of training an utterance on audio only.")
    draw_v: float = not_negative(0.0, "Relative weight of training an utterance on video only.")
    time_mask_rate: float = not_negative(
        0.0, "Mean number of masked spans in each stream of a training clip; 0: none.", "spans per second"
    )
    time_mask_frames: int = positive(10, "Longest masked span.", "frames")
    vary_speed: float = variation("the speed of a training clip, video and audio together; the pitch changes too")
    vary_formants: float = variation("the formants of a training clip's voice (vocal tract length)")
    vary_tone: float = not_negative(
        0.0, "Largest gain or loss of a training clip's audio, which varies smoothly with the frequency.", "dB"
    )
    vary_scale: float = variation("the size of the mouth in a training clip")
    vary_rotation: float = not_negative(0.0, "Largest rotation of a training clip's frames.", "degrees")
    vary_light: float = variation("gamma, contrast and brightness of a training clip's frames")
    vary_sharpness: float = variation("the resolution of a training clip's frames; it only becomes lower")


@dataclass
class RecipeDataConfig:
    """The data of a recipe."""

    dir: str = required("Data directory of all iterations.")


# --------------------------------------------------------------------------- training
@dataclass
class MaskingConfig:
    """Span masks and modality dropout of pre-training (ICLR 2022, § 3.3); `model.masking_type` says where they act."""

    prob_audio: float = share(0.8, "Audio: share of frames that would be masked if spans did not overlap.")
    length_audio: int = positive(10, "Audio: length of a masked span.", "frames")
    prob_video: float = share(0.3, "Video: share of frames that would be masked if spans did not overlap.")
    length_video: int = positive(5, "Video: length of a masked span.", "frames")
    selection: str = choice(
        "same_seq",
        ("same_seq", "same_other_seq"),
        "Frames that replace masked video: of the same clip, or of another clip of the batch. Input masking only.",
    )
    thin: bool = key(True, "Unmask random frames until all clips of a batch have equally many masked ones (published).")
    modality_dropout: float = share(0.5, "Probability that one modality is dropped.")
    audio_dropout: float = share(0.5, "Probability that the dropped modality is audio.")
    dropout_per_utterance: bool = key(False, "Draw the dropped modality per utterance (true) or per batch (false).")


@dataclass
class ObjectiveConfig:
    """The loss of pre-training: masked cluster prediction."""

    masked_weight: float = not_negative(1.0, "Weight of the cross-entropy over masked frames.")
    unmasked_weight: float = not_negative(0.0, "Weight of the cross-entropy over the other frames.")
    features_pen_weight: float = not_negative(10.0, "Weight of the mean square of the fused features.")


@dataclass
class FinetuneObjectiveConfig:
    """The loss of fine-tuning: label-smoothed cross-entropy of the attention decoder, and CTC."""

    label_smoothing: float = share(0.1, "Probability spread over the wrong symbols.")
    ctc_weight: float = share(
        0.0, "Weight of CTC: 0 the attention decoder only, 1 CTC only (the decoder is not trained)."
    )


@dataclass
class OptimizerConfig:
    """Adam with decoupled weight decay, and its learning-rate schedule."""

    lr: float = positive(5.0e-4, "Peak learning rate.")
    betas: list[float] = not_negative([0.9, 0.98], "Decay rates of Adam's two moments; two numbers below 1.")
    eps: float = positive(1.0e-6, "Adam's epsilon.")
    weight_decay: float = not_negative(0.01, "Decoupled weight decay.")
    clip_norm: float = not_negative(10.0, "Largest norm of the gradient; 0: no clipping.")
    schedule: str = choice(
        "polynomial",
        ("polynomial", "tri_stage"),
        "After a linear warm-up: linear to 0 at the last step (polynomial), or exponential over decay_steps and then "
        "constant (tri_stage).",
    )
    warmup_steps: int = not_negative(32_000, "Length of the warm-up.", "steps")
    decay_steps: int | None = not_negative(None, "tri_stage: length of the decay; null: the rest of the run.", "steps")
    init_lr_scale: float = not_negative(0.01, "tri_stage: first learning rate, relative to lr.")
    final_lr_scale: float = positive(0.05, "tri_stage: last learning rate, relative to lr.")


@dataclass
class FinetuneOptimizerConfig(OptimizerConfig):
    """The optimizer of fine-tuning: also layer-wise learning rates."""

    layer_decay: float = key(
        1.0,
        "Learning rate of a layer relative to that of the layer above; 1: equal rates (published).",
        above=0,
        highest=1,
    )


@dataclass
class TrainConfig:
    """Length, size and bookkeeping of a run. A step is one optimizer step, on any number of devices."""

    max_steps: int = positive(400_000, "Length of the run.", "steps")
    frames_per_step: int = positive(32_000, "Frames of one step, over all devices, padding included.", "frames")
    frames_per_batch: int = positive(1_000, "Frames of one micro-batch, padding included.", "frames")
    save_every: int = positive(5_000, "Interval between saved states.", "steps")
    keep_last: int = positive(2, "Saved states to keep.")
    validate_every: int = positive(10_000, "Interval between validations.", "steps")
    log_every: int = positive(50, "Interval between lines of metrics.jsonl.", "steps")
    precision: str = choice(
        "auto",
        ("auto", "32-true", "bf16-mixed", "16-mixed"),
        "Precision of matrix products; auto: bf16-mixed or 16-mixed on a GPU, 32-true on a CPU.",
    )
    accelerator: str = choice("auto", ("auto", "cpu", "cuda", "mps"), "Device type; auto: a GPU if there is one.")
    sharding: str = choice(
        "none",
        ("none", "fsdp"),
        "fsdp: each device holds a part of the parameters and of the optimizer state (torchrun).",
    )
    compile: bool = key(False, "Compile the layers with torch.compile: a slow start, then faster steps on a GPU.")
    checkpoint_activations: bool = key(False, "Recompute activations: much less memory, a third more computation.")
    trackers: list[str] = key([], "Loggers beside RUN/metrics.jsonl.", choices=("tensorboard", "wandb"))


@dataclass
class FinetuneTrainConfig(TrainConfig):
    """The run of fine-tuning: also freezing of the encoder, and the choice of the best step."""

    freeze_encoder_steps: int = not_negative(0, "Number of first steps in which the encoder is frozen.", "steps")
    freeze_encoder_drift: bool = key(
        False, "While frozen, keep dropout and batch-norm updates of the encoder on (published)."
    )
    best_by: str = choice(
        "accuracy",
        ("accuracy", "wer"),
        "Metric of the best step: token accuracy given the previous tokens, or word error rate of greedy decoding "
        "(slower).",
    )


# --------------------------------------------------------------------------- models of the two trainings
@dataclass
class PretrainModelConfig(ModelConfig):
    """The model of pre-training, which may start from another model."""

    pretrained: str | None = key(
        None, "Model to continue from: a model directory or published checkpoint; null: random weights."
    )


@dataclass
class FinetuneModelConfig:
    """The model of fine-tuning: the pre-trained model gives the encoder's sizes, these keys the rest."""

    pretrained: str = required(
        "Model whose encoder is used: a model directory, published checkpoint or `builtin`; none: train `scratch` from "
        "random weights."
    )
    dropout: float = share(0.0, "Dropout after the encoder's attention and feed-forward blocks.")
    attention_dropout: float = share(0.0, "Dropout of the encoder's attention weights.")
    activation_dropout: float = share(0.1, "Dropout inside the encoder's feed-forward blocks.")
    encoder_layerdrop: float = share(0.1, "Probability that a layer of the encoder is skipped in training.")
    dropout_input: float = share(0.0, "Dropout of the encoder's input.")
    feature_grad_mult: float = not_negative(1.0, "Scale of the gradients into both front ends.")
    decoder: DecoderConfig = group(DecoderConfig)
    scratch: ModelConfig = group(ModelConfig)


# --------------------------------------------------------------------------- whole configurations
@dataclass
class PretrainConfig:
    """`avhubert pretrain`."""

    run_dir: str = required("Folder of the run; an unfinished run in it is resumed.")
    seed: int = not_negative(1337, "Random seed.")
    data: DataConfig = group(DataConfig)
    model: PretrainModelConfig = group(PretrainModelConfig)
    masking: MaskingConfig = group(MaskingConfig)
    objective: ObjectiveConfig = group(ObjectiveConfig)
    optimizer: OptimizerConfig = group(OptimizerConfig)
    train: TrainConfig = group(TrainConfig)


@dataclass
class FinetuneConfig:
    """`avhubert finetune`."""

    run_dir: str = required("Folder of the run; an unfinished run in it is resumed.")
    seed: int = not_negative(1337, "Random seed.")
    data: FinetuneDataConfig = group(FinetuneDataConfig)
    model: FinetuneModelConfig = group(FinetuneModelConfig)
    objective: FinetuneObjectiveConfig = group(FinetuneObjectiveConfig)
    optimizer: FinetuneOptimizerConfig = group(FinetuneOptimizerConfig)
    train: FinetuneTrainConfig = group(FinetuneTrainConfig)
    decode: DecodeConfig = group(DecodeConfig)


@dataclass
class RecipeConfig:
    """`avhubert iterate`: the preset and the clusters of each iteration."""

    run_dir: str = required("Folder of the recipe; an unfinished recipe in it is resumed.")
    seed: int = not_negative(1337, "Random seed.")
    data: RecipeDataConfig = group(RecipeDataConfig)
    presets: list[str] = key([], "Pre-training preset of each iteration.")
    clusters: list[int] = key([], "Clusters of each iteration; the first clusters MFCC.", lowest=2)
    teacher_layers: list[int] = not_negative(
        [], "Layer of the previous iteration's model that is clustered; for each iteration but the first."
    )
    percent: float = key(100.0, "Training clips that k-means uses.", unit="%", above=0, highest=100)


SCHEMAS: dict[str, type] = {  # command → schema of its presets; `decode` holds beam search settings alone
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "iterate": RecipeConfig,
    "decode": DecodeConfig,
}
