"""Causal language models of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avhubert.constants import BOS, EOS, LOG_ZERO, PAD, UNK
from avhubert.data.tokenizer import Tokenizer
from avhubert.decode.lm.base import Fusion, LanguageModel, missing_extra
from avhubert.errors import ConfigError


# --------------------------------------------------------------------------- Hugging Face
class Causal(LanguageModel):
    """A causal language model with its tokenizer: a folder that `save_pretrained` wrote, or a name on the hub."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        try:
            import transformers
        except ImportError as error:
            raise missing_extra(error) from error
        try:
            self.model = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
            self.own: Any = transformers.AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"language model {source} is neither an n-gram file nor a causal language model with its tokenizer "
                f"that transformers can load ({reason[:200]}); check the path or name"
            ) from error
        self.start: int | None = self.own.bos_token_id if self.own.bos_token_id is not None else self.own.eos_token_id
        self.end: int | None = self.own.eos_token_id
        if self.start is None or self.end is None:
            raise ConfigError(
                f"the tokenizer of language model {source} names no end of a text (eos_token), so no text can be "
                "scored with it; set it there"
            )
        vocabulary = self.own.get_vocab()
        super().__init__(source, tokenizer, vocabulary)
        self.longest = int(getattr(self.model.config, "max_position_embeddings", 0) or 1 << 20)
        # our ids → its ids; -1: it has no such symbol
        special = {EOS: self.end, UNK: -1 if self.own.unk_token_id is None else self.own.unk_token_id}
        ids = [special.get(i, vocabulary.get(symbol, -1)) for i, symbol in enumerate(tokenizer.symbols)]
        ids[BOS] = ids[PAD] = -1
        self.ids = torch.tensor(ids)

    @torch.inference_mode()
    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        return [self._score(self._shown(text)) for text in texts]

    def _shown(self, text: Sequence[int]) -> list[int]:
        assert self.start is not None
        assert self.end is not None
        if self.missing:
            body = self.own.encode(self.tokenizer.decode(text), add_special_tokens=False)
        else:
            body = [max(int(self.ids[token]), 0) for token in self.pieces(text)]
        return [self.start, *body, self.end]

    def _score(self, ids: list[int]) -> float:
        total = 0.0
        half = max(self.longest // 2, 1)
        done = 1  # tokens scored so far; the first is given
        while done < len(ids):  # a text longer than the model's positions: half of them are context
            first = max(0, done - half) if len(ids) - 1 > self.longest else 0
            piece = torch.tensor([ids[first : first + self.longest + 1]], device=self.model.device)
            logs = self.model(piece[:, :-1]).logits[0].float().log_softmax(-1)
            each = logs.gather(1, piece[0, 1:, None])[done - first - 1 :]
            total += float(each.sum())
            done += len(each)
        return total

    def _fusion(self, utterances: int, beams: int, device: torch.device) -> Fusion:
        self.model.to(device)
        return _CausalFusion(self, beams, device)


class _CausalFusion(Fusion):
    """Keys and values of the tokens so far are kept; where the model's positions run out, half of them go."""

    def __init__(self, model: Causal, beams: int, device: torch.device) -> None:
        self.model = model
        self.beams = beams
        self.ids = model.ids.to(device)
        self.cache: Any = None
        self.held = 0

    def logs(self, tokens: Tensor) -> Tensor:
        b, k, length = tokens.shape
        ids = self.ids[tokens].clamp(min=0)
        assert self.model.start is not None
        ids[..., 0] = self.model.start
        newest = ids[..., -1:]
        if self.held >= self.model.longest:
            self.cache, self.held = None, 0
            newest = ids[..., max(0, length - max(self.model.longest // 2, 1)) :]
        out = self.model.model(newest.flatten(0, 1), past_key_values=self.cache, use_cache=True)
        self.cache = out.past_key_values
        self.held += newest.shape[2]
        logs = out.logits[:, -1].float().log_softmax(-1)[:, self.ids.clamp(min=0)]
        return logs.masked_fill(self.ids < 0, LOG_ZERO).view(b, k, -1)

    def reorder(self, beams: Tensor) -> None:
        self.cache.batch_select_indices(beams)

    def keep(self, utterances: Tensor) -> None:
        rows = utterances[:, None] * self.beams + torch.arange(self.beams, device=utterances.device)
        self.cache.batch_select_indices(rows.flatten())
