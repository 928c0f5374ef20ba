"""The decoder with the cache and the records of transformers.

Shapes: B texts, L new tokens, N all tokens, T frames, D width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from avhubert.model.decoder import AttentionDecoder, DecoderLayer


@dataclass
class DecoderRecord:
    """What a call records; None: it is not recorded.

    Attributes:
        states: float [B, L, D]: the embedded tokens, the output of each layer but the last, the output before the
            logits.
        attentions: float [B, H, L, N] of each layer.
        cross_attentions: float [B, H, L, T] of each layer.
    """

    states: list[Tensor] | None
    attentions: list[Tensor] | None
    cross_attentions: list[Tensor] | None

    @classmethod
    def empty(cls, states: bool, attentions: bool) -> DecoderRecord:
        """A record of what is wanted."""
        return cls([] if states else None, [] if attentions else None, [] if attentions else None)

    def states_or_none(self) -> Any:
        """The states as a tuple."""
        return None if self.states is None else tuple(self.states)

    def attentions_or_none(self) -> Any:
        """The weights of the self-attention as a tuple."""
        return None if self.attentions is None else tuple(self.attentions)

    def cross_attentions_or_none(self) -> Any:
        """The weights of the cross-attention as a tuple."""
        return None if self.cross_attentions is None else tuple(self.cross_attentions)


def decode(
    decoder: AttentionDecoder,
    tokens: Tensor,
    encoded: Tensor,
    frame_mask: Tensor | None,
    token_mask: Tensor | None,
    cache: Any,
    record: DecoderRecord,
) -> Tensor:
    """Logits [B, L, V] of the token after each token.

    Args:
        decoder: our decoder.
        tokens: int [B, L], those after the tokens in the cache.
        encoded: frames [B, T, D].
        frame_mask: bool [B, 1, 1, T], True for real frames; None: no padding.
        token_mask: [B, N], 0 for tokens that are not attended to; None: all are.
        cache: an `EncoderDecoderCache`, which gets the new tokens; None: none.
        record: gets the states and attention weights.
    """
    first = 0 if cache is None else int(cache.get_seq_length())
    mask = _token_mask(tokens, first, token_mask)
    x = decoder.embed(tokens, first)
    for number, layer in enumerate(decoder.layers):
        if record.states is not None:
            record.states.append(x)
        x = _layer(cast(DecoderLayer, layer), x, encoded, (mask, frame_mask), cache, number, record)
    x = decoder.norm(x)
    if record.states is not None:
        record.states.append(x)
    return decoder.scores(x)


def _token_mask(tokens: Tensor, first: int, given: Tensor | None) -> Tensor:
    """Which tokens each new token attends to: those before it and itself, bool [1 or B, 1, L, N]."""
    new = tokens.shape[1]
    mask = torch.ones(new, first + new, dtype=torch.bool, device=tokens.device).tril(first)[None, None]
    if given is None or given.shape[1] != first + new:
        return mask
    allowed = mask & (given != 0)[:, None, None, :]
    # a token always attends to itself, so that a row of padding has numbers
    return allowed | torch.eye(new, first + new, dtype=torch.bool, device=tokens.device).roll(first, 1)[None, None]


def _layer(
    layer: DecoderLayer,
    x: Tensor,
    encoded: Tensor,
    masks: tuple[Tensor, Tensor | None],
    cache: Any,
    number: int,
    record: DecoderRecord,
) -> Tensor:
    own, cross = layer.self_attention, layer.cross_attention
    y = layer.self_attention_norm(x)
    keys, values = own.keys_values(y)
    if cache is not None:
        keys, values = cache.self_attention_cache.update(keys, values, number)
    x = x + layer.dropout(own.attend(own.queries(y), keys, values, mask=masks[0], weights=record.attentions))
    if cache is not None and cache.is_updated.get(number):
        stored = cache.cross_attention_cache.layers[number]
        keys, values = stored.keys, stored.values
    else:
        keys, values = cross.keys_values(encoded)
        if cache is not None:
            keys, values = cache.cross_attention_cache.update(keys, values, number)
            cache.is_updated[number] = True
    y = layer.cross_attention_norm(x)
    attended = cross.attend(cross.queries(y), keys, values, mask=masks[1], weights=record.cross_attentions)
    return layer.feed_forward(x + layer.dropout(attended))
