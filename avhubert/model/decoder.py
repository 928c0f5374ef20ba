"""The attention decoder: a pre-norm transformer over tokens that attends to the encoder's frames (ICLR 2022, § 3.4).

Shapes: B utterances, K beams of each, L tokens, T frames, D width, H heads, V symbols.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avhubert.config.schema import DecoderConfig
from avhubert.constants import PAD
from avhubert.devices import to_host
from avhubert.model.attention import DecoderAttention

FIRST_POSITION = 2  # of the first token: positions count from the padding symbol's id + 1


def sinusoid(positions: Tensor, dim: int) -> Tensor:
    """Positions int [L] → [L, D]: sines, then cosines, of position · 10000^(−i / (D/2 − 1))."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=positions.device) * (-math.log(10_000) / max(half - 1, 1)))
    angles = positions[:, None].float() * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, dim % 2))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to the encoder's frames, feed-forward (ReLU); each after a layer norm."""

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attention = DecoderAttention(dim, config.attention_heads, config.attention_dropout)
        self.self_attention_norm = nn.LayerNorm(dim)
        self.cross_attention = DecoderAttention(dim, config.attention_heads, config.attention_dropout)
        self.cross_attention_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.ffn_embed_dim)
        self.fc2 = nn.Linear(config.ffn_embed_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def feed_forward(self, x: Tensor) -> Tensor:
        """x [B, L, D] plus the feed-forward network of its layer norm."""
        x_in = self.ffn_norm(x)
        return x + self.dropout(self.fc2(self.activation_dropout(F.relu(self.fc1(x_in)))))

    def forward(
        self, x: Tensor, encoded: Tensor, frame_mask: Tensor | None, weights: list[Tensor] | None = None
    ) -> Tensor:
        """All tokens of a text at once.

        Args:
            x: [B, L, D].
            encoded: [B, T, D].
            frame_mask: bool [B, 1, 1, T], True for real frames; None: all are.
            weights: if given, the cross-attention weights [B, H, L, T] are appended to it.
        """
        own = self.self_attention
        y = self.self_attention_norm(x)
        x = x + self.dropout(own.attend(own.queries(y), *own.keys_values(y), causal=True))
        cross = self.cross_attention
        q = cross.queries(self.cross_attention_norm(x))
        k, v = cross.keys_values(encoded)
        if weights is not None:
            scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
            weights.append((scores if frame_mask is None else scores.masked_fill(~frame_mask, -math.inf)).softmax(-1))
        x = x + self.dropout(cross.attend(q, k, v, mask=frame_mask))
        return self.feed_forward(x)

    def step(
        self, x: Tensor, cache: LayerCache, used: int, ancestors: Tensor | None, frame_mask: Tensor | None
    ) -> Tensor:
        """One token of every beam.

        Beams share the encoder's keys and values, and those of the tokens that they have in common.

        Args:
            x: [B, K, D].
            cache: keys and values of this layer; the new token's are appended.
            used: cached tokens so far.
            ancestors: bool [B, 1, K, used + K], the cached tokens of each beam's text; None: all (one beam).
            frame_mask: bool [B, 1, 1, T], True for real frames; None: all are.
        """
        own = self.self_attention
        y = self.self_attention_norm(x)
        keys, values = cache.append(*own.keys_values(y), used)
        x = x + own.attend(own.queries(y), keys, values, mask=ancestors)
        cross = self.cross_attention
        q = cross.queries(self.cross_attention_norm(x))
        x = x + cross.attend(q, cache.encoder_keys, cache.encoder_values, mask=frame_mask)
        return self.feed_forward(x)


@dataclass
class LayerCache:
    """Keys and values of one layer during search.

    keys, values: of the tokens so far, [B, H, room, D/H]; encoder_keys, encoder_values: [B, H, T, D/H].
    """

    keys: Tensor
    values: Tensor
    encoder_keys: Tensor
    encoder_values: Tensor

    def append(self, key: Tensor, value: Tensor, used: int) -> tuple[Tensor, Tensor]:
        """Put key and value [B, H, K, D/H] after the first `used` ones; returns all keys and all values."""
        after = used + key.shape[2]
        if after > self.keys.shape[2]:
            self.keys, self.values = (
                F.pad(x[:, :, :used], (0, 0, 0, 2 * after - used)) for x in (self.keys, self.values)
            )
        self.keys[:, :, used:after] = key
        self.values[:, :, used:after] = value
        return self.keys[:, :, :after], self.values[:, :, :after]

    def select(self, positions: Tensor) -> None:
        """Keep the tokens at these positions, int [B, N]."""
        index = positions[:, None, :, None].expand(-1, self.keys.shape[1], -1, self.keys.shape[3])
        self.keys, self.values = self.keys.gather(2, index), self.values.gather(2, index)


@dataclass
class Cache:
    """The decoder's cache during search.

    A token's keys and values are stored once, however many beams continue it, and are not moved when beams are
    reordered.

    Attributes:
        layers: keys and values of each layer.
        frame_mask: bool [B, 1, 1, T], True for real frames; None: all are.
        ancestors: bool [B, K, N], which of the N stored tokens belong to each beam's text.
        length: tokens of each text so far.
        room: stored tokens above which those of no beam are dropped.
    """

    layers: list[LayerCache]
    frame_mask: Tensor | None
    ancestors: Tensor
    length: int = 0
    room: int = 0

    def reorder(self, beams: Tensor) -> None:
        """Beams int [B·K]: row i continues row beams[i]."""
        self.ancestors = self.ancestors.flatten(0, 1)[beams].view_as(self.ancestors)
        if self.ancestors.shape[2] <= self.room:
            return
        used = self.ancestors.any(1)
        count = int(to_host(used.sum(1).max()))
        positions = used.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        for layer in self.layers:
            layer.select(positions)
        self.ancestors = self.ancestors.gather(2, positions[:, None].expand(-1, self.ancestors.shape[1], -1))
        self.room = 2 * count

    def keep(self, utterances: Tensor) -> None:
        """Drop all utterances but these, int [B']."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[utterances], layer.values[utterances]
            layer.encoder_keys, layer.encoder_values = layer.encoder_keys[utterances], layer.encoder_values[utterances]
        self.ancestors = self.ancestors[utterances]
        if self.frame_mask is not None:
            self.frame_mask = self.frame_mask[utterances]


class AttentionDecoder(nn.Module):
    """Tokens so far and encoded frames → scores of the next token. Input and output embeddings are shared."""

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.dim = dim
        self.embedding = nn.Embedding(config.vocab_size, dim, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(dim, config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)

    def _embed(self, tokens: Tensor, first: int) -> Tensor:
        """Tokens int [B, L], the first of them the `first`-th of its sentence → [B, L, D]."""
        positions = torch.arange(first, first + tokens.shape[1], device=tokens.device) + FIRST_POSITION
        return self.dropout(self.embedding(tokens) + sinusoid(positions, self.dim).to(self.embedding.weight))

    def forward(self, tokens: Tensor, encoded: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Scores [B, L, V] of each next token.

        Args:
            tokens: int [B, L], beginning with `</s>`.
            encoded: frames [B, T, D].
            padding_mask: bool [B, T], True = padding; None: no frame is.
        """
        frame_mask = None if padding_mask is None else ~padding_mask[:, None, None, :]
        x = self._embed(tokens, 0)
        for layer in self._each_layer():
            x = layer(x, encoded, frame_mask)
        return self._scores(x)

    def cross_attention(self, tokens: Tensor, encoded: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Cross-attention weights [B, L, T] while the token after each is predicted, mean over layers and heads.

        Inputs as in `forward`.
        """
        frame_mask = None if padding_mask is None else ~padding_mask[:, None, None, :]
        x, weights = self._embed(tokens, 0), list[Tensor]()
        for layer in self._each_layer():
            x = layer(x, encoded, frame_mask, weights)
        return torch.stack(weights).mean((0, 2))

    def _each_layer(self) -> Iterator[DecoderLayer]:
        return (cast(DecoderLayer, layer) for layer in self.layers)

    def _scores(self, x: Tensor) -> Tensor:
        return F.linear(self.norm(x), self.embedding.weight)

    def start(self, encoded: Tensor, padding_mask: Tensor | None, beams: int) -> Cache:
        """An empty cache for `beams` hypotheses of each utterance of encoded [B, T, D].

        `padding_mask` bool [B, T]; None where no frame is padding, which is faster.
        """
        layers = []
        for layer in self._each_layer():
            keys, values = layer.cross_attention.keys_values(encoded)
            empty = keys[:, :, :0]
            layers.append(LayerCache(empty, empty, keys, values))
        frame_mask = None if padding_mask is None else ~padding_mask[:, None, None, :]
        return Cache(layers, frame_mask, encoded.new_empty(len(encoded), beams, 0, dtype=torch.bool), room=8 * beams)

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Newest token of every beam, int [B, K] → scores of the next one [B, K, V]."""
        b, k = tokens.shape
        x = self._embed(tokens.reshape(b * k, 1), cache.length).view(b, k, self.dim)
        used = cache.ancestors.shape[2]
        newest = torch.eye(k, dtype=torch.bool, device=tokens.device).expand(b, -1, -1)
        cache.ancestors = torch.cat([cache.ancestors, newest], 2)
        ancestors = cache.ancestors[:, None] if k > 1 else None
        for layer, layer_cache in zip(self._each_layer(), cache.layers, strict=True):
            x = layer.step(x, layer_cache, used, ancestors, cache.frame_mask)
        cache.length += 1
        return self._scores(x)
