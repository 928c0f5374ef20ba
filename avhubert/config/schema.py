"""The typed schema of every preset: one dataclass per group, one default per value, checks that name the key.

A preset is a YAML file in `avhubert/config/presets/<command>/NAME.yaml` that holds only what differs from its parent.
The defaults here are the published Base configuration (Shi et al., ICLR 2022, appendix; LRS3 iteration 5).
Counts of frames are video frames at 25 Hz, padding included.
"""

from __future__ import annotations

from dataclasses import dataclass, field

REQUIRED = "???"  # OmegaConf's mark of a value that must be given


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
