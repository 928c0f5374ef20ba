"""Multi-head attention, shared by the encoder's and the decoder's layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avhubert.model.inference import Linear


class MultiHeadAttention(nn.Module):
    """Projections to H heads, scaled dot-product attention, output projection.

    Shapes: B utterances, L queries, T keys, D width.

    Args:
        dim: D.
        heads: H, a divisor of D.
        dropout: probability of dropping an attention weight in training.
        pack_fp32: see `inference.Linear`.
    """

    def __init__(self, dim: int, heads: int, dropout: float, pack_fp32: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q_proj = Linear(dim, dim, pack_fp32=pack_fp32)
        self.k_proj = Linear(dim, dim, pack_fp32=pack_fp32)
        self.v_proj = Linear(dim, dim, pack_fp32=pack_fp32)
        self.out_proj = Linear(dim, dim, pack_fp32=pack_fp32)

    def split(self, x: Tensor) -> Tensor:
        """Split the width of x [B, L, D] into heads: [B, H, L, D/H]."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def queries(self, x: Tensor) -> Tensor:
        """Queries [B, H, L, D/H] of x [B, L, D]."""
        return self.split(self.q_proj(x))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each [B, H, T, D/H], of x [B, T, D]."""
        return self.split(self.k_proj(x)), self.split(self.v_proj(x))

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Scaled dot-product attention and output projection.

        Args:
            q: queries [B, H, L, D/H].
            k: keys [B, H, T, D/H].
            v: values [B, H, T, D/H].
            mask: bool, broadcast to [B, H, L, T], True where a query may attend to a key; None: everywhere.
            causal: query i attends to the keys 0 … i only; without `mask` and `weights`.
            weights: if given, the attention weights [B, H, L, T] are appended to it, which is slower.

        Returns:
            [B, L, D].
        """
        dropout = self.dropout if self.training else 0.0
        if weights is not None:
            scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
            weights.append((scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1))
            out = F.dropout(weights[-1], dropout) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        projected: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return projected

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        weights: list[Tensor] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Self-attention of x [B, T, D] → [B, T, D]; `mask` and `weights` as in `attend`.

        With `lengths`, x [1, sum of lengths, D] has utterances one after the other: each attends to itself.
        """
        q, (k, v) = self.queries(x), self.keys_values(x)
        if lengths is None:
            return self.attend(q, k, v, mask=mask, weights=weights)
        parts = (part.split(list(lengths), 2) for part in (q, k, v))
        attended = [F.scaled_dot_product_attention(*utterance) for utterance in zip(*parts, strict=True)]
        projected: Tensor = self.out_proj(torch.cat(attended, 2).transpose(1, 2).flatten(2))
        return projected


class DecoderAttention(MultiHeadAttention):
    """Multi-head attention with the decoder's initialisation: Xavier, output bias 0."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__(dim, heads, dropout, pack_fp32=True)
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight, gain=1 / math.sqrt(2))
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)
