"""Beam search: one cached decoder step per token for all beams of all utterances of a batch.

A text is scored by the attention decoder, the CTC head and a language model, each with its weight (Watanabe et al.,
2017, § II-C). An utterance's result depends only on its own frames.

Shapes: B utterances not finished yet, K beams, T frames, D width, L tokens so far, V symbols. All tensors are created
on the device of the encoded frames; a step waits for the device once, and once more when texts end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from avhubert.config.schema import DecodeConfig
from avhubert.constants import EOS, FRAME_RATE, LOG_ZERO, PAD
from avhubert.decode.ctc import PrefixScores
from avhubert.decode.lm.base import LanguageModel
from avhubert.decode.lm.load import load_language_model
from avhubert.devices import to_device, to_host
from avhubert.errors import ConfigError, DataError
from avhubert.model.recognizer import Recognizer

MAX_FRAMES = 3000  # two minutes: far longer than any clip that a recognizer was trained on


@dataclass(frozen=True)
class Hypothesis:
    """A text and its scores; logarithms are natural.

    Attributes:
        tokens: of the text, `</s>` included unless the text was cut at the length limit (`stop: best`).
        score: sum of the positional scores / length^lenpen (length with `</s>`).
        positional_scores: the contribution of each token: (1 − w) log p by attention + w log p by CTC + the language
            model's share.
        posteriors: log p of each token by attention alone (by CTC alone where w = 1).
        lm_score: log p of the text by the language model, unweighted; 0 without one. Rescoring adds it to `score` with
            its weight, before the division, and does not change the positional scores.
    """

    tokens: list[int]
    score: float
    positional_scores: list[float]
    posteriors: list[float] = field(default_factory=list)
    lm_score: float = 0.0

    @property
    def confidence(self) -> float:
        """Mean log-probability per token, `</s>` included: the mean of `posteriors`."""
        return sum(self.posteriors) / len(self.posteriors)


def check_lengths(frames: Sequence[int], ids: Sequence[str] | None = None) -> None:
    """Check that utterances can be decoded in one piece; call it before encoding, whose memory grows with length².

    Args:
        frames: of each utterance.
        ids: of the utterances, for the message.

    Raises:
        DataError: an utterance has no frames, or more than MAX_FRAMES.
    """
    for row, count in enumerate(frames):
        clip = f"clip '{ids[row]}'" if ids else f"utterance {row} of the batch"
        clip_id = ids[row] if ids else None
        if count < 1:
            raise DataError(f"{clip} has no frames: there is nothing to decode; leave it out", clip_id=clip_id)
        if count > MAX_FRAMES:
            raise DataError(
                f"{clip} has {count} frames ({count / FRAME_RATE:.0f} s), too many to decode in one piece (at most "
                f"{MAX_FRAMES}, {MAX_FRAMES // FRAME_RATE} s); cut it, or give the file to "
                "`avhubert transcribe`, which does so",
                clip_id=clip_id,
            )


@torch.inference_mode()
def beam_search(
    recognizer: Recognizer,
    encoded: Tensor,
    padding_mask: Tensor | None,
    settings: DecodeConfig,
    lm: LanguageModel | None = None,
) -> list[list[Hypothesis]]:
    """The best hypotheses of every utterance, best first: at least one, at most `beam` (or `nbest`).

    Each step considers the best 2·beam continuations of an utterance. Those that end in `</s>` and are among the first
    `beam` are finished hypotheses. The search of an utterance ends when it has `beam` of them, or at its length limit,
    max_len_a · its own frames + max_len_b tokens, at most what the decoder allows. Where no symbol can follow (because
    of `min_len`, blocked n-grams, or too few frames for CTC), the text ends.

    With `stop: best` the `beam` best finished hypotheses are kept, and the search of an utterance ends when its best
    unfinished text scores no better than the worst of them. At the length limit unfinished texts count as they are.
    `<pad>` is a symbol like any other, as in transformers; `Tokenizer.decode` leaves it out.

    Args:
        recognizer: the model.
        encoded: float [B, T, D].
        padding_mask: bool [B, T], True = padding; None: no padding.
        settings: beam size, weights and limits.
        lm: language model to use instead of the one that settings.lm names.

    Raises:
        DataError: an utterance has no frames, or more than MAX_FRAMES.
        ConfigError: ctc_weight is set and the recognizer has no CTC head; lm_weight is set without a language model, or
            with one that cannot be read or, for fusion, has another vocabulary.
    """
    b, t = encoded.shape[:2]
    frames = [t] * b if padding_mask is None else to_host((~padding_mask).sum(1)).tolist()
    check_lengths(frames)
    if min(frames) == t:
        padding_mask = None
    check_settings(settings, recognizer, lm)
    if settings.lm_weight > 0 and lm is None:
        lm = load_language_model(str(settings.lm), recognizer.tokenizer)
    if settings.lm_weight == 0:
        lm = None
    fused = lm if settings.lm_use == "fusion" else None
    hypotheses = _Search(recognizer, encoded, padding_mask, settings, frames, fused).run()
    if lm is not None and fused is None:
        lm.to(encoded.device)
        hypotheses = [rescore(candidates, lm, settings) for candidates in hypotheses]
    return [candidates[: settings.nbest] for candidates in hypotheses]


def check_settings(settings: DecodeConfig, recognizer: Recognizer, lm: LanguageModel | None = None) -> None:
    """Check that the recognizer has what the settings use.

    Raises:
        ConfigError: ctc_weight is set and the recognizer has no CTC head; lm_weight is set without a language model.
    """
    if settings.ctc_weight > 0 and recognizer.ctc is None:
        raise ConfigError(
            f"decode.ctc_weight={settings.ctc_weight:g} needs a CTC head, and this recognizer has none; set it to 0 or "
            "fine-tune with model.decoder.ctc=true"
        )
    if settings.lm_weight > 0 and lm is None and settings.lm is None:
        raise ConfigError(f"decode.lm_weight={settings.lm_weight:g} needs a language model; name one in decode.lm")


def rescore(candidates: Sequence[Hypothesis], lm: LanguageModel, settings: DecodeConfig) -> list[Hypothesis]:
    """The hypotheses of one utterance with the language model's log p of their texts in the score, best first."""
    log_probabilities = lm.score([hypothesis.tokens for hypothesis in candidates])
    rescored = [
        replace(
            hypothesis,
            score=hypothesis.score + settings.lm_weight * log_p / len(hypothesis.tokens) ** settings.lenpen,
            lm_score=log_p,
        )
        for hypothesis, log_p in zip(candidates, log_probabilities, strict=True)
    ]
    return sorted(rescored, key=lambda hypothesis: -hypothesis.score)


@dataclass
class _Continuations:
    """Scores of each next symbol, float [B, K, V].

    Attributes:
        scores: what the symbol adds to the text's score.
        posteriors: log p by attention, or by CTC alone.
        lm: log p by the fused language model; None without one.
    """

    scores: Tensor
    posteriors: Tensor
    lm: Tensor | None


class _Search:
    """The state of a search: the unfinished texts, and the caches of their scorers.

    Attributes:
        alive: the utterance of each row of the tensors below.
        limits: largest number of tokens of each row, `</s>` not counted.
        tokens: int [B, K, L + 1], the texts, beginning with the decoder's start symbol.
        total: float [B, K], their scores; LOG_ZERO: the beam is unused.
        cumulative: float [B, K, L], their scores up to each token.
        posteriors: float [B, K, L], log p of each token.
        lm_scores: float [B, K], log p of the texts by the language model.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        encoded: Tensor,
        padding_mask: Tensor | None,
        settings: DecodeConfig,
        frames: Sequence[int],
        lm: LanguageModel | None,
    ) -> None:
        self.decoder = recognizer.decoder
        self.beams = settings.beam
        self.settings = settings
        self.device = encoded.device
        b = len(encoded)
        self.cache = self.decoder.start(encoded, padding_mask, self.beams) if settings.ctc_weight < 1 else None
        self.ctc: PrefixScores | None = None
        if settings.ctc_weight > 0:
            assert recognizer.ctc is not None
            self.ctc = PrefixScores(recognizer.ctc(encoded), frames, self.beams)
        self.lm = lm.fusion(b, self.beams, self.device) if lm is not None else None
        self.finished: list[list[Hypothesis]] = [[] for _ in range(b)]
        self.alive = list(range(b))
        self.limits = [max(int(settings.max_len_a * n) + settings.max_len_b, settings.min_len) for n in frames]
        if self.decoder.longest_text is not None:
            self.limits = [min(limit, self.decoder.longest_text - 1) for limit in self.limits]
        self.tokens = torch.full((b, self.beams, 1), self.decoder.start_token, device=self.device)
        self.cumulative = torch.zeros(b, self.beams, 0, device=self.device)
        self.posteriors = torch.zeros(b, self.beams, 0, device=self.device)
        self.lm_scores = torch.zeros(b, self.beams, device=self.device)
        # all beams are equal at first: only one may be continued
        self.total = torch.full((b, self.beams), LOG_ZERO, device=self.device)
        self.total[:, 0] = 0

    def run(self) -> list[list[Hypothesis]]:
        """The finished hypotheses of every utterance, best first."""
        step = 0
        while self.alive:
            self._advance(step)
            step += 1
        return [sorted(texts, key=lambda hypothesis: -hypothesis.score)[: self.beams] for texts in self.finished]

    def _advance(self, step: int) -> None:
        """Add a token to every text; finish hypotheses, and drop the utterances whose search has ended."""
        k = self.beams
        following = self._continuations()
        v = following.scores.shape[-1]
        best, index = self._candidates(following.scores, step).flatten(1).topk(2 * k, dim=1)
        beam, token = index // v, index % v
        ends = (token[:, :k] == EOS) & (best[:, :k] > LOG_ZERO)
        if self.settings.stop == "best":
            ends = ends | (self._at_limit(step)[:, None] & (best[:, :k] > LOG_ZERO))
        # the first k continuations that do not end, in their order
        rank = torch.arange(2 * k, device=self.device) + 2 * k * (token == EOS)
        continuing = rank.argsort(1)[:, :k]
        self.total = best.gather(1, continuing).masked_fill(token.gather(1, continuing) == EOS, LOG_ZERO)
        flags = to_host(torch.cat([ends, self.total[:, :1] > LOG_ZERO], 1)).tolist()
        finishing = [(row, position) for row, flag in enumerate(flags) for position in range(k) if flag[position]]
        if finishing:
            self._finish(finishing, best, beam, token, following, step)
        self._extend(beam.gather(1, continuing), token.gather(1, continuing), index.gather(1, continuing), following)
        full = self._is_full(step)
        self._drop(row for row, limit in enumerate(self.limits) if full[row] or step >= limit or not flags[row][k])

    def _at_limit(self, step: int) -> Tensor:
        """Which rows have reached their length limit, bool [B]."""
        return torch.tensor([step >= limit for limit in self.limits], device=self.device)

    def _is_full(self, step: int) -> list[bool]:
        """Whether each row has `beam` finished hypotheses that no unfinished text can replace any more."""
        full = [len(self.finished[utterance]) == self.beams for utterance in self.alive]
        if self.settings.stop == "first" or not any(full):
            return full
        best = to_host(self.total[:, 0] / (step + 1) ** self.settings.lenpen).tolist()
        return [
            enough and value <= min(hypothesis.score for hypothesis in self.finished[utterance])
            for enough, value, utterance in zip(full, best, self.alive, strict=True)
        ]

    def _continuations(self) -> _Continuations:
        weight = self.settings.ctc_weight
        ctc = None if self.ctc is None else to_device(self.ctc.continuations().float(), self.device)
        if self.cache is None:
            assert ctc is not None
            posteriors, scores = ctc, ctc.clone()
        else:
            posteriors = F.log_softmax(self.decoder.step(self.tokens[:, :, -1], self.cache).float(), -1)
            scores = posteriors.clone() if ctc is None else (1 - weight) * posteriors + weight * ctc
        lm = None
        if self.lm is not None:
            lm = self.lm.log_probabilities(self.tokens)
            scores += self.settings.lm_weight * lm
        return _Continuations(scores, posteriors, lm)

    def _candidates(self, scores: Tensor, step: int) -> Tensor:
        """Scores of the texts with each next symbol, [B, K, V]; LOG_ZERO where a symbol is not allowed."""
        if self.settings.stop == "first":  # transformers forbids no symbol
            scores[..., PAD] = LOG_ZERO
        too_short = step < self.settings.min_len
        ending = scores[..., EOS].clone()
        if too_short:
            scores[..., EOS] = LOG_ZERO
        if step >= min(self.limits) and self.settings.stop == "first":  # only </s> is allowed
            others = torch.arange(scores.shape[-1], device=self.device) != EOS
            scores.masked_fill_(self._at_limit(step)[:, None, None] & others, LOG_ZERO)
        if self.settings.no_repeat_ngram:
            _block_repeated(scores, self.tokens[..., 1:], self.settings.no_repeat_ngram)
        candidates = self.total[..., None] + scores
        if too_short:  # a text after which no symbol is allowed ends, although it is too short
            stuck = candidates.flatten(1).amax(1) == LOG_ZERO
            candidates[..., EOS] = torch.where(stuck[:, None], self.total + ending, candidates[..., EOS])
        return candidates

    def _finish(
        self,
        ends: Sequence[tuple[int, int]],
        best: Tensor,
        beam: Tensor,
        token: Tensor,
        following: _Continuations,
        step: int,
    ) -> None:
        """Record the hypotheses that end here: (row, position among the best continuations)."""
        rows = torch.tensor([row for row, _ in ends], device=self.device)
        positions = torch.tensor([position for _, position in ends], device=self.device)
        source, last = beam[rows, positions], token[rows, positions]
        lm_scores = self.lm_scores[rows, source]
        if following.lm is not None:
            lm_scores = lm_scores + following.lm[rows, source, last]
        columns = [
            self.cumulative[rows, source],
            best[rows, positions][:, None],
            self.posteriors[rows, source],
            following.posteriors[rows, source, last][:, None],
            lm_scores[:, None],
        ]
        values = to_host(torch.cat(columns, 1)).tolist()
        texts = to_host(torch.cat([self.tokens[rows, source, 1:], last[:, None]], 1)).tolist()
        length = step + 1
        for (row, _), text, numbers in zip(ends, texts, values, strict=True):
            hypotheses = self.finished[self.alive[row]]
            if len(hypotheses) == self.beams and self.settings.stop == "first":
                continue
            sums, posteriors, lm_score = numbers[:length], numbers[length:-1], numbers[-1]
            added = [after - before for after, before in zip(sums, [0.0, *sums[:-1]], strict=True)]
            score = sums[-1] / length**self.settings.lenpen
            hypotheses.append(Hypothesis(text, score, added, posteriors, lm_score))
            if len(hypotheses) > self.beams:
                hypotheses.remove(min(hypotheses, key=lambda hypothesis: hypothesis.score))

    def _extend(self, source: Tensor, token: Tensor, index: Tensor, following: _Continuations) -> None:
        """Beam k becomes beam source[k] with one more token, both int [B, K].

        `index` int [B, K]: position of the token's scores in [K · V].
        """
        b, k = source.shape
        rows = source + k * torch.arange(b, device=self.device)[:, None]
        if k > 1:
            if self.cache is not None:
                self.cache.reorder(rows.flatten())
            if self.lm is not None:
                self.lm.reorder(rows.flatten())
        if self.ctc is not None:
            self.ctc.follow(source, token)
        if following.lm is not None:
            self.lm_scores = self.lm_scores.gather(1, source) + following.lm.flatten(1).gather(1, index)
        posteriors = following.posteriors.flatten(1).gather(1, index)
        self.tokens = torch.cat([self.tokens.flatten(0, 1)[rows], token[..., None]], 2)
        self.cumulative = torch.cat([self.cumulative.flatten(0, 1)[rows], self.total[..., None]], 2)
        self.posteriors = torch.cat([self.posteriors.flatten(0, 1)[rows], posteriors[..., None]], 2)

    def _drop(self, ended: Iterable[int]) -> None:
        """Remove the rows of utterances whose search has ended."""
        leaving = set(ended)
        if not leaving:
            return
        stay = [row for row in range(len(self.alive)) if row not in leaving]
        self.alive = [self.alive[row] for row in stay]
        self.limits = [self.limits[row] for row in stay]
        if not stay:
            return
        rows = torch.tensor(stay, dtype=torch.long, device=self.device)
        for scorer in (self.cache, self.ctc, self.lm):
            if scorer is not None:
                scorer.keep(rows)
        self.total, self.lm_scores = self.total[rows], self.lm_scores[rows]
        self.tokens, self.cumulative, self.posteriors = (
            self.tokens[rows],
            self.cumulative[rows],
            self.posteriors[rows],
        )


def _block_repeated(scores: Tensor, texts: Tensor, n: int) -> None:
    """In scores [B, K, V], rule out every symbol that would repeat an n-gram of its beam's text, int [B, K, L]."""
    if texts.shape[2] < n:
        return
    grams = texts.unfold(2, n, 1)  # [B, K, L − n + 1, n]
    repeated = (grams[..., :-1] == texts[..., None, texts.shape[2] - n + 1 :]).all(-1)
    limits = scores.new_full(repeated.shape, -LOG_ZERO).masked_fill(repeated, LOG_ZERO)
    scores.scatter_reduce_(2, grams[..., -1], limits, reduce="amin")
