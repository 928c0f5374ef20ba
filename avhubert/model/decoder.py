"""The attention decoder: a pre-norm transformer over tokens that attends to the encoder's frames (ICLR 2022, § 3.4).

Shapes: B utterances, K beams of each, L tokens, T frames, D width, H heads, V symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avhubert.config.schema import DecoderConfig
from avhubert.constants import PAD, SPECIAL_SYMBOLS
from avhubert.devices import to_host
from avhubert.model.attention import DecoderAttention
from avhubert.model.inference import Keeper, Linear, Packed, product

FIRST_POSITION = {"halves": 2, "interleaved": 0}  # halves: the id of the padding symbol + 1, as published
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


def interleaved_sinusoid(positions: Tensor, dim: int) -> Tensor:
    """Sinusoidal position embeddings: columns 2i and 2i + 1 are sine and cosine of position · 10000^(−2i/D).

    Args:
        positions: int [L].
        dim: D.

    Returns:
        float32 [L, D].
    """
    rates = [10_000 ** (-2 * column / dim) for column in range((dim + 1) // 2)]
    angles = positions[:, None].float() * torch.tensor(rates, device=positions.device)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :dim]


def sinusoid(positions: Tensor, dim: int) -> Tensor:
    """Sinusoidal position embeddings: sines, then cosines, of position · 10000^(−i / (D/2 − 1)).

    Args:
        positions: int [L].
        dim: D.

    Returns:
        float32 [L, D].
    """
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=positions.device) * (-math.log(10_000) / max(half - 1, 1)))
    angles = positions[:, None].float() * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, dim % 2))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to the encoder's frames, feed-forward; each after a layer norm."""

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attention = DecoderAttention(dim, config.attention_heads, config.attention_dropout)
        self.self_attention_norm = nn.LayerNorm(dim)
        self.cross_attention = DecoderAttention(dim, config.attention_heads, config.attention_dropout)
        self.cross_attention_norm = nn.LayerNorm(dim)
        self.activation = ACTIVATIONS[config.activation]
        self.fc1 = Linear(dim, config.ffn_embed_dim, pack_fp32=True)
        self.fc2 = Linear(config.ffn_embed_dim, dim, pack_fp32=True)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Layer norm, feed-forward network and residual connection: [B, L, D] → [B, L, D]."""
        normalised = self.ffn_norm(x)
        output: Tensor = x + self.dropout(self.fc2(self.activation_dropout(self.activation(self.fc1(normalised)))))
        return output

    def forward(
        self, x: Tensor, encoded: Tensor, frame_mask: Tensor | None, weights: list[Tensor] | None = None
    ) -> Tensor:
        """Process all tokens of each text at once.

        Args:
            x: tokens [B, L, D].
            encoded: frames [B, T, D].
            frame_mask: bool [B, 1, 1, T], True for real frames; None: no padding.
            weights: if given, the cross-attention weights [B, H, L, T] are appended to it.

        Returns:
            [B, L, D].
        """
        attention = self.self_attention
        y = self.self_attention_norm(x)
        x = x + self.dropout(attention.attend(attention.queries(y), *attention.keys_values(y), causal=True))
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
        """Process the newest token of every beam.

        The beams of an utterance share the keys and values of its frames and of their common tokens.

        Args:
            x: newest tokens [B, K, D].
            cache: keys and values of this layer; those of the new tokens are appended.
            used: number of tokens in the cache before this step.
            ancestors: bool [B, 1, K, used + K], True for the cached tokens of each beam's text; None: all (one beam).
            frame_mask: bool [B, 1, 1, T], True for real frames; None: no padding.

        Returns:
            [B, K, D].
        """
        attention = self.self_attention
        y = self.self_attention_norm(x)
        keys, values = cache.append(*attention.keys_values(y), used)
        x = x + attention.attend(attention.queries(y), keys, values, mask=ancestors)
        cross = self.cross_attention
        q = cross.queries(self.cross_attention_norm(x))
        x = x + cross.attend(q, cache.encoder_keys, cache.encoder_values, mask=frame_mask)
        return self.feed_forward(x)


@dataclass
class LayerCache:
    """Keys and values of one layer during search.

    Attributes:
        keys: of the tokens, [B, H, capacity, D/H]; the caller knows how many of them are in use.
        values: the same.
        encoder_keys: of the frames, [B, H, T, D/H].
        encoder_values: the same.
    """

    keys: Tensor
    values: Tensor
    encoder_keys: Tensor
    encoder_values: Tensor

    def append(self, key: Tensor, value: Tensor, used: int) -> tuple[Tensor, Tensor]:
        """Append keys and values after the first `used` ones.

        Args:
            key: [B, H, K, D/H].
            value: [B, H, K, D/H].
            used: number of tokens in the cache.

        Returns:
            All keys and all values in use, each [B, H, used + K, D/H].
        """
        after = used + key.shape[2]
        if after > self.keys.shape[2]:
            self.keys, self.values = (
                F.pad(x[:, :, :used], (0, 0, 0, 2 * after - used)) for x in (self.keys, self.values)
            )
        self.keys[:, :, used:after] = key
        self.values[:, :, used:after] = value
        return self.keys[:, :, :after], self.values[:, :, :after]

    def select(self, positions: Tensor) -> None:
        """Keep only the tokens at the positions int [B, N]."""
        index = positions[:, None, :, None].expand(-1, self.keys.shape[1], -1, self.keys.shape[3])
        self.keys, self.values = self.keys.gather(2, index), self.values.gather(2, index)


@dataclass
class Cache:
    """The decoder's cache during search.

    The keys and values of a token are stored once for all beams that continue it, and reordering the beams does not
    copy them.

    Attributes:
        layers: keys and values of each layer.
        frame_mask: bool [B, 1, 1, T], True for real frames; None: no padding.
        ancestors: bool [B, K, N], which of the N stored tokens belong to each beam's text.
        length: tokens of each text.
        capacity: number of stored tokens above which `reorder` removes those that belong to no beam.
    """

    layers: list[LayerCache]
    frame_mask: Tensor | None
    ancestors: Tensor
    length: int = 0
    capacity: int = 0

    def reorder(self, beams: Tensor) -> None:
        """Reorder the beams: row i continues row beams[i], int [B·K]."""
        self.ancestors = self.ancestors.flatten(0, 1)[beams].view_as(self.ancestors)
        if self.ancestors.shape[2] <= self.capacity:
            return
        used = self.ancestors.any(1)
        count = int(to_host(used.sum(1).max()))
        positions = used.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        for layer in self.layers:
            layer.select(positions)
        self.ancestors = self.ancestors.gather(2, positions[:, None].expand(-1, self.ancestors.shape[1], -1))
        self.capacity = 2 * count

    def keep(self, utterances: Tensor) -> None:
        """Keep only the utterances with the row numbers int [B']."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[utterances], layer.values[utterances]
            layer.encoder_keys, layer.encoder_values = layer.encoder_keys[utterances], layer.encoder_values[utterances]
        self.ancestors = self.ancestors[utterances]
        if self.frame_mask is not None:
            self.frame_mask = self.frame_mask[utterances]


class AttentionDecoder(Keeper):
    """Predicts the next token from the previous ones and the encoded frames.

    Args:
        dim: D, the width of the encoder.
        config: sizes and options.

    Attributes:
        start_token: the id before the first token of a text.
        longest_text: largest number of tokens of a text, `</s>` included; None: no limit.
        output: the output embedding; None: the input embedding is used.
    """

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.dim = dim
        self.positions = config.positions
        self.start_token = SPECIAL_SYMBOLS.index(config.start)
        self.longest_text = config.longest_text
        self.embedding = nn.Embedding(config.vocab_size, dim, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(dim, config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        self._packed_output: Packed = Packed()
        self.output: nn.Linear | None = None
        if not config.shared_embedding:
            self.output = nn.Linear(dim, config.vocab_size, bias=False)
            nn.init.normal_(self.output.weight, std=dim**-0.5)

    def embed(self, tokens: Tensor, first: int) -> Tensor:
        """Embeddings [B, L, D] of tokens int [B, L] at the positions first, first + 1, … of their sentence."""
        positions = torch.arange(first, first + tokens.shape[1], device=tokens.device) + FIRST_POSITION[self.positions]
        table = (sinusoid if self.positions == "halves" else interleaved_sinusoid)(positions, self.dim)
        embedded: Tensor = self.dropout(self.embedding(tokens) + table.to(self.embedding.weight))
        return embedded

    def forward(self, tokens: Tensor, encoded: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Logits of the token after each token.

        Args:
            tokens: int [B, L], each row starts with `start_token`.
            encoded: frames [B, T, D].
            padding_mask: bool [B, T], True = padding; None: no padding.

        Returns:
            [B, L, V].
        """
        frame_mask = None if padding_mask is None else ~padding_mask[:, None, None, :]
        x = self.embed(tokens, 0)
        for layer in self._typed_layers():
            x = layer(x, encoded, frame_mask)
        return self.scores(self.norm(x))

    def cross_attention(self, tokens: Tensor, encoded: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Cross-attention weights in the prediction of the token after each token, mean over layers and heads.

        Args:
            tokens: as in `forward`.
            encoded: as in `forward`.
            padding_mask: as in `forward`.

        Returns:
            [B, L, T].
        """
        frame_mask = None if padding_mask is None else ~padding_mask[:, None, None, :]
        x, weights = self.embed(tokens, 0), list[Tensor]()
        for layer in self._typed_layers():
            x = layer(x, encoded, frame_mask, weights)
        return torch.stack(weights).mean((0, 2))

    def _typed_layers(self) -> Iterator[DecoderLayer]:
        return (cast(DecoderLayer, layer) for layer in self.layers)

    def scores(self, x: Tensor) -> Tensor:
        """Logits [B, L, V] of normalised states [B, L, D]."""
        return product(x, (self.embedding if self.output is None else self.output).weight, None, self._packed_output)

    def start(self, encoded: Tensor, padding_mask: Tensor | None, beams: int) -> Cache:
        """Make an empty cache for a search.

        Args:
            encoded: frames [B, T, D].
            padding_mask: bool [B, T], True = padding; None: no padding, which is faster.
            beams: K, hypotheses of each utterance.
        """
        layers = []
        for layer in self._typed_layers():
            keys, values = layer.cross_attention.keys_values(encoded)
            empty = keys[:, :, :0]
            layers.append(LayerCache(empty, empty, keys, values))
        frame_mask = None if padding_mask is None else ~padding_mask[:, None, None, :]
        ancestors = encoded.new_empty(encoded.shape[0], beams, 0, dtype=torch.bool)  # `len` would fix B in an export
        return Cache(layers, frame_mask, ancestors, capacity=8 * beams)

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Logits [B, K, V] of the next token of every beam, given the newest one, int [B, K]; updates the cache."""
        b, k = tokens.shape
        x = self.embed(tokens.reshape(b * k, 1), cache.length).view(b, k, self.dim)
        used = cache.ancestors.shape[2]
        newest = torch.eye(k, dtype=torch.bool, device=tokens.device).expand(b, -1, -1)
        cache.ancestors = torch.cat([cache.ancestors, newest], 2)
        ancestors = cache.ancestors[:, None] if k > 1 else None
        for layer, layer_cache in zip(self._typed_layers(), cache.layers, strict=True):
            x = layer.step(x, layer_cache, used, ancestors, cache.frame_mask)
        cache.length += 1
        return self.scores(self.norm(x))
