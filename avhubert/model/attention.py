"""Multi-head attention, shared by the encoder's and the decoder's layers."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """Projections to H heads, scaled dot-product attention, output projection.

    Shapes: B utterances, L queries, T keys, D width.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, L, D] → [B, H, L, D/H]."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def queries(self, x: Tensor) -> Tensor:
        """[B, L, D] → [B, H, L, D/H]."""
        return self.split_heads(self.q_proj(x))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D] → keys and values, each [B, H, T, D/H]."""
        return self.split_heads(self.k_proj(x)), self.split_heads(self.v_proj(x))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Attention of q [B, H, L, D/H] over k, v [B, H, T, D/H] → [B, L, D].

        `mask` bool, broadcast to [B, H, L, T]: True where a query may attend to a key; None: everywhere.
        """
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Self-attention of x [B, T, D] → [B, T, D]; `mask` as in `attend`."""
        return self.attend(self.queries(x), *self.keys_values(x), mask=mask)


class DecoderAttention(MultiHeadAttention):
    """The same with the decoder's initialisation: Xavier, the output projection without bias."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__(dim, heads, dropout)
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight, gain=1 / math.sqrt(2))
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)
