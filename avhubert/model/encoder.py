"""AVHubert: front ends, fusion and the transformer encoder (ICLR 2022, § 3 and appendix A).

Shapes: B utterances, T video frames at 25 Hz, D = `encoder_embed_dim`, F = width of the fused front-end output (2·D
when concatenated, D when added). `padding_mask` is bool [B, T], True = padding, padding only at the end of a row.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avhubert.config.schema import ModelConfig
from avhubert.constants import CROP_SIZE
from avhubert.errors import ConfigError, DataError
from avhubert.model.attention import SelfAttention
from avhubert.model.frontends import VisualFrontEnd
from avhubert.model.inputs import needed
from avhubert.model.pretraining import ClusterHead


class PositionConvolution(nn.Module):
    """Grouped convolution over time, weight-normalised per kernel position, whose output is added to its input."""

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.direction = nn.Parameter(torch.empty(dim, dim // groups, kernel))
        self.gain = nn.Parameter(torch.empty(1, 1, kernel))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.normal_(self.direction, std=math.sqrt(4 / (kernel * dim)))
        with torch.no_grad():
            self.gain.copy_(self._norm())

    def _norm(self) -> Tensor:
        return self.direction.norm(dim=(0, 1), keepdim=True)

    def weight(self) -> Tensor:
        """The kernel [D, D/groups, K] = gain · direction / ‖direction‖, the norm over the first two dimensions."""
        return self.direction * (self.gain / self._norm())

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] → GELU of the convolution, [B, T, D]."""
        kernel = self.direction.shape[2]
        out = F.conv1d(x.transpose(1, 2), self.weight(), self.bias, padding=kernel // 2, groups=self.groups)
        return F.gelu(out[..., : x.shape[1]].transpose(1, 2))  # an even kernel makes one frame too many


class EncoderLayer(nn.Module):
    """A transformer layer, pre-norm or post-norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.norm_first = config.layer_norm_first
        self.attention = SelfAttention(dim, config.encoder_attention_heads, config.attention_dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # BERT's initialisation
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def _ffn(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.activation_dropout(F.gelu(self.fc1(x)))))

    def forward(self, x: Tensor, attend: Tensor | None) -> Tensor:
        if self.norm_first:
            x = x + self.dropout(self.attention(self.attention_norm(x), attend))
            return x + self._ffn(self.ffn_norm(x))
        x = self.attention_norm(x + self.dropout(self.attention(x, attend)))
        return self.ffn_norm(x + self._ffn(x))


class TransformerEncoder(nn.Module):
    """Position convolution, then the layers, any of which training may skip (LayerDrop)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.norm_first = config.layer_norm_first
        self.layerdrop = config.encoder_layerdrop
        self.position = PositionConvolution(dim, config.conv_pos, config.conv_pos_groups)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None, layer: int | None = None) -> Tensor:
        """[B, T, D] → [B, T, D]: the output of layer 1…N without the final norm, or (None) the encoder's output."""
        attend = None
        if padding_mask is not None:
            x = x.masked_fill(padding_mask[..., None], 0)
            attend = ~padding_mask[:, None, None, :]
        x = x + self.position(x)
        if not self.norm_first:
            x = self.norm(x)
        x = self.dropout(x)
        for block in self.layers[:layer]:
            if not self.training or torch.rand(()).item() >= self.layerdrop:
                x = block(x, attend)
        return self.norm(x) if layer is None and self.norm_first else x


class AVHubert(nn.Module):
    """Audio-visual HuBERT.

    With `config.num_classes` it also has what only pre-training needs: `head` (cluster heads) and `mask_embedding`.
    `metadata` says where the weights come from. Raises ConfigError for sizes that do not go together.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.metadata: dict[str, Any] = {}
        dim = config.encoder_embed_dim
        self.audio = nn.Linear(config.audio_feat_dim, dim)
        self.visual = VisualFrontEnd(dim, config.visual_width, config.visual_blocks, config.visual_activation)
        concat = config.modality_fuse == "concat"
        self.fusion_norm = nn.LayerNorm(2 * dim if concat else dim)
        self.fusion_projection = nn.Linear(2 * dim, dim) if concat else None
        self.fusion_dropout = nn.Dropout(config.dropout_input)
        self.encoder = TransformerEncoder(config)
        self.mask_embedding: nn.Parameter | None = None
        self.head: ClusterHead | None = None
        if config.num_classes:
            masked_width = config.audio_feat_dim if config.masking_type == "input" else dim
            self.mask_embedding = nn.Parameter(torch.rand(masked_width))
            self.head = ClusterHead(config)

    def front_ends(
        self,
        audio: Tensor | None = None,
        video: Tensor | None = None,
        padding_mask: Tensor | None = None,
        has_audio: Tensor | None = None,
        has_video: Tensor | None = None,
        keep_audio: Tensor | None = None,
        keep_video: Tensor | None = None,
    ) -> Tensor:
        """Fused front-end output [B, T, F], before its layer norm.

        audio float [B, 104, T] and video float [B, 1, T, H, H]: either may be left out. `has_audio`, `has_video` bool
        [B]: False where the utterance lacks the stream; its features are zeros and its video goes through no front
        end. `keep_audio`, `keep_video` bool [B]: False multiplies the features by 0 *after* the front end (modality
        dropout: batch-norm statistics move and gradients are zero, not absent). Gradients into the front ends are
        scaled by `feature_grad_mult`. Raises DataError for shapes that do not fit.
        """
        b, t = _batch_and_frames(audio, video, padding_mask, self.config.audio_feat_dim)
        scale = self.config.feature_grad_mult
        with torch.no_grad() if scale == 0 else contextlib.nullcontext():
            a = None if audio is None else self._audio_features(audio, padding_mask, has_audio)
            v = None if video is None else self._video_features(video, padding_mask, has_video)
        if scale not in (0, 1):
            for features in (a, v):
                if features is not None and features.requires_grad:
                    features.register_hook(lambda gradient: gradient * scale)
        if a is not None and keep_audio is not None:
            a = a * keep_audio.to(a)[:, None, None]
        if v is not None and keep_video is not None:
            v = v * keep_video.to(v)[:, None, None]
        if a is None or v is None:
            present = a if v is None else v
            assert present is not None
            zeros = present.new_zeros(b, t, present.shape[2])
            a, v = (present, zeros) if v is None else (zeros, present)
        return torch.cat([a, v], 2) if self.config.modality_fuse == "concat" else a + v

    def _audio_features(self, audio: Tensor, padding_mask: Tensor | None, has_audio: Tensor | None) -> Tensor:
        x = audio.transpose(1, 2)
        if padding_mask is not None:
            x = x.masked_fill(padding_mask[..., None], 0)
        x = self.audio(x)
        return x if has_audio is None else x * has_audio.to(x)[:, None, None]

    def _video_features(self, video: Tensor, padding_mask: Tensor | None, has_video: Tensor | None) -> Tensor:
        rows = None
        if has_video is not None and not bool(has_video.all()):
            rows = has_video.nonzero().squeeze(1).to(video.device)
            if not len(rows):
                return video.new_zeros(video.shape[0], video.shape[2], self.config.encoder_embed_dim)
            video = video[rows]
            padding_mask = None if padding_mask is None else padding_mask[rows]
        lengths = None
        if padding_mask is not None:  # the stem sees two frames past a clip's end: they must be 0
            video = video.masked_fill(padding_mask[:, None, :, None, None], 0)
            lengths = (~padding_mask).sum(1)
        x = self.visual(video, lengths)
        if rows is None:
            return x
        assert has_video is not None
        return x.new_zeros(len(has_video), *x.shape[1:]).index_copy(0, rows, x)

    def fuse(self, features: Tensor) -> Tensor:
        """[B, T, F] → the encoder's input [B, T, D]: layer norm, projection, dropout."""
        x = self.fusion_norm(features)
        if self.fusion_projection is not None:
            x = self.fusion_projection(x)
        return self.fusion_dropout(x)

    def forward(
        self,
        audio: Tensor | None = None,
        video: Tensor | None = None,
        padding_mask: Tensor | None = None,
        has_audio: Tensor | None = None,
        has_video: Tensor | None = None,
        layer: int | None = None,
    ) -> Tensor:
        """Encoded frames [B, T, D]; inputs as in `front_ends`.

        `layer` None: the encoder's output (after its final norm where it has one); 0: the fused features before the
        encoder, 0 where padded; 1…N: that layer's output without the final norm. Raises ConfigError for any other
        layer.
        """
        check_layer(layer, self.config)
        _batch_and_frames(audio, video, padding_mask, self.config.audio_feat_dim)  # a mask that masks nothing, too
        padding_mask = needed(padding_mask, self.audio.weight.device)
        x = self.fuse(self.front_ends(audio, video, padding_mask, has_audio, has_video))
        if layer == 0:
            return x if padding_mask is None else x.masked_fill(padding_mask[..., None], 0)
        return self.encoder(x, padding_mask, layer)

    @torch.no_grad()
    def extract_features(
        self,
        audio: Tensor | np.ndarray | None = None,
        video: Tensor | np.ndarray | None = None,
        padding_mask: Tensor | np.ndarray | None = None,
        layer: int | None = None,
    ) -> Tensor:
        """Features [B, T, D] as evaluation mode gives them, without gradients; numpy or torch in, torch out.

        audio float [B, 104, T], video float [B, 1, T, 88, 88] (either may be left out), padding_mask bool [B, T];
        `layer` as in `forward`. The same numbers come out for an utterance alone and in any batch.

        Raises DataError where shapes do not fit (mouth clips of 96×96 are cropped and normalised by
        `avhubert.data.video.transform`), ConfigError for a layer that does not exist.
        """
        if video is not None and tuple(video.shape[-2:]) != (CROP_SIZE, CROP_SIZE):
            raise DataError(
                f"video must be mouth pictures of {CROP_SIZE}×{CROP_SIZE}, not {list(video.shape)}; clips of 96×96 are "
                "cropped and normalised by `avhubert.data.video.transform`"
            )
        like = self.audio.weight
        given = [None if x is None else torch.as_tensor(x).to(like) for x in (audio, video)]
        mask = None if padding_mask is None else torch.as_tensor(padding_mask).to(like.device, torch.bool)
        training = self.training
        self.eval()
        try:
            return self(given[0], given[1], mask, layer=layer)
        finally:
            self.train(training)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a model directory that `avhubert.load` reads. ConfigError where it cannot be written."""
        from avhubert import save

        save(self, directory)


def check_layer(layer: int | None, config: ModelConfig) -> None:
    """ConfigError unless `layer` is None or one that the model has."""
    if layer is not None and (type(layer) is not int or not 0 <= layer <= config.encoder_layers):
        raise ConfigError(f"layer {layer!r} does not exist: this model has layers 0 to {config.encoder_layers}")


def _batch_and_frames(audio: Any, video: Any, padding_mask: Any, audio_width: int) -> tuple[int, int]:
    """B and T of a batch; DataError where its tensors do not fit together."""
    shapes = []
    if audio is not None:
        if audio.dim() != 3 or audio.shape[1] != audio_width:
            raise DataError(f"audio must have the shape [batch, {audio_width}, frames], not {list(audio.shape)}")
        shapes.append((audio.shape[0], audio.shape[2]))
    if video is not None:
        if video.dim() != 5 or video.shape[1] != 1:
            raise DataError(f"video must have the shape [batch, 1, frames, height, width], not {list(video.shape)}")
        shapes.append((video.shape[0], video.shape[2]))
    if not shapes:
        raise DataError("neither audio nor video was given: give at least one")
    if padding_mask is not None:
        shapes.append(tuple(padding_mask.shape))
    if len(set(shapes)) > 1:
        raise DataError(f"audio, video and padding_mask differ in [batch, frames]: {', '.join(map(str, shapes))}")
    if 0 in shapes[0]:
        raise DataError(f"there is nothing to read: [batch, frames] is {list(shapes[0])}")
    return shapes[0]


def _check(config: ModelConfig) -> None:
    for key in ("encoder_attention_heads", "conv_pos_groups"):
        if config.encoder_embed_dim % getattr(config, key):
            raise ConfigError(
                f"model.encoder_embed_dim={config.encoder_embed_dim} must be a multiple of"
                f" model.{key}={getattr(config, key)}"
            )
    if not config.visual_blocks or min(config.visual_blocks) < 1:
        raise ConfigError(f"model.visual_blocks={config.visual_blocks} must list at least one block for every stage")
