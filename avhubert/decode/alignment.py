"""Word times and confidences: the tokens of a text are aligned with the frames by the best path (Viterbi).

With a CTC head the path is the most likely alignment (Kürzinger et al., 2020); without one it follows the decoder's
cross-attention over the frames, which is less accurate. Shapes: L tokens without `</s>`, T frames, D width, V symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avhubert.constants import BOS, CTC_BLANK, EOS, FRAME_RATE, PAD
from avhubert.data.tokenizer import SPACE
from avhubert.devices import to_host
from avhubert.errors import ConfigError, DataError
from avhubert.model.recognizer import Recognizer

MIN_ATTENTION = 1e-12  # added before the logarithm

Span = tuple[int, int]  # first frame, and the frame after the last


@dataclass(frozen=True)
class AlignedWord:
    """A word, its times in seconds from the start of the clip, and the probability of its tokens (0 … 1)."""

    word: str
    start_seconds: float
    end_seconds: float
    confidence: float


@torch.inference_mode()
def align(
    recognizer: Recognizer, encoded: Tensor, tokens: Sequence[int], posteriors: Sequence[float] | None = None
) -> list[AlignedWord]:
    """Times of each word of a text; words are separated by the tokenizer's spaces.

    Args:
        recognizer: the model, with its tokenizer.
        encoded: float [T, D], the frames of one utterance, without padding.
        tokens: of a hypothesis, or `recognizer.tokenizer.encode(text)` of a given text; with or without `</s>`.
        posteriors: log p of each token, of a hypothesis; None: computed by the attention decoder. A word's confidence
            is the product of its tokens' probabilities.

    Raises:
        DataError: the text has more symbols than fit into the frames.
        ConfigError: the recognizer has no tokenizer.
    """
    if recognizer.tokenizer is None:
        raise ConfigError("words need the recognizer's tokenizer, and this recognizer has none")
    if posteriors is None:
        posteriors = _attention_posteriors(recognizer, encoded, tokens)
    # the posterior of </s> may have no token
    pairs = [pair for pair in zip(tokens, posteriors, strict=False) if pair[0] not in (BOS, PAD, EOS)]
    body = [token for token, _ in pairs]
    if not body:
        return []
    spans = _token_spans(recognizer, encoded, body)
    symbols = recognizer.tokenizer.symbols
    starts = [i for i, token in enumerate(body) if i == 0 or symbols[token].startswith(SPACE)]
    words = []
    for first, after in zip(starts, [*starts[1:], len(body)], strict=True):
        text = recognizer.tokenizer.decode(body[first:after])
        if text:
            probability = float(np.exp(sum(log_p for _, log_p in pairs[first:after])))
            start, end = spans[first][0] / FRAME_RATE, spans[after - 1][1] / FRAME_RATE
            words.append(AlignedWord(text, start, end, min(probability, 1.0)))
    return words


def _attention_posteriors(recognizer: Recognizer, encoded: Tensor, tokens: Sequence[int]) -> list[float]:
    text = torch.tensor([[recognizer.decoder.start_token, *tokens]], device=encoded.device)
    logs = recognizer.decoder(text[:, :-1], encoded[None]).float().log_softmax(-1)
    posteriors: list[float] = to_host(logs.gather(2, text[:, 1:, None])[0, :, 0]).tolist()
    return posteriors


def _token_spans(recognizer: Recognizer, encoded: Tensor, body: list[int]) -> list[Span]:
    """Frames of each token, by CTC, or by cross-attention if there is no CTC head."""
    if recognizer.ctc is not None:
        return ctc_spans(to_host(recognizer.ctc(encoded)).double().log_softmax(-1).numpy(), body)
    text = torch.tensor([[recognizer.decoder.start_token, *body]], device=encoded.device)
    attention = to_host(recognizer.decoder.cross_attention(text, encoded[None])[0]).double().numpy()
    return monotonic_spans(np.log(attention + MIN_ATTENTION))[:-1]  # the last row predicts </s>


def ctc_spans(logs: np.ndarray, tokens: Sequence[int]) -> list[Span]:
    """Frames of each token on the most likely alignment.

    Args:
        logs: log p of every symbol, float [T, V].
        tokens: L symbols.

    Raises:
        DataError: the text does not fit: every token needs a frame, and two equal neighbours one more between them.
    """
    frames, count = len(logs), len(tokens)
    needed = count + sum(after == before for after, before in zip(tokens[1:], tokens[:-1], strict=True))
    if needed > frames:
        raise _too_long(count, needed, frames)
    labels = np.full(2 * count + 1, CTC_BLANK)
    labels[1::2] = tokens
    skips = np.zeros(len(labels), bool)  # the blank between two different symbols may be skipped
    skips[3::2] = labels[3::2] != labels[1:-2:2]
    best = np.full(len(labels), -np.inf)
    best[0] = 0.0  # as if a blank preceded the first frame
    moves = np.zeros((frames, len(labels)), np.int8)
    for frame in range(frames):
        options = np.full((3, len(labels)), -np.inf)
        options[0] = best
        options[1, 1:] = best[:-1]
        options[2, 2:] = np.where(skips[2:], best[:-2], -np.inf)
        moves[frame] = options.argmax(0)
        best = options.max(0) + logs[frame, labels]
    state = len(labels) - 1 - int(best[-2] >= best[-1])
    path = np.empty(frames, int)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= moves[frame, state]
    return [_span(path == 2 * i + 1) for i in range(count)]


def monotonic_spans(logs: np.ndarray) -> list[Span]:
    """Frames of each row: the rows, in their order, share all frames, at least one each, with the greatest sum.

    Args:
        logs: float [L, T].

    Raises:
        DataError: there are more rows than frames.
    """
    count, frames = logs.shape
    if count > frames:
        raise _too_long(count - 1, count, frames)
    best = np.full(count, -np.inf)
    best[0] = logs[0, 0]
    moves = np.zeros((frames, count), bool)
    for frame in range(1, frames):
        stepped = np.concatenate([[-np.inf], best[:-1]])
        moves[frame] = stepped > best
        best = np.maximum(stepped, best) + logs[:, frame]
    path = np.empty(frames, int)
    row = count - 1
    for frame in range(frames - 1, -1, -1):
        path[frame] = row
        row -= moves[frame, row]
    return [_span(path == i) for i in range(count)]


def _span(mask: np.ndarray) -> Span:
    frames = np.flatnonzero(mask)
    return int(frames[0]), int(frames[-1]) + 1


def _too_long(symbols: int, needed: int, frames: int) -> DataError:
    return DataError(
        f"a text of {symbols} symbols cannot be aligned with {frames} frames ({frames / FRAME_RATE:.2f} s): it needs "
        f"at least {needed}; check that the text belongs to the clip"
    )
