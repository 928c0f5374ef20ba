"""AVHubert: front ends, fusion and the transformer encoder (ICLR 2022, § 3 and appendix A).

Shapes: B utterances, T video frames at 25 Hz, D = `encoder_embed_dim`, F = width of the fused front-end output (2·D
with concatenation, D with addition). `padding_mask` is bool [B, T], True = padding, which is at the end of a row only.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avhubert.config.schema import ModelConfig
from avhubert.constants import CROP_SIZE
from avhubert.devices import to_host
from avhubert.errors import ConfigError, DataError
from avhubert.model import inference
from avhubert.model.attention import MultiHeadAttention
from avhubert.model.frontends import VisualFrontEnd
from avhubert.model.inference import Linear
from avhubert.model.inputs import ModelInputs, takes_inputs
from avhubert.model.metadata import ModelMetadata
from avhubert.model.pretraining import ClusterHead


class PositionConvolution(inference.Keeper):
    """Convolutional position embedding: grouped convolution over time, weight-normalised per kernel position.

    Args:
        dim: D.
        kernel: K, its width in frames.
        groups: of channels, a divisor of D.
    """

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.direction = nn.Parameter(torch.empty(dim, dim // groups, kernel))
        self.gain = nn.Parameter(torch.empty(1, 1, kernel))
        self.bias = nn.Parameter(torch.zeros(dim))
        self._kept: inference.Derived[Tensor] = inference.Derived()
        nn.init.normal_(self.direction, std=math.sqrt(4 / (kernel * dim)))
        if not self.direction.is_meta:
            with torch.no_grad():
                self.gain.copy_(self._norm())

    def _norm(self) -> Tensor:
        norm: Tensor = self.direction.norm(dim=(0, 1), keepdim=True)
        return norm

    def weight(self) -> Tensor:
        """The kernel [D, D/groups, K]: gain · direction / ‖direction‖, with the norm over the first two dimensions."""
        if not inference.applies(self.direction):
            return self._weight()
        dtype = inference.product_type(self.direction)
        return self._kept.get((self.direction, self.gain), dtype, lambda: self._weight().to(dtype))

    def _weight(self) -> Tensor:
        return self.direction * (self.gain / self._norm())

    def forward(self, x: Tensor) -> Tensor:
        """Convolution and GELU: [B, T, D] → [B, T, D], to be added to the input."""
        kernel = self.direction.shape[2]
        out = F.conv1d(x.transpose(1, 2), self.weight(), self.bias, padding=kernel // 2, groups=self.groups)
        return F.gelu(out[..., : x.shape[1]].transpose(1, 2))  # an even kernel gives T + 1 frames


@dataclass
class Internals:
    """What a call of the encoder records.

    Attributes:
        states: float [B, T, D]: the input of each layer, then the output of the encoder.
        attentions: float [B, H, T, T]: the attention weights of each layer; None: they are not recorded.
    """

    states: list[Tensor] = field(default_factory=list)
    attentions: list[Tensor] | None = None


class EncoderLayer(nn.Module):
    """A transformer layer, pre-norm or post-norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.norm_first = config.layer_norm_first
        self.attention = MultiHeadAttention(dim, config.encoder_attention_heads, config.attention_dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.fc1 = Linear(dim, config.encoder_ffn_embed_dim)
        self.fc2 = Linear(config.encoder_ffn_embed_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # BERT's initialisation
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def _ffn(self, x: Tensor) -> Tensor:
        output: Tensor = self.dropout(self.fc2(self.activation_dropout(F.gelu(self.fc1(x)))))
        return output

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        weights: list[Tensor] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Attention and feed-forward network: [B, T, D] → [B, T, D].

        Args:
            x: [B, T, D].
            mask: bool [B, 1, 1, T], True for real frames; None: no padding.
            weights: if given, the attention weights [B, H, T, T] are appended to it.
            lengths: of the utterances that x [1, sum of lengths, D] has one after the other, without `mask`.
        """
        if self.norm_first:
            x = x + self.dropout(self.attention(self.attention_norm(x), mask, weights, lengths))
            return x + self._ffn(self.ffn_norm(x))
        x = self.attention_norm(x + self.dropout(self.attention(x, mask, weights, lengths)))
        output: Tensor = self.ffn_norm(x + self._ffn(x))
        return output


class TransformerEncoder(nn.Module):
    """Position convolution, then the layers; training skips random layers (LayerDrop)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.norm_first = config.layer_norm_first
        self.layerdrop = config.encoder_layerdrop
        self.position = PositionConvolution(dim, config.conv_pos, config.conv_pos_groups)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        x: Tensor,
        padding_mask: Tensor | None = None,
        layer: int | None = None,
        internals: Internals | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Encode fused features: [B, T, D] → [B, T, D].

        Args:
            x: [B, T, D].
            padding_mask: bool [B, T]; None: no padding.
            layer: return the output of this layer, 1 … N, without the final norm; None: the output of the encoder.
            internals: if given, the states of all layers are appended to it.
            lengths: real frames of each row, as in `padding_mask`. With them, without `internals`, inference on a CPU
                leaves padding out, and the output is 0 there.
        """
        if padding_mask is None:
            return self._layers(x + self.position(x), None, layer, internals)
        if lengths is not None and internals is None and not self.training and inference.applies(x):
            return self._without_padding(x, lengths, layer)
        x = x.masked_fill(padding_mask[..., None], 0)
        return self._layers(x + self.position(x), ~padding_mask[:, None, None, :], layer, internals)

    def _layers(
        self,
        x: Tensor,
        mask: Tensor | None,
        layer: int | None,
        internals: Internals | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        weights = None if internals is None else internals.attentions
        if not self.norm_first:
            x = self.norm(x)
        x = self.dropout(x)
        for block in self.layers[:layer]:
            if internals is not None:
                internals.states.append(x)
            if not self.training or to_host(torch.rand(())).item() >= self.layerdrop:
                x = block(x, mask, weights, lengths)
        x = self.norm(x) if layer is None and self.norm_first else x
        if internals is not None:
            internals.states.append(x)
        return x

    def _without_padding(self, x: Tensor, lengths: Sequence[int], layer: int | None) -> Tensor:
        """`forward` with the utterances one after the other in one row; only attention and positions separate them."""
        utterances = [row[None, :length] for row, length in zip(x, lengths, strict=True)]
        packed = torch.cat([utterance + self.position(utterance) for utterance in utterances], 1)
        encoded = self._layers(packed, None, layer, None, lengths)
        output = encoded.new_zeros(*x.shape[:2], encoded.shape[2])
        for row, utterance in zip(output, encoded[0].split(list(lengths)), strict=True):
            row[: len(utterance)] = utterance
        return output


class AVHubert(nn.Module):
    """Audio-visual HuBERT.

    Args:
        config: sizes and options. With `num_classes` the model also has `head` and `mask_embedding`, which only
            pre-training uses.

    Attributes:
        metadata: how the weights were made.
        head: cluster heads; None without `num_classes`.
        mask_embedding: replaces masked features; None without `num_classes`.

    Raises:
        ConfigError: the sizes do not match.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        _check_sizes(config)
        self.config = config
        self.metadata = ModelMetadata()
        dim = config.encoder_embed_dim
        self.audio = Linear(config.audio_feat_dim, dim)
        self.visual = VisualFrontEnd(dim, config.visual_width, config.visual_blocks, config.visual_activation)
        concat = config.modality_fuse == "concat"
        self.fusion_norm = nn.LayerNorm(2 * dim if concat else dim)
        self.fusion_projection = Linear(2 * dim, dim) if concat else None
        self.fusion_dropout = nn.Dropout(config.dropout_input)
        self.encoder = TransformerEncoder(config)
        self.mask_embedding: nn.Parameter | None = None
        self.head: ClusterHead | None = None
        if config.num_classes:
            masked_width = config.audio_feat_dim if config.masking_type == "input" else dim
            self.mask_embedding = nn.Parameter(torch.rand(masked_width))
            self.head = ClusterHead(config)

    @takes_inputs(1)
    def front_ends(
        self, inputs: ModelInputs, keep_audio: Tensor | None = None, keep_video: Tensor | None = None
    ) -> Tensor:
        """Compute the fused front-end output, before its layer norm.

        If a row lacks a stream, the features of that stream are zeros; the visual front end processes only rows with
        video. Gradients of the front ends are scaled by `feature_grad_mult`.

        Args:
            inputs: the batch, or its tensors (see `ModelInputs`).
            keep_audio: bool [B], False: the audio features are multiplied by 0 *after* the front end (modality dropout:
                the batch-norm statistics are updated, and gradients are zero instead of None). None: no dropout.
            keep_video: the same for the video features.

        Returns:
            [B, T, F].

        Raises:
            DataError: the number of audio features differs from the model's.
        """
        self._check_audio(inputs)
        scale = self.config.feature_grad_mult
        with torch.no_grad() if scale == 0 else contextlib.nullcontext():
            audio = None if inputs.audio is None else self._audio_features(inputs.audio, inputs)
            video = None if inputs.video is None else self._video_features(inputs.video, inputs)
        if scale not in (0, 1):
            for features in (audio, video):
                if features is not None and features.requires_grad:
                    features.register_hook(lambda gradient: gradient * scale)
        if audio is not None and keep_audio is not None:
            audio = audio * keep_audio.to(audio.dtype)[:, None, None]
        if video is not None and keep_video is not None:
            video = video * keep_video.to(video.dtype)[:, None, None]
        return self.join_streams(audio, video)

    def join_streams(self, audio: Tensor | None, video: Tensor | None) -> Tensor:
        """Join the features [B, T, D] of the streams; a missing stream counts as zeros.

        Returns:
            [B, T, F].
        """
        if audio is None or video is None:
            present = audio if video is None else video
            assert present is not None
            zeros = torch.zeros_like(present)
            audio, video = (present, zeros) if video is None else (zeros, present)
        return torch.cat([audio, video], 2) if self.config.modality_fuse == "concat" else audio + video

    def _check_audio(self, inputs: ModelInputs) -> None:
        width = self.config.audio_feat_dim
        if inputs.audio is not None and inputs.audio.shape[1] != width:
            raise DataError(f"audio must have the shape [batch, {width}, frames], not {list(inputs.audio.shape)}")

    def _audio_features(self, audio: Tensor, inputs: ModelInputs) -> Tensor:
        x: Tensor = audio.transpose(1, 2)
        if inputs.mask is not None:
            x = x.masked_fill(inputs.mask[..., None], 0)
        x = self.audio(x)
        return x if inputs.has_audio is None else x * inputs.has_audio.to(x.dtype)[:, None, None]

    def _video_features(self, video: Tensor, inputs: ModelInputs) -> Tensor:
        assert inputs.lengths is not None
        assert inputs.video_rows is not None
        rows = inputs.video_rows
        if not rows:
            return video.new_zeros(video.shape[0], video.shape[2], self.config.encoder_embed_dim)
        mask = inputs.mask
        lengths = [inputs.lengths[row] for row in rows]
        index = None
        if len(rows) < len(video):
            index = torch.tensor(rows, device=video.device)
            video = video[index]
            mask = None if mask is None else mask[index]
        if mask is not None and self.visual.training:
            # the stem's kernel reads two frames after a clip's end: they must be 0
            video = video.masked_fill(mask[:, None, :, None, None], 0)
        x: Tensor = self.visual(video, lengths)
        return x if index is None else x.new_zeros(inputs.batch_size, *x.shape[1:]).index_copy(0, index, x)

    def fuse(self, features: Tensor) -> Tensor:
        """Layer norm, projection and dropout of front-end output [B, T, F]: the encoder's input [B, T, D]."""
        x = self.fusion_norm(features)
        if self.fusion_projection is not None:
            x = self.fusion_projection(x)
        fused: Tensor = self.fusion_dropout(x)
        return fused

    @takes_inputs(1)
    def forward(self, inputs: ModelInputs, layer: int | None = None, padding: bool = True) -> Tensor:
        """Encode a batch.

        Args:
            inputs: the batch, or its tensors (see `ModelInputs`).
            layer: None: the encoder's output, after its final norm if it has one; 0: the fused features before the
                encoder, 0 at padding; 1 … N: the output of that layer without the final norm.
            padding: False: the output at padding is not needed, so that inference on a CPU leaves padding out.

        Returns:
            [B, T, D].

        Raises:
            ConfigError: the layer does not exist.
            DataError: the number of audio features differs from the model's.
        """
        check_layer(layer, self.config)
        x = self.fuse(self.front_ends(inputs))
        if layer == 0:
            return x if inputs.mask is None else x.masked_fill(inputs.mask[..., None], 0)
        output: Tensor = self.encoder(x, inputs.mask, layer, lengths=None if padding else inputs.lengths)
        return output

    @torch.no_grad()
    def extract_features(
        self,
        audio: Tensor | np.ndarray | None = None,
        video: Tensor | np.ndarray | None = None,
        padding_mask: Tensor | np.ndarray | None = None,
        layer: int | None = None,
        padding: bool = True,
    ) -> Tensor:
        """Compute features in evaluation mode, without gradients.

        The features of an utterance are the same alone and in any batch. The inputs are moved to the model's device and
        dtype.

        Args:
            audio: float [B, 104, T], from `avhubert.data.filterbank.audio_features`, transposed; None: no audio.
            video: float [B, 1, T, 88, 88], from `avhubert.data.video.transform`; None: no video.
            padding_mask: bool [B, T], True = padding; None: no padding.
            layer: as in `forward`.
            padding: as in `forward`.

        Returns:
            [B, T, D].

        Raises:
            DataError: shapes do not match, or neither audio nor video is given.
            ConfigError: the layer does not exist.
        """
        if video is not None and tuple(video.shape[-2:]) != (CROP_SIZE, CROP_SIZE):
            raise DataError(
                f"video must have frames of {CROP_SIZE}×{CROP_SIZE} pixels, not {list(video.shape)}; crop and "
                "normalise clips of 96×96 with `avhubert.data.video.transform`"
            )
        streams = {"audio": audio, "video": video}
        tensors = {name: None if x is None else torch.as_tensor(x) for name, x in streams.items()}
        mask = None if padding_mask is None else torch.as_tensor(padding_mask).to(torch.bool)
        inputs = ModelInputs(tensors["audio"], tensors["video"], mask).to(self.device, self.dtype)
        training = self.training
        self.eval()
        try:
            features: Tensor = self(inputs, layer=layer, padding=padding)
            return features
        finally:
            self.train(training)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.audio.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The data type of the weights."""
        return self.audio.weight.dtype

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a model directory that `avhubert.load` reads.

        Raises:
            ConfigError: the directory cannot be written.
        """
        from avhubert import save

        save(self, directory)


def check_layer(layer: int | None, config: ModelConfig) -> None:
    """Check a layer number.

    Args:
        layer: 0 … N, or None.
        config: of the model, with N layers.

    Raises:
        ConfigError: the model does not have that layer.
    """
    if layer is not None and (type(layer) is not int or not 0 <= layer <= config.encoder_layers):
        raise ConfigError(f"layer {layer!r} does not exist: this model has layers 0 to {config.encoder_layers}")


def _check_sizes(config: ModelConfig) -> None:
    for key in ("encoder_attention_heads", "conv_pos_groups"):
        if config.encoder_embed_dim % getattr(config, key):
            raise ConfigError(
                f"model.encoder_embed_dim={config.encoder_embed_dim} must be a multiple of"
                f" model.{key}={getattr(config, key)}"
            )
    if not config.visual_blocks or min(config.visual_blocks) < 1:
        raise ConfigError(f"model.visual_blocks={config.visual_blocks} must list at least one block for every stage")
