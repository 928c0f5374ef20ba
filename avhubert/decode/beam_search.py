"""Beam search: all beams of all utterances in one cached decoder step; utterances leave when they are done.

Shapes: B utterances still searched, K beams, T frames, D width, V symbols. An utterance's result depends on nothing but
its own frames. A text is scored by the attention decoder, the CTC head and a language model, each with its weight
(Watanabe et al., 2017, § II-C).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from avhubert.config.schema import DecodeConfig
from avhubert.constants import EOS, FRAME_RATE, LOG_ZERO, PAD
from avhubert.decode.ctc import PrefixScores
from avhubert.decode.lm.base import LanguageModel
from avhubert.decode.lm.load import load_language_model
from avhubert.devices import to_host
from avhubert.errors import ConfigError, DataError
from avhubert.model.recognizer import Recognizer

MAX_FRAMES = 3000  # two minutes: far longer than any clip that a recognizer was trained on


@dataclass(frozen=True)
class Hypothesis:
    """Tokens with `</s>`; score = Σ of the positional scores / length^lenpen (length with `</s>`; natural logs).

    positional_scores: what each token added: (1 − w) log p by attention + w log p by CTC + the language model's share.
    posteriors: log p of each token by attention alone (by CTC alone where w = 1): what confidences are made from.
    lm_score: log p of the text by the language model, unweighted; 0 without one. Rescoring adds it to `score` with its
    weight, before the division, and leaves the positional scores as they are.
    """

    tokens: list[int]
    score: float
    positional_scores: list[float]
    posteriors: list[float] = field(default_factory=list)
    lm_score: float = 0.0


def check_lengths(frames: Sequence[int], ids: Sequence[str] | None = None) -> None:
    """DataError names the first clip that is empty or too long (over MAX_FRAMES) to be decoded in one piece.

    To be asked before encoding, whose attention takes memory with the square of the length.
    """
    for row, count in enumerate(frames):
        clip = f"clip '{ids[row]}'" if ids else f"utterance {row} of the batch"
        if count < 1:
            raise DataError(f"{clip} has no frames: there is nothing to decode; leave it out")
        if count > MAX_FRAMES:
            raise DataError(
                f"{clip} has {count} frames ({count / FRAME_RATE:.0f} s), too many to decode in one piece (at most "
                f"{MAX_FRAMES}, {MAX_FRAMES // FRAME_RATE} s); cut it, or give the file to "
                "`avhubert transcribe`, which does so"
            )


@torch.inference_mode()
def beam_search(
    recognizer: Recognizer,
    encoded: Tensor,
    padding_mask: Tensor | None,
    settings: DecodeConfig,
    lm: LanguageModel | None = None,
) -> list[list[Hypothesis]]:
    """The best hypotheses of every utterance, best first, at most `beam` (or `nbest`) each and at least one.

    encoded float [B, T, D]; padding_mask bool [B, T], True = padding (None: no padding); lm: instead of the one that
    settings.lm names. At each step the best 2·beam continuations are looked at; one that ends in `</s>` among the first
    `beam` is a finished hypothesis; an utterance is done with `beam` of them, or at its length limit, max_len_a · its
    own frames + max_len_b. Where nothing may follow (`min_len`, n-grams that came before, too few frames for CTC), the
    text ends there.

    Raises:
        DataError: an utterance without frames, or with more than MAX_FRAMES.
        ConfigError: ctc_weight without a CTC head; lm_weight without a language model, or with one that cannot be read
            or, for fusion, has another vocabulary.
    """
    b, t = encoded.shape[:2]
    frames = [t] * b if padding_mask is None else to_host((~padding_mask).sum(1)).tolist()
    check_lengths(frames)
    if min(frames) == t:
        padding_mask = None
    if settings.ctc_weight > 0 and recognizer.ctc is None:
        raise ConfigError(
            f"decode.ctc_weight={settings.ctc_weight:g} needs a CTC head, and this recognizer has none; set it to 0 or "
            "fine-tune with model.decoder.ctc=true"
        )
    if settings.lm_weight > 0 and lm is None:
        if settings.lm is None:
            raise ConfigError(f"decode.lm_weight={settings.lm_weight:g} needs a language model; name one in decode.lm")
        lm = load_language_model(settings.lm, recognizer.tokenizer)
    if settings.lm_weight == 0:
        lm = None
    limits = [max(int(settings.max_len_a * n) + settings.max_len_b, settings.min_len) for n in frames]
    fused = lm if settings.lm_use == "fusion" else None
    found = _Search(recognizer, encoded, padding_mask, settings, frames, limits, fused).run()
    if lm is not None and fused is None:
        found = [rescore(one, lm, settings) for one in found]
    return [one[: settings.nbest] for one in found]


def rescore(found: Sequence[Hypothesis], lm: LanguageModel, settings: DecodeConfig) -> list[Hypothesis]:
    """The hypotheses of one utterance with the language model's log p of their texts in the score, best first."""
    told = lm.score([one.tokens for one in found])
    scored = [
        replace(
            one,
            score=one.score + settings.lm_weight * log_p / len(one.tokens) ** settings.lenpen,
            lm_score=log_p,
        )
        for one, log_p in zip(found, told, strict=True)
    ]
    return sorted(scored, key=lambda one: -one.score)


class _Search:
    def __init__(
        self,
        recognizer: Recognizer,
        encoded: Tensor,
        mask: Tensor | None,
        settings: DecodeConfig,
        frames: list[int],
        limits: list[int],
        lm: LanguageModel | None,
    ) -> None:
        self.decoder = recognizer.decoder
        self.beams = settings.beam
        self.settings = settings
        self.device = encoded.device
        b = len(encoded)
        self.cache = self.decoder.start(encoded, mask, self.beams) if settings.ctc_weight < 1 else None
        self.ctc: PrefixScores | None = None
        if settings.ctc_weight > 0:
            assert recognizer.ctc is not None
            self.ctc = PrefixScores(recognizer.ctc(encoded), torch.tensor(frames, device=self.device), self.beams)
        self.lm = lm.fusion(b, self.beams, self.device) if lm is not None else None
        self.done: list[list[Hypothesis]] = [[] for _ in range(b)]
        self.alive = list(range(b))  # which utterance each row of the tensors below is
        self.limits = limits
        self.tokens = torch.full((b, self.beams, 1), EOS, device=self.device)
        self.scores = torch.zeros(b, self.beams, 0, device=self.device)  # sum of what was added up to each token
        self.posteriors = torch.zeros(b, self.beams, 0, device=self.device)  # log p of each token
        self.lm_scores = torch.zeros(b, self.beams, device=self.device)  # log p of the text so far
        # all beams begin alike: only the first may be expanded
        self.total = torch.full((b, self.beams), LOG_ZERO, device=self.device)
        self.total[:, 0] = 0

    def run(self) -> list[list[Hypothesis]]:
        step = 0
        while self.alive:
            self._advance(step)
            step += 1
        return [sorted(found, key=lambda one: -one.score)[: self.beams] for found in self.done]

    def _continuations(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """What each next token adds to the score, its log p, and the language model's; each [B, K, V]."""
        weight = self.settings.ctc_weight
        if self.cache is None:
            assert self.ctc is not None
            posteriors = self.ctc.continuations().float()
            logs = posteriors.clone()
        else:
            posteriors = F.log_softmax(self.decoder.step(self.tokens[:, :, -1], self.cache).float(), -1)
            if self.ctc is None:
                logs = posteriors.clone()
            else:
                logs = (1 - weight) * posteriors + weight * self.ctc.continuations().float()
        told = None
        if self.lm is not None:
            told = self.lm.log_probabilities(self.tokens)
            logs += self.settings.lm_weight * told
        return logs, posteriors, told

    def _advance(self, step: int) -> None:
        b, k = self.total.shape
        logs, posteriors, told = self._continuations()
        v = logs.shape[-1]
        logs[..., PAD] = LOG_ZERO
        ending = logs[..., EOS].clone()
        if step < self.settings.min_len:
            logs[..., EOS] = LOG_ZERO
        at_limit = [step >= limit for limit in self.limits]
        if any(at_limit):  # nothing but </s>
            others = torch.arange(v, device=self.device) != EOS
            logs.masked_fill_(torch.tensor(at_limit, device=self.device)[:, None, None] & others, LOG_ZERO)
        if self.settings.no_repeat_ngram:
            _block_repeated(logs, self.tokens[..., 1:], self.settings.no_repeat_ngram)
        candidates = self.total[..., None] + logs
        if step < self.settings.min_len:  # a text that nothing may follow ends though it is short
            stuck = candidates.flatten(1).amax(1) == LOG_ZERO
            candidates[..., EOS] = torch.where(stuck[:, None], self.total + ending, candidates[..., EOS])
        best, place = candidates.view(b, -1).topk(2 * k, dim=1)
        beam, token = place // v, place % v
        ends = to_host((token == EOS) & (best > LOG_ZERO))[:, :k].nonzero().tolist()
        if ends:
            self._finish(ends, best, beam, step, posteriors, told)
        # the first k continuations that do not end go on; the order among candidates stays
        rank = torch.arange(best.shape[1], device=self.device).expand_as(best)
        going_on = rank + best.shape[1] * (token == EOS)
        chosen = going_on.argsort(1)[:, :k]
        self.total = best.gather(1, chosen).masked_fill(token.gather(1, chosen) == EOS, LOG_ZERO)
        source, newest = beam.gather(1, chosen), token.gather(1, chosen)
        rows = source + k * torch.arange(b, device=self.device)[:, None]
        if k > 1:
            if self.cache is not None:
                self.cache.reorder(rows.flatten())
            if self.lm is not None:
                self.lm.reorder(rows.flatten())
        if self.ctc is not None:
            self.ctc.follow(source, newest)
        place = place.gather(1, chosen)
        if told is not None:
            self.lm_scores = self.lm_scores.gather(1, source) + told.flatten(1).gather(1, place)
        each = posteriors.flatten(1).gather(1, place)
        self.tokens = torch.cat([self.tokens.view(b * k, -1)[rows], newest[..., None]], 2)
        self.scores = torch.cat([self.scores.view(b * k, -1)[rows], self.total[..., None]], 2)
        self.posteriors = torch.cat([self.posteriors.view(b * k, -1)[rows], each[..., None]], 2)
        self._leave(at_limit)

    def _finish(
        self,
        ends: list[list[int]],
        best: Tensor,
        beam: Tensor,
        step: int,
        posteriors: Tensor,
        told: Tensor | None,
    ) -> None:
        """Keep the hypotheses that end here: `ends` are (row, candidate)."""
        best, beam, scores, tokens_so_far = to_host(best), to_host(beam), to_host(self.scores), to_host(self.tokens)
        earlier, ending = to_host(self.posteriors), to_host(posteriors[..., EOS])
        lm_scores = None if told is None else to_host(self.lm_scores + told[..., EOS])
        for row, candidate in ends:
            found = self.done[self.alive[row]]
            if len(found) == self.beams:
                continue
            source = int(beam[row, candidate])
            sums = [*scores[row, source].tolist(), float(best[row, candidate])]
            each = [now - before for now, before in zip(sums, [0.0, *sums[:-1]], strict=True)]
            tokens = [*tokens_so_far[row, source, 1:].tolist(), EOS]
            chances = [*earlier[row, source].tolist(), float(ending[row, source])]
            lm_score = 0.0 if lm_scores is None else float(lm_scores[row, source])
            score = sums[-1] / (step + 1) ** self.settings.lenpen
            found.append(Hypothesis(tokens, score, each, chances, lm_score))

    def _leave(self, at_limit: list[bool]) -> None:
        """Drop the utterances that are done from all tensors."""
        going = to_host(self.total[:, 0] > LOG_ZERO).tolist()
        stay = [
            row
            for row, utterance in enumerate(self.alive)
            if len(self.done[utterance]) < self.beams and not at_limit[row] and going[row]
        ]
        if len(stay) == len(self.alive):
            return
        if not stay:
            self.alive = []
            return
        rows = torch.tensor(stay, dtype=torch.long, device=self.device)
        if self.cache is not None:
            self.cache.keep(rows)
        if self.ctc is not None:
            self.ctc.keep(rows)
        if self.lm is not None:
            self.lm.keep(rows)
        self.alive = [self.alive[row] for row in stay]
        self.limits = [self.limits[row] for row in stay]
        self.total, self.lm_scores = self.total[rows], self.lm_scores[rows]
        self.tokens, self.scores, self.posteriors = self.tokens[rows], self.scores[rows], self.posteriors[rows]


def _block_repeated(logs: Tensor, texts: Tensor, n: int) -> None:
    """In logs [B, K, V], rule out every symbol that would repeat an n-gram of its beam's text, int [B, K, L]."""
    if texts.shape[2] < n:
        return
    grams = texts.unfold(2, n, 1)  # [B, K, L − n + 1, n]
    same = (grams[..., :-1] == texts[..., None, texts.shape[2] - n + 1 :]).all(-1)
    repeated = torch.zeros_like(logs).scatter_reduce_(2, grams[..., -1], same.to(logs.dtype), "amax")
    logs.masked_fill_(repeated > 0, LOG_ZERO)
