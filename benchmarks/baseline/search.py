"""Beam search with cached keys; when beams are reordered, the rows of the cache are copied."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from baseline.model import EOS, PAD, LayerState, Seq2Seq


@dataclass(frozen=True)
class Settings:
    """The published settings of decoding; the longest text has `max_len` tokens without `</s>`."""

    beam: int = 50
    lenpen: float = 1.0
    min_len: int = 1
    max_len: int | None = None


@dataclass
class Text:
    tokens: list[int]
    score: float


def reorder(states: list[LayerState], rows: Tensor, utterances_left: bool) -> None:
    """Row i of the cache becomes row rows[i]. The keys of frames move only when utterances have left the batch."""
    for state in states:
        assert state.keys is not None
        assert state.values is not None
        state.keys, state.values = state.keys.index_select(0, rows), state.values.index_select(0, rows)
        if utterances_left:
            state.encoder_keys = state.encoder_keys.index_select(0, rows)
            state.encoder_values = state.encoder_values.index_select(0, rows)


@torch.no_grad()
def beam_search(model: Seq2Seq, encoded: Tensor, padding: Tensor | None, settings: Settings) -> list[list[Text]]:
    """The finished texts of every utterance, best first. Frames are [B, T, D]; padding is bool [B, T]."""
    b, k = len(encoded), settings.beam
    longest = encoded.shape[1] if settings.max_len is None else settings.max_len
    states = model.decoder.start(encoded, k)
    frame_mask = None if padding is None else ~padding.repeat_interleave(k, 0)[:, None, None, :]
    tokens = torch.full((b * k, 1), EOS)
    scores = torch.zeros(b, k)
    finished: list[list[Text]] = [[] for _ in range(b)]
    alive = list(range(b))
    for step in range(longest + 1):
        logits = model.decoder.step(tokens[:, -1], step, states, frame_mask)
        following = torch.log_softmax(logits.float(), -1)
        following[:, PAD] = -torch.inf
        if step < settings.min_len:
            following[:, EOS] = -torch.inf
        if step >= longest:
            following[:, :EOS] = -torch.inf
            following[:, EOS + 1 :] = -torch.inf
        v = following.shape[1]
        candidates = following.view(len(alive), k, v) + scores[..., None]
        if step == 0:
            candidates = candidates[:, :1]
        best, index = candidates.flatten(1).topk(min(2 * k, candidates[0].numel() - 1), dim=1)
        beam, token = index // v, index % v
        rows = beam + k * torch.arange(len(alive))[:, None]
        ends = (token == EOS) & (best > -torch.inf)
        for row, position in ends[:, :k].nonzero().tolist():
            texts = finished[alive[row]]
            if len(texts) < k:
                text = [*tokens[rows[row, position], 1:].tolist(), EOS]
                texts.append(Text(text, float(best[row, position]) / (step + 1) ** settings.lenpen))
        stay = [row for row, number in enumerate(alive) if len(finished[number]) < k and step < longest]
        if not stay:
            break
        # the first k continuations that do not end, in their order
        order = (ends * 2 * k + torch.arange(best.shape[1])).argsort(1)[:, :k]
        chosen = torch.tensor(stay)
        scores = best.gather(1, order)[chosen]
        moved = rows.gather(1, order)[chosen].flatten()
        tokens = torch.cat([tokens.index_select(0, moved), token.gather(1, order)[chosen].view(-1, 1)], 1)
        left = len(stay) < len(alive)
        reorder(states, moved, left)
        if left and frame_mask is not None:
            frame_mask = frame_mask.index_select(0, moved)
        alive = [alive[row] for row in stay]
    return [sorted(texts, key=lambda text: -text.score) for texts in finished]
