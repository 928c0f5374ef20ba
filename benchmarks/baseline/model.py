"""Encoder, pre-training head and decoder, with the tensor names of published checkpoints.

Shapes: B utterances, T frames, D width, L tokens, V symbols.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PAD, EOS = 1, 2


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model; the defaults are Base."""

    dim: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    position_kernel: int = 128
    position_groups: int = 16
    classes: int = 0
    final_dim: int = 256
    decoder_layers: int = 6
    decoder_heads: int = 4
    decoder_ffn: int = 3072
    symbols: int = 1000


# --------------------------------------------------------------------------- front ends
class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.PReLU(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(out)) + shortcut)


class ResEncoder(nn.Module):
    """[B, 1, T, 88, 88] → [B, T, 8 · width]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.frontend3D = nn.Sequential(
            nn.Conv3d(1, width, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.PReLU(width),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.trunk = nn.Module()
        inputs = width
        for stage, count in enumerate(sizes.blocks):
            outputs = width * 2**stage
            blocks = []
            for block in range(count):
                blocks.append(BasicBlock(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
            self.trunk.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(sizes.blocks)

    def forward(self, video: Tensor) -> Tensor:
        b, _, t = video.shape[:3]
        x = self.frontend3D(video)
        x = x.transpose(1, 2).reshape(b * t, *x.shape[1:2], *x.shape[3:])
        for stage in range(self.stages):
            x = self.trunk.get_submodule(f"layer{stage + 1}")(x)
        return F.adaptive_avg_pool2d(x, 1).view(b, t, -1)


class VideoFeatures(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.resnet = ResEncoder(sizes)
        self.proj = nn.Linear(sizes.width * 2 ** (len(sizes.blocks) - 1), sizes.dim)

    def forward(self, video: Tensor) -> Tensor:
        return self.proj(self.resnet(video))


class AudioFeatures(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.proj = nn.Linear(104, sizes.dim)

    def forward(self, audio: Tensor) -> Tensor:
        return self.proj(audio.transpose(1, 2))


class ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None  # type: ignore[attr-defined]


# --------------------------------------------------------------------------- encoder
class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        q, k, v = self.split(self.q_proj(x)), self.split(self.k_proj(source)), self.split(self.v_proj(source))
        return self.attend(q, k, v, mask, causal)


class EncoderLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.self_attn = Attention(sizes.dim, sizes.heads)
        self.self_attn_layer_norm = nn.LayerNorm(sizes.dim)
        self.fc1, self.fc2 = nn.Linear(sizes.dim, sizes.ffn), nn.Linear(sizes.ffn, sizes.dim)
        self.final_layer_norm = nn.LayerNorm(sizes.dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.self_attn_layer_norm(x)
        x = x + self.self_attn(y, y, mask)
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class PositionConvolution(nn.Module):
    """The weight-normalised convolution; its kernel is computed anew in every call."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.groups = sizes.position_groups
        dim, kernel = sizes.dim, sizes.position_kernel
        self.bias = nn.Parameter(torch.zeros(dim))
        self.weight_v = nn.Parameter(torch.randn(dim, dim // self.groups, kernel) * math.sqrt(4 / (kernel * dim)))
        self.weight_g = nn.Parameter(torch.ones(1, 1, kernel))

    def forward(self, x: Tensor) -> Tensor:
        weight = torch._weight_norm(self.weight_v, self.weight_g, 2)
        kernel = weight.shape[2]
        out = F.conv1d(x.transpose(1, 2), weight, self.bias, padding=kernel // 2, groups=self.groups)
        if kernel % 2 == 0:
            out = out[:, :, :-1]
        return F.gelu(out).transpose(1, 2)


class TransformerEncoder(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.pos_conv = nn.ModuleList([PositionConvolution(sizes)])
        self.layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(sizes.layers))
        self.layer_norm = nn.LayerNorm(sizes.dim)

    def forward(self, x: Tensor, padding: Tensor | None) -> Tensor:
        mask = None
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0)
            mask = ~padding[:, None, None, :]
        x = x + self.pos_conv[0](x)
        for layer in self.layers:
            x = layer(x, mask)
        return self.layer_norm(x)


@dataclass
class Masking:
    """The masked frames of a batch of several clips; bool [B, T], and the frames that replace video, [B, T]."""

    audio: Tensor
    video: Tensor
    video_source: Tensor  # flat indices b · T + t


class HubertModel(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.feature_extractor_audio = AudioFeatures(sizes)
        self.feature_extractor_video = VideoFeatures(sizes)
        self.layer_norm = nn.LayerNorm(2 * sizes.dim)
        self.post_extract_proj = nn.Linear(2 * sizes.dim, sizes.dim)
        self.encoder = TransformerEncoder(sizes)
        self.grad_mult = 0.1
        if sizes.classes:
            self.mask_emb = nn.Parameter(torch.rand(104))
            self.final_proj = nn.Linear(sizes.dim, sizes.final_dim)
            self.label_embs_concat = nn.Parameter(torch.rand(sizes.classes, sizes.final_dim))

    def features(self, audio: Tensor | None, video: Tensor | None) -> Tensor:
        """The joined front-end output [B, T, 2 · D]; zeros for a missing stream."""
        audio_features = None if audio is None else self.feature_extractor_audio(audio)
        video_features = None if video is None else self.feature_extractor_video(video)
        if self.training:
            audio_features, video_features = (
                None if x is None else ScaleGradient.apply(x, self.grad_mult) for x in (audio_features, video_features)
            )
        if audio_features is None:
            audio_features = torch.zeros_like(video_features)
        if video_features is None:
            video_features = torch.zeros_like(audio_features)
        return torch.cat([audio_features, video_features], 2)

    def forward(self, audio: Tensor | None, video: Tensor | None, padding: Tensor | None = None) -> Tensor:
        """[B, T, D] of audio [B, 104, T] and video [B, 1, T, 88, 88], which are 0 where there is padding."""
        x = self.post_extract_proj(self.layer_norm(self.features(audio, video)))
        return self.encoder(x, padding)

    def pretraining_loss(
        self, audio: Tensor, video: Tensor, padding: Tensor, labels: Tensor, masking: Masking
    ) -> Tensor:
        """The loss summed over masked frames (weight of the unmasked ones: 0), with 10 · penalty · sample size.

        The cosine similarities lay out [frames, classes, 256], and are computed of unmasked frames too.
        """
        audio, video = audio.clone(), video.clone()
        frames = video.flatten(0, 2)
        frames[masking.video.flatten()] = video.flatten(0, 2)[masking.video_source[masking.video]].clone()
        by_frame = audio.transpose(1, 2).clone()
        by_frame[masking.audio] = self.mask_emb
        features = self.features(by_frame.transpose(1, 2), frames.view_as(video))
        penalty = features.float().pow(2).mean()
        x = self.encoder(self.post_extract_proj(self.layer_norm(features)), padding)
        masked = masking.audio | masking.video
        losses = []
        for chosen in (masked & ~padding, ~masked & ~padding):
            logits = self._logits(x[chosen])
            losses.append(F.cross_entropy(logits.float(), labels[chosen], reduction="sum"))
            (logits.argmax(-1) == labels[chosen]).sum()
        sample_size = int((masked & ~padding).sum())
        return losses[0] + 0.0 * losses[1] + 10 * penalty * sample_size

    def _logits(self, x: Tensor) -> Tensor:
        projected = self.final_proj(x)[:, None].expand(-1, len(self.label_embs_concat), -1)
        classes = self.label_embs_concat[None].expand(len(x), -1, -1)
        return F.cosine_similarity(projected.float(), classes.float(), dim=-1) / 0.1


# --------------------------------------------------------------------------- decoder
def sinusoid(count: int, dim: int) -> Tensor:
    """Embeddings of the positions 0 … count − 1, [count, D]."""
    half = dim // 2
    rates = torch.exp(torch.arange(half) * (-math.log(10_000) / (half - 1)))
    angles = torch.arange(count)[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class DecoderLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.self_attn = Attention(sizes.dim, sizes.decoder_heads)
        self.self_attn_layer_norm = nn.LayerNorm(sizes.dim)
        self.encoder_attn = Attention(sizes.dim, sizes.decoder_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(sizes.dim)
        self.fc1, self.fc2 = nn.Linear(sizes.dim, sizes.decoder_ffn), nn.Linear(sizes.decoder_ffn, sizes.dim)
        self.final_layer_norm = nn.LayerNorm(sizes.dim)

    def feed_forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.relu(self.fc1(self.final_layer_norm(x))))

    def step(self, x: Tensor, state: LayerState, frame_mask: Tensor | None) -> Tensor:
        """The newest token of every row, [rows, 1, D]."""
        own, other = self.self_attn, self.encoder_attn
        y = self.self_attn_layer_norm(x)
        key, value = own.split(own.k_proj(y)), own.split(own.v_proj(y))
        state.keys = key if state.keys is None else torch.cat([state.keys, key], 2)
        state.values = value if state.values is None else torch.cat([state.values, value], 2)
        x = x + own.attend(own.split(own.q_proj(y)), state.keys, state.values, None)
        q = other.split(other.q_proj(self.encoder_attn_layer_norm(x)))
        x = x + other.attend(q, state.encoder_keys, state.encoder_values, frame_mask)
        return self.feed_forward(x)


@dataclass
class LayerState:
    """Cached keys and values of a layer, one row for each beam of each utterance."""

    encoder_keys: Tensor
    encoder_values: Tensor
    keys: Tensor | None = None
    values: Tensor | None = None


class TransformerDecoder(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(sizes.symbols, sizes.dim, padding_idx=PAD)
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.decoder_layers))
        self.layer_norm = nn.LayerNorm(sizes.dim)
        self.register_buffer("positions", sinusoid(2050, sizes.dim), persistent=False)

    def start(self, encoded: Tensor, beams: int) -> list[LayerState]:
        """States in which the keys of the frames [B, T, D] are stored once for every beam."""
        states = []
        for layer in self.layers:
            other = layer.encoder_attn
            keys, values = other.split(other.k_proj(encoded)), other.split(other.v_proj(encoded))
            states.append(LayerState(keys.repeat_interleave(beams, 0), values.repeat_interleave(beams, 0)))
        return states

    def step(self, tokens: Tensor, step: int, states: list[LayerState], frame_mask: Tensor | None) -> Tensor:
        """Logits [rows, V] after the newest token of every row, int [rows]."""
        x = (self.embed_tokens(tokens) + self.positions[PAD + 1 + step])[:, None]
        for layer, state in zip(self.layers, states, strict=True):
            x = layer.step(x, state, frame_mask)
        return F.linear(self.layer_norm(x[:, 0]), self.embed_tokens.weight)


class Seq2Seq(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = nn.Module()
        self.encoder.w2v_model = HubertModel(sizes)
        self.decoder = TransformerDecoder(sizes)

    def encode(self, audio: Tensor | None, video: Tensor | None, padding: Tensor | None = None) -> Tensor:
        return self.encoder.w2v_model(audio, video, padding)
