"""The attention decoder: pre-norm transformer over tokens that looks at the encoder's frames (ICLR 2022, § 3.4).

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

FIRST_POSITION = 2  # of the first token: positions count from the padding symbol's id + 1


def sinusoid(positions: Tensor, dim: int) -> Tensor:
    """Positions int [L] → [L, D]: sines, then cosines, of position · 10000^(−i / (D/2 − 1))."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=positions.device) * (-math.log(10_000) / max(half - 1, 1)))
    angles = positions[:, None].float() * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, dim % 2))


class Attention(nn.Module):
    """The projections of multi-head attention; how heads meet is the layer's business."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight, gain=1 / math.sqrt(2))
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def split(self, x: Tensor) -> Tensor:
        """[B, L, D] → [B, H, L, D/H]."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D] → keys and values, each [B, H, T, D/H]."""
        return self.split(self.k_proj(x)), self.split(self.v_proj(x))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """q [B, H, L, D/H] over k, v [B, H, T, D/H] → [B, L, D]. `mask` bool, True = may be looked at."""
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """Self-attention, attention over the encoder's frames, feed-forward (ReLU); each after a layer norm."""

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attention = Attention(dim, config.attention_heads, config.attention_dropout)
        self.self_attention_norm = nn.LayerNorm(dim)
        self.cross_attention = Attention(dim, config.attention_heads, config.attention_dropout)
        self.cross_attention_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, config.ffn_embed_dim)
        self.fc2 = nn.Linear(config.ffn_embed_dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def ffn(self, x: Tensor) -> Tensor:
        x_in = self.ffn_norm(x)
        return x + self.dropout(self.fc2(self.activation_dropout(F.relu(self.fc1(x_in)))))

    def forward(self, x: Tensor, encoded: Tensor, visible: Tensor | None, looks: list[Tensor] | None = None) -> Tensor:
        """x [B, L, D], encoded [B, T, D], visible bool [B, 1, 1, T] (None: all frames).

        The attention over the frames, [B, H, L, T], is added to `looks` where that is given.
        """
        own = self.self_attention
        y = self.self_attention_norm(x)
        x = x + self.dropout(own.attend(own.split(own.q_proj(y)), *own.keys_values(y), causal=True))
        other = self.cross_attention
        q = other.split(other.q_proj(self.cross_attention_norm(x)))
        k, v = other.keys_values(encoded)
        if looks is not None:
            weights = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
            looks.append((weights if visible is None else weights.masked_fill(~visible, -math.inf)).softmax(-1))
        x = x + self.dropout(other.attend(q, k, v, mask=visible))
        return self.ffn(x)

    def step(self, x: Tensor, cache: LayerCache, used: int, line: Tensor | None, visible: Tensor | None) -> Tensor:
        """One token of every beam: x [B, K, D]. Beams share the encoder's keys and values, and those of the tokens that
        they have in common: `used` of these are there already; line bool [B, 1, K, used + K] says which are whose."""
        own = self.self_attention
        y = self.self_attention_norm(x)
        keys, values = cache.append(*own.keys_values(y), used)
        x = x + own.attend(own.split(own.q_proj(y)), keys, values, mask=line)
        other = self.cross_attention
        q = other.split(other.q_proj(self.cross_attention_norm(x)))
        x = x + other.attend(q, cache.encoder_keys, cache.encoder_values, mask=visible)
        return self.ffn(x)


@dataclass
class LayerCache:
    """What a layer need not compute again.

    keys, values: of the tokens so far, [B, H, room, D/H]; encoder_keys, encoder_values: [B, H, T, D/H].
    """

    keys: Tensor
    values: Tensor
    encoder_keys: Tensor
    encoder_values: Tensor

    def append(self, key: Tensor, value: Tensor, used: int) -> tuple[Tensor, Tensor]:
        """Put key and value [B, H, K, D/H] behind the `used` first ones; all keys and all values."""
        after = used + key.shape[2]
        if after > self.keys.shape[2]:
            self.keys, self.values = (
                F.pad(x[:, :, :used], (0, 0, 0, 2 * after - used)) for x in (self.keys, self.values)
            )
        self.keys[:, :, used:after] = key
        self.values[:, :, used:after] = value
        return self.keys[:, :, :after], self.values[:, :, :after]

    def select(self, places: Tensor) -> None:
        """Keep the tokens at these places, int [B, N]."""
        index = places[:, None, :, None].expand(-1, self.keys.shape[1], -1, self.keys.shape[3])
        self.keys, self.values = self.keys.gather(2, index), self.values.gather(2, index)


@dataclass
class Cache:
    """The decoder's memory during search: per layer, the frames that may be looked at, and how many tokens are in.

    A token's keys and values are stored once, however many beams go on from it, and stay where they are when beams are
    reordered: `line` bool [B, K, N] says which of the N stored tokens lie on each beam's way.
    """

    layers: list[LayerCache]
    visible: Tensor | None
    line: Tensor
    length: int = 0
    room: int = 0  # for tokens, before those on no beam's way are dropped

    def reorder(self, beams: Tensor) -> None:
        """Beams int [B·K]: row i goes on from row beams[i]."""
        self.line = self.line.flatten(0, 1)[beams].view_as(self.line)
        if self.line.shape[2] <= self.room:
            return
        needed = self.line.any(1)
        count = int(needed.sum(1).max())
        places = needed.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        for layer in self.layers:
            layer.select(places)
        self.line = self.line.gather(2, places[:, None].expand(-1, self.line.shape[1], -1))
        self.room = 2 * count

    def keep(self, utterances: Tensor) -> None:
        """Drop all utterances but these, int [B']."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[utterances], layer.values[utterances]
            layer.encoder_keys, layer.encoder_values = layer.encoder_keys[utterances], layer.encoder_values[utterances]
        self.line = self.line[utterances]
        if self.visible is not None:
            self.visible = self.visible[utterances]


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
        """Scores [B, L, V] of each next token, given tokens int [B, L] (beginning with `</s>`), frames [B, T, D] and
        padding_mask bool [B, T]."""
        visible = None if padding_mask is None else ~padding_mask[:, None, None, :]
        x = self._embed(tokens, 0)
        for layer in self._each_layer():
            x = layer(x, encoded, visible)
        return self._scores(x)

    def looks(self, tokens: Tensor, encoded: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """How much each frame is looked at while the token after each is chosen, mean over layers and heads,
        [B, L, T]; inputs as in `forward`."""
        visible = None if padding_mask is None else ~padding_mask[:, None, None, :]
        x, looks = self._embed(tokens, 0), list[Tensor]()
        for layer in self._each_layer():
            x = layer(x, encoded, visible, looks)
        return torch.stack(looks).mean((0, 2))

    def _each_layer(self) -> Iterator[DecoderLayer]:
        return (cast(DecoderLayer, layer) for layer in self.layers)

    def _scores(self, x: Tensor) -> Tensor:
        return F.linear(self.norm(x), self.embedding.weight)

    def start(self, encoded: Tensor, padding_mask: Tensor | None, beams: int) -> Cache:
        """An empty cache for `beams` hypotheses of each utterance of encoded [B, T, D]."""
        layers = []
        for layer in self._each_layer():
            keys, values = layer.cross_attention.keys_values(encoded)
            empty = keys[:, :, :0]
            layers.append(LayerCache(empty, empty, keys, values))
        visible = None if padding_mask is None or not bool(padding_mask.any()) else ~padding_mask[:, None, None, :]
        return Cache(layers, visible, encoded.new_empty(len(encoded), beams, 0, dtype=torch.bool), room=8 * beams)

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Newest token of every beam, int [B, K] → scores of the next one [B, K, V]."""
        b, k = tokens.shape
        x = self._embed(tokens.reshape(b * k, 1), cache.length).view(b, k, self.dim)
        used = cache.line.shape[2]
        newest = torch.eye(k, dtype=torch.bool, device=tokens.device).expand(b, -1, -1)
        cache.line = torch.cat([cache.line, newest], 2)
        line = cache.line[:, None] if k > 1 else None
        for layer, layer_cache in zip(self._each_layer(), cache.layers, strict=True):
            x = layer.step(x, layer_cache, used, line, cache.visible)
        cache.length += 1
        return self._scores(x)
