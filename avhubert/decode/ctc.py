"""CTC decoding: the best path, and prefix scores for the beam search.

A prefix score is the probability that a text begins with a given prefix (Watanabe et al., 2017, § II-C; Graves, 2008,
§ 2.4). Shapes: B utterances, K beams, T frames, V symbols. For the text g of a beam, two forward variables are computed
over frames 0…T (0: before the first frame): `symbol` (the alignment so far spells g and ends in its last symbol) and
`blank` (it ends in blanks). A recursion of the form n(t) = (n(t−1) + φ(t−1)) · x(t) is solved for all frames at once:
with S the running sum of log x, log n(t) = S(t) + log Σ_{s<t} exp(log φ(s) − S(s)). Computed in float64, since S falls
to thousands.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from avhubert.constants import CTC_BLANK, EOS, LOG_ZERO, PAD
from avhubert.devices import float64_device, to_device, to_host

FINITE_MINIMUM = -1e300  # in place of LOG_ZERO, where the largest of several logarithms is subtracted


def ctc_best_path(scores: Tensor, lengths: Sequence[int]) -> list[list[int]]:
    """The most likely symbol of each frame, without repetitions and blanks: tokens per utterance.

    Args:
        scores: float [B, T, V].
        lengths: real frames of each utterance.
    """
    best = to_host(scores.argmax(-1)).tolist()
    rows = [row[:length] for row, length in zip(best, lengths, strict=True)]
    return [[symbol for symbol, _ in itertools.groupby(row) if symbol != CTC_BLANK] for row in rows]


class PrefixScores:
    """CTC's side of a beam search: the log-probability of every continuation of every beam.

    Padding does not influence it. On Apple's GPU, which has no float64, the scores are computed on the CPU.
    """

    def __init__(self, scores: Tensor, lengths: Sequence[int], beams: int) -> None:
        """Begin with the empty text in each beam.

        Args:
            scores: float [B, T, V] of the CTC head, before softmax.
            lengths: real frames of each utterance.
            beams: K.
        """
        b, t, v = scores.shape
        self.device = float64_device(scores.device)
        logs = to_device(scores, self.device).double().log_softmax(-1)
        self.lengths = torch.tensor(lengths, device=self.device)
        padding = (torch.arange(t, device=self.device) >= self.lengths[:, None])[..., None]
        self.logs = logs.masked_fill(padding, 0)  # [B, T, V]; any finite value in padding
        self.probabilities = logs.exp().masked_fill(padding, 0)
        for symbol in (CTC_BLANK, PAD, EOS):  # no text contains them
            self.probabilities[..., symbol] = 0
        self.blanks = F.pad(self.logs[..., CTC_BLANK].cumsum(1), (1, 0))  # [B, T + 1]
        self.symbol = logs.new_full((b, beams, t + 1), LOG_ZERO)
        self.blank = self.blanks[:, None].repeat(1, beams, 1)
        self.last = torch.full((b, beams), CTC_BLANK, device=self.device)
        self.prefix = logs.new_zeros(b, beams)  # log p that a text begins with g
        self.continued = logs.new_empty(b, beams, v)  # the same for g and one more symbol

    def continuations(self) -> Tensor:
        """Log-probability of each symbol after each beam's text, float64 [B, K, V]; at `</s>`: that the text ends."""
        ends = torch.logaddexp(self.symbol, self.blank)
        before = ends[..., :-1]
        peak = before.amax(-1, keepdim=True).clamp(min=FINITE_MINIMUM)  # finite also for unused beams
        each = torch.bmm((before - peak).exp(), self.probabilities).log() + peak
        # the last symbol can be repeated only after a blank
        x = self.probabilities.gather(2, self._frames_of(self.last)).transpose(1, 2)
        after_blank = self.blank[..., :-1]
        peak = after_blank.amax(-1, keepdim=True).clamp(min=FINITE_MINIMUM)
        repeated = (((after_blank - peak).exp() * x).sum(-1, keepdim=True)).log() + peak
        each.scatter_(2, self.last[..., None], repeated)
        at_end = self.lengths[:, None, None].expand(-1, ends.shape[1], 1)
        each[..., EOS] = ends.gather(2, at_end).squeeze(2)
        self.continued = each
        return each - self.prefix.masked_fill(self.prefix == LOG_ZERO, 0)[..., None]

    def follow(self, source: Tensor, tokens: Tensor) -> None:
        """Beam k becomes beam source[k] continued by tokens[k]; both int [B, K]."""
        source, tokens = to_device((source, tokens), self.device)
        frames = source[..., None].expand(-1, -1, self.symbol.shape[2])
        symbol, blank = self.symbol.gather(1, frames), self.blank.gather(1, frames)
        repeated = self.last.gather(1, source) == tokens
        before = torch.where(repeated[..., None], blank, torch.logaddexp(symbol, blank))[..., :-1]
        x = self.logs.gather(2, self._frames_of(tokens)).transpose(1, 2)
        self.symbol = _forward_variable(before, F.pad(x.cumsum(2), (1, 0)))
        self.blank = _forward_variable(self.symbol[..., :-1], self.blanks[:, None])
        flat = self.continued.flatten(1)
        self.prefix = flat.gather(1, source * self.continued.shape[2] + tokens)
        self.last = tokens

    def keep(self, utterances: Tensor) -> None:
        """Drop all utterances but these, int [B']."""
        utterances = to_device(utterances, self.device)
        for name in ("logs", "probabilities", "lengths", "blanks", "symbol", "blank", "last", "prefix"):
            setattr(self, name, getattr(self, name)[utterances])

    def _frames_of(self, tokens: Tensor) -> Tensor:
        return tokens[:, None].expand(-1, self.logs.shape[1], -1)


def _forward_variable(before: Tensor, running: Tensor) -> Tensor:
    """The logarithm, [B, K, T + 1], of n(t) = (n(t−1) + before(t−1)) · x(t), n(0) = 0.

    `running`: sums of log x up to each frame, [B, K or 1, T + 1].
    """
    values = running[..., 1:] + torch.logcumsumexp(before - running[..., :-1], -1)
    return F.pad(values, (1, 0), value=LOG_ZERO)
