"""CTC prefix scores: how probable it is that a text begins so (Watanabe et al., 2017, § II-C; Graves, 2008, § 2.4).

Shapes: B utterances, K beams, T frames, V symbols. For a beam's text g, two paths are followed over frames 0…T (0:
before the first): `symbol` (the alignment so far spells g and ends in its last symbol) and `blank` (it ends in blanks).
A recursion of the form n(t) = (n(t−1) + φ(t−1)) · x(t) is solved for all frames at once: with S the running sum of
log x, log n(t) = S(t) + log Σ_{s<t} exp(log φ(s) − S(s)). In double precision, since S falls to thousands.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from avhubert.constants import CTC_BLANK, EOS, LOG_ZERO, PAD
from avhubert.devices import to_host


def ctc_best_path(scores: Tensor, lengths: Sequence[int]) -> list[list[int]]:
    """The most likely symbol of each frame of scores [B, T, V], repeats and blanks left out: tokens per utterance.

    `lengths`: real frames of each utterance.
    """
    best = to_host(scores.argmax(-1)).tolist()
    rows = [row[:length] for row, length in zip(best, lengths, strict=True)]
    return [[symbol for symbol, _ in itertools.groupby(row) if symbol != CTC_BLANK] for row in rows]


class PrefixScores:
    """The CTC side of a beam search: log p of every continuation of every beam, padding unseen.

    scores float [B, T, V] are the CTC head's, before softmax; lengths int [B] count each utterance's own frames.
    """

    def __init__(self, scores: Tensor, lengths: Tensor, beams: int) -> None:
        b, t, v = scores.shape
        logs = scores.double().log_softmax(-1)
        own = torch.arange(t, device=scores.device) < lengths[:, None]
        self.logs = logs.masked_fill(~own[..., None], 0)  # [B, T, V]; in padding anything finite
        self.chances = logs.exp().masked_fill(~own[..., None], 0)
        never = torch.tensor([CTC_BLANK, PAD, EOS], device=scores.device)  # no text contains them
        self.chances.index_fill_(2, never, 0)
        self.lengths = lengths
        self.blanks = F.pad(self.logs[..., CTC_BLANK].cumsum(1), (1, 0))  # [B, T + 1]
        self.symbol = scores.new_full((b, beams, t + 1), LOG_ZERO, dtype=torch.double)
        self.blank = self.blanks[:, None].repeat(1, beams, 1)  # of the empty text
        self.last = torch.full((b, beams), CTC_BLANK, device=scores.device)
        self.prefix = torch.zeros(b, beams, dtype=torch.double, device=scores.device)  # log p that a text begins with g
        self.continued = self.prefix.new_empty(b, beams, v)

    def continuations(self) -> Tensor:
        """log p of each symbol after each beam's text, double [B, K, V]; at `</s>`: that the text ends here."""
        ends = torch.logaddexp(self.symbol, self.blank)
        before = ends[..., :-1]
        peak = before.amax(-1, keepdim=True).clamp(min=-1e300)  # finite also where a beam is dead
        each = torch.bmm((before - peak).exp(), self.chances).log() + peak
        # the last symbol once more: only after a blank
        x = self.chances.gather(2, self._frames_of(self.last)).transpose(1, 2)
        alone = self.blank[..., :-1]
        peak = alone.amax(-1, keepdim=True).clamp(min=-1e300)
        again = (((alone - peak).exp() * x).sum(-1, keepdim=True)).log() + peak
        each.scatter_(2, self.last[..., None], again)
        at_end = self.lengths[:, None, None].expand(-1, ends.shape[1], 1)
        each[..., EOS] = ends.gather(2, at_end).squeeze(2)
        self.continued = each
        return each - self.prefix.masked_fill(self.prefix == LOG_ZERO, 0)[..., None]

    def follow(self, source: Tensor, tokens: Tensor) -> None:
        """Beam k becomes beam source[k] continued by tokens[k]; both int [B, K]."""
        frames = source[..., None].expand(-1, -1, self.symbol.shape[2])
        symbol, blank = self.symbol.gather(1, frames), self.blank.gather(1, frames)
        again = self.last.gather(1, source) == tokens
        before = torch.where(again[..., None], blank, torch.logaddexp(symbol, blank))[..., :-1]
        x = self.logs.gather(2, self._frames_of(tokens)).transpose(1, 2)
        self.symbol = _paths(before, F.pad(x.cumsum(2), (1, 0)))
        self.blank = _paths(self.symbol[..., :-1], self.blanks[:, None])
        flat = self.continued.flatten(1)
        self.prefix = flat.gather(1, source * self.continued.shape[2] + tokens)
        self.last = tokens

    def keep(self, utterances: Tensor) -> None:
        """Drop all utterances but these, int [B']."""
        for name in ("logs", "chances", "lengths", "blanks", "symbol", "blank", "last", "prefix"):
            setattr(self, name, getattr(self, name)[utterances])

    def _frames_of(self, tokens: Tensor) -> Tensor:
        return tokens[:, None].expand(-1, self.logs.shape[1], -1)


def _paths(before: Tensor, running: Tensor) -> Tensor:
    """log n [B, K, T + 1] of n(t) = (n(t−1) + before(t−1)) · x(t), n(0) = 0; running: Σ log x, [B, K or 1, T + 1]."""
    paths = running[..., 1:] + torch.logcumsumexp(before - running[..., :-1], -1)
    return F.pad(paths, (1, 0), value=LOG_ZERO)
