"""Word times and confidences: a text's tokens are laid along the frames by the best path (Viterbi).

With a CTC head the path is the likeliest alignment (Kürzinger et al., 2020); without one it follows the decoder's
attention over the frames, which is rougher. Shapes: L tokens without `</s>`, T frames, D width, V symbols.
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


@dataclass(frozen=True)
class AlignedWord:
    """A word, its times in seconds from the clip's start, and how probable the recognizer finds it (0 … 1)."""

    word: str
    start_seconds: float
    end_seconds: float
    confidence: float


@torch.inference_mode()
def align(
    recognizer: Recognizer, encoded: Tensor, tokens: Sequence[int], posteriors: Sequence[float] | None = None
) -> list[AlignedWord]:
    """Where each word of a text is said; words are what the tokenizer's spaces part.

    encoded float [T, D], one utterance's own frames; tokens with or without `</s>`: a hypothesis's, or
    `recognizer.tokenizer.encode(text)` of a text that is given. A word's confidence is the product of its tokens'
    probabilities, each given those before it: `posteriors` (log p, of a hypothesis) or, without them, the attention
    decoder's.

    Raises:
        DataError: the text has more symbols than fit into the frames.
        ConfigError: the recognizer has no tokenizer.
    """
    if recognizer.tokenizer is None:
        raise ConfigError("words need the recognizer's tokenizer, and this recognizer has none")
    if posteriors is None:
        posteriors = _attention_posteriors(recognizer, encoded, tokens)
    pairs = zip(tokens, posteriors, strict=False)  # of `</s>` there may be one more
    spoken = [(token, log_p) for token, log_p in pairs if token not in (BOS, PAD, EOS)]
    body = [token for token, _ in spoken]
    if not body:
        return []
    if recognizer.ctc is not None:
        logs = to_host(recognizer.ctc(encoded).double().log_softmax(-1)).numpy()
        spans = ctc_spans(logs, body)
    else:
        shown = torch.tensor([[EOS, *body]], device=encoded.device)
        looks = to_host(recognizer.decoder.cross_attention(shown, encoded[None])[0].double()).numpy()
        spans = monotonic_spans(np.log(looks + 1e-12))[:-1]  # the last is where </s> looks
    symbols = recognizer.tokenizer.symbols
    begins = [i for i, token in enumerate(body) if i == 0 or symbols[token].startswith(SPACE)]
    words = []
    for first, after in zip(begins, [*begins[1:], len(body)], strict=True):
        text = recognizer.tokenizer.decode(body[first:after])
        if text:
            chance = float(np.exp(sum(log_p for _, log_p in spoken[first:after])))
            start, end = spans[first][0] / FRAME_RATE, spans[after - 1][1] / FRAME_RATE
            words.append(AlignedWord(text, start, end, min(chance, 1.0)))
    return words


def _attention_posteriors(recognizer: Recognizer, encoded: Tensor, tokens: Sequence[int]) -> list[float]:
    text = torch.tensor([[EOS, *tokens]], device=encoded.device)
    logs = recognizer.decoder(text[:, :-1], encoded[None]).float().log_softmax(-1)
    return to_host(logs.gather(2, text[:, 1:, None])[0, :, 0]).tolist()


def ctc_spans(logs: np.ndarray, tokens: Sequence[int]) -> list[tuple[int, int]]:
    """(first frame, frame after the last) of each token on the likeliest alignment; logs: log p, float [T, V].

    DataError if the text does not fit: every token needs a frame, and one between two that are alike.
    """
    frames, count = len(logs), len(tokens)
    least = count + sum(one == other for one, other in zip(tokens[1:], tokens[:-1], strict=True))
    if least > frames:
        raise DataError(_too_long(count, least, frames))
    labels = np.full(2 * count + 1, CTC_BLANK)
    labels[1::2] = tokens
    jumps = np.zeros(len(labels), bool)  # over the blank between two different symbols
    jumps[3::2] = labels[3::2] != labels[1:-2:2]
    best = np.full(len(labels), -np.inf)
    best[0] = 0.0  # as if a blank came before the first frame
    moves = np.zeros((frames, len(labels)), np.int8)
    for frame in range(frames):
        options = np.full((3, len(labels)), -np.inf)
        options[0] = best
        options[1, 1:] = best[:-1]
        options[2, 2:] = np.where(jumps[2:], best[:-2], -np.inf)
        moves[frame] = options.argmax(0)
        best = options.max(0) + logs[frame, labels]
    state = len(labels) - 1 - int(best[-2] >= best[-1])
    path = np.empty(frames, int)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= moves[frame, state]
    return [_span(path == 2 * i + 1) for i in range(count)]


def monotonic_spans(logs: np.ndarray) -> list[tuple[int, int]]:
    """(first frame, frame after the last) of each row of logs [L, T]: rows in order share out all frames, at least one
    each, so that the sum is greatest. DataError if there are more rows than frames."""
    count, frames = logs.shape
    if count > frames:
        raise DataError(_too_long(count - 1, count, frames))
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


def _span(where: np.ndarray) -> tuple[int, int]:
    found = np.flatnonzero(where)
    return int(found[0]), int(found[-1]) + 1


def _too_long(symbols: int, least: int, frames: int) -> str:
    return (
        f"a text of {symbols} symbols cannot be aligned with {frames} frames ({frames / FRAME_RATE:.2f} s): it needs "
        f"at least {least}; check that the text belongs to the clip"
    )
