"""Causal language models of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avhubert.constants import BOS, EOS, LOG_ZERO, PAD, UNK
from avhubert.data.tokenizer import Tokenizer
from avhubert.decode.lm.base import Fusion, LanguageModel, missing_extra
from avhubert.devices import to_device, to_host
from avhubert.errors import ConfigError

NO_POSITION_LIMIT = 1 << 20  # of models whose configuration names no longest input


class CausalModel(LanguageModel):
    """A causal language model and its tokenizer: a folder written by `save_pretrained`, or a name on the Hub.

    Attributes:
        start, end: ids of the symbols before and after a text, in the model's own vocabulary.
        positions: longest input in tokens.
        ids: int [V], the model's id of each symbol of the recognizer; -1: it lacks the symbol.
    """

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        try:
            import transformers
        except ImportError as error:
            raise missing_extra(error) from error
        try:
            self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
            self.own_tokenizer: Any = transformers.AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"language model {source} is neither an n-gram file nor a causal language model with its tokenizer "
                f"that transformers can load ({reason[:200]}); check the path or name"
            ) from error
        bos, end = self.own_tokenizer.bos_token_id, self.own_tokenizer.eos_token_id
        if end is None:
            raise ConfigError(
                f"the tokenizer of language model {source} names no end of a text (eos_token), so no text can be "
                "scored with it; set it there"
            )
        self.end: int = end
        self.start: int = end if bos is None else bos
        vocabulary = self.own_tokenizer.get_vocab()
        super().__init__(source, tokenizer, vocabulary)
        self.positions = int(getattr(self.model.config, "max_position_embeddings", 0) or NO_POSITION_LIMIT)
        unknown = self.own_tokenizer.unk_token_id
        special = {EOS: end, UNK: -1 if unknown is None else unknown}
        ids = [special.get(token, vocabulary.get(symbol, -1)) for token, symbol in enumerate(tokenizer.symbols)]
        ids[BOS] = ids[PAD] = -1
        self.ids = torch.tensor(ids)

    def to(self, device: torch.device) -> None:
        """Move the model to a device."""
        self.model.to(device)

    @torch.inference_mode()
    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """Log-probability of each text, its end included."""
        return [self._score(self._input_ids(text)) for text in texts]

    def _input_ids(self, text: Sequence[int]) -> list[int]:
        if self.missing:
            body = self.own_tokenizer.encode(self.tokenizer.decode(text), add_special_tokens=False)
        else:
            body = self.ids[self.text_tokens(text)].clamp(min=0).tolist()
        return [self.start, *body, self.end]

    def _score(self, ids: list[int]) -> float:
        total = 0.0
        half = max(self.positions // 2, 1)
        scored = 1  # the first token is given
        while scored < len(ids):
            # a text longer than the model's positions is scored in windows, half of each being context
            first = max(0, scored - half) if len(ids) - 1 > self.positions else 0
            window = torch.tensor([ids[first : first + self.positions + 1]], device=self.model.device)
            logs = self.model(window[:, :-1]).logits[0].float().log_softmax(-1)
            added = logs.gather(1, window[0, 1:, None])[scored - first - 1 :]
            total += float(to_host(added.sum()))
            scored += len(added)
        return total

    def _fusion(self, utterances: int, beams: int, device: torch.device) -> Fusion:
        self.to(device)
        return _CausalFusion(self, beams, device)


class _CausalFusion(Fusion):
    """Caches keys and values of the tokens so far; when the model's positions run out, it keeps half of them."""

    def __init__(self, model: CausalModel, beams: int, device: torch.device) -> None:
        self.model = model
        self.beams = beams
        self.ids = to_device(model.ids, device)
        self.cache: Any = None
        self.cached = 0

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        b, k, length = tokens.shape
        ids = self.ids[tokens].clamp(min=0)
        ids[..., 0] = self.model.start
        newest = ids[..., -1:]
        if self.cached >= self.model.positions:
            self.cache, self.cached = None, 0
            newest = ids[..., max(0, length - max(self.model.positions // 2, 1)) :]
        output = self.model.model(newest.flatten(0, 1), past_key_values=self.cache, use_cache=True)
        self.cache = output.past_key_values
        self.cached += newest.shape[2]
        logs: Tensor = output.logits[:, -1].float().log_softmax(-1)[:, self.ids.clamp(min=0)]
        return logs.masked_fill(self.ids < 0, LOG_ZERO).view(b, k, -1)

    def reorder(self, beams: Tensor) -> None:
        self.cache.batch_select_indices(beams)

    def keep(self, utterances: Tensor) -> None:
        rows = utterances[:, None] * self.beams + torch.arange(self.beams, device=utterances.device)
        self.cache.batch_select_indices(rows.flatten())
