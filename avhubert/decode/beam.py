"""Beam search: all beams of all utterances in one cached decoder step; utterances leave when they are done.

Shapes: B utterances still searched, K beams, T frames, D width, V symbols. An utterance's result depends on nothing but
its own frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avhubert.config import DecodeConfig
from avhubert.model.decoder import PAD
from avhubert.model.recognizer import EOS, Recognizer

NEVER = float("-inf")


@dataclass(frozen=True)
class Hypothesis:
    """Tokens with `</s>`, score = Σ log p / length^lenpen (natural logs, length with `</s>`), log p of each token."""

    tokens: list[int]
    score: float
    positional_scores: list[float]


@torch.inference_mode()
def beam_search(
    recognizer: Recognizer, encoded: Tensor, padding_mask: Tensor | None, settings: DecodeConfig
) -> list[list[Hypothesis]]:
    """The best hypotheses of every utterance, best first, at most `beam` each.

    encoded float [B, T, D]; padding_mask bool [B, T], True = padding (None: no padding). At each step the best 2·beam
    continuations are looked at; one that ends in `</s>` among the first `beam` is a finished hypothesis; an utterance
    is done with `beam` of them, or at its length limit, max_len_a · its own frames + max_len_b.
    """
    b, t = encoded.shape[:2]
    frames = [t] * b if padding_mask is None else (~padding_mask).sum(1).tolist()
    limits = [max(int(settings.max_len_a * n) + settings.max_len_b, settings.min_len) for n in frames]
    return _Search(recognizer, encoded, padding_mask, settings, limits).run()


class _Search:
    def __init__(
        self, recognizer: Recognizer, encoded: Tensor, mask: Tensor | None, settings: DecodeConfig, limits: list[int]
    ) -> None:
        self.decoder = recognizer.decoder
        self.beams = settings.beam
        self.settings = settings
        self.device = encoded.device
        b = len(encoded)
        self.cache = self.decoder.start(encoded, mask, self.beams)
        self.done: list[list[Hypothesis]] = [[] for _ in range(b)]
        self.alive = list(range(b))  # which utterance each row of the tensors below is
        self.limits = torch.tensor(limits, device=self.device)
        self.tokens = torch.full((b, self.beams, 1), EOS, device=self.device)
        self.scores = torch.zeros(b, self.beams, 0, device=self.device)  # sum of log p up to each token
        # all beams begin alike: only the first may be expanded
        self.total = torch.full((b, self.beams), NEVER, device=self.device)
        self.total[:, 0] = 0

    def run(self) -> list[list[Hypothesis]]:
        step = 0
        while self.alive:
            self._advance(step)
            step += 1
        return [sorted(found, key=lambda one: -one.score)[: self.beams] for found in self.done]

    def _advance(self, step: int) -> None:
        b, k = self.total.shape
        logs = F.log_softmax(self.decoder.step(self.tokens[:, :, -1], self.cache).float(), -1)
        v = logs.shape[-1]
        logs[..., PAD] = NEVER
        if step < self.settings.min_len:
            logs[..., EOS] = NEVER
        at_limit = step >= self.limits
        if bool(at_limit.any()):  # nothing but </s>
            others = torch.arange(v, device=self.device) != EOS
            logs.masked_fill_(at_limit[:, None, None] & others, NEVER)
        candidates = (self.total[..., None] + logs).view(b, -1)
        best, place = candidates.topk(2 * k, dim=1)
        beam, token = place // v, place % v
        ends = (token == EOS) & (best > NEVER)
        self._finish(ends[:, :k], best, beam, step)
        # the first k continuations that do not end go on; the order among candidates stays
        rank = torch.arange(best.shape[1], device=self.device).expand_as(best)
        going_on = rank + best.shape[1] * (token == EOS)
        chosen = going_on.argsort(1)[:, :k]
        self.total = best.gather(1, chosen).masked_fill(token.gather(1, chosen) == EOS, NEVER)
        source, newest = beam.gather(1, chosen), token.gather(1, chosen)
        rows = source + k * torch.arange(b, device=self.device)[:, None]
        self.cache.reorder(rows.flatten())
        self.tokens = torch.cat([self.tokens.view(b * k, -1)[rows], newest[..., None]], 2)
        self.scores = torch.cat([self.scores.view(b * k, -1)[rows], self.total[..., None]], 2)
        self._leave(at_limit)

    def _finish(self, ends: Tensor, best: Tensor, beam: Tensor, step: int) -> None:
        """Keep the hypotheses that end here."""
        for row, place in ends.nonzero().tolist():
            found = self.done[self.alive[row]]
            if len(found) == self.beams:
                continue
            source = int(beam[row, place])
            sums = [*self.scores[row, source].tolist(), float(best[row, place])]
            each = [now - before for now, before in zip(sums, [0.0, *sums[:-1]], strict=True)]
            tokens = [*self.tokens[row, source, 1:].tolist(), EOS]
            found.append(Hypothesis(tokens, sums[-1] / (step + 1) ** self.settings.lenpen, each))

    def _leave(self, at_limit: Tensor) -> None:
        """Drop the utterances that are done from all tensors."""
        stay = [
            row
            for row, utterance in enumerate(self.alive)
            if len(self.done[utterance]) < self.beams and not at_limit[row] and self.total[row, 0] > NEVER
        ]
        if len(stay) == len(self.alive):
            return
        rows = torch.tensor(stay, dtype=torch.long, device=self.device)
        self.cache.keep(rows, self.beams)
        self.alive = [self.alive[row] for row in stay]
        self.limits, self.total = self.limits[rows], self.total[rows]
        self.tokens, self.scores = self.tokens[rows], self.scores[rows]
