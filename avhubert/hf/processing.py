"""The processor: inputs of recordings, labels of texts, and texts of tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, ProcessorMixin

from avhubert.errors import DataError
from avhubert.hf.modeling import IGNORED


class AVHubertProcessor(ProcessorMixin):
    """An `AVHubertFeatureExtractor` and the tokenizer of a model."""

    def __init__(self, feature_extractor: Any, tokenizer: Any) -> None:
        super().__init__(feature_extractor, tokenizer)
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer

    def __call__(
        self,
        audio: Any = None,
        videos: Any = None,
        text: str | list[str] | None = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        **_: Any,
    ) -> BatchFeature:
        """The inputs of a recording or a batch, and the labels of its texts.

        A file with audio and video is given as both: `processor(audio="talk.mp4", videos="talk.mp4")`.

        Args:
            audio: see `AVHubertFeatureExtractor`.
            videos: see `AVHubertFeatureExtractor`.
            text: a text, or a list of them; None: no labels.
            sampling_rate: see `AVHubertFeatureExtractor`.
            return_tensors: "pt" or "np".

        Returns:
            What `AVHubertFeatureExtractor` returns, and `labels` int64 [B, L]: the tokens of each text with the end
            symbol; -100 at the end of shorter ones.

        Raises:
            DataError: see `AVHubertFeatureExtractor`; or nothing is given.
        """
        if audio is None and videos is None and text is None:
            raise DataError("neither audio nor videos nor text was given: give at least one")
        batch = BatchFeature()
        if audio is not None or videos is not None:
            batch = self.feature_extractor(audio, videos, sampling_rate, return_tensors)
        if text is not None:
            labels = self._labels([text] if isinstance(text, str) else text)
            batch.update(BatchFeature({"labels": labels.numpy()}, tensor_type=return_tensors))
        return batch

    def _labels(self, texts: list[str]) -> torch.Tensor:
        end = self.tokenizer.eos_token_id
        rows = [torch.tensor([*self.tokenizer(text, add_special_tokens=False).input_ids, end]) for text in texts]
        return pad_sequence(rows, batch_first=True, padding_value=IGNORED)

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        """The texts of tokens int [B, L]; special symbols are left out."""
        texts: list[str] = self.tokenizer.batch_decode(*args, **({"skip_special_tokens": True} | kwargs))
        return texts

    def decode(self, *args: Any, **kwargs: Any) -> str:
        """The text of tokens int [L]; special symbols are left out."""
        text: str = self.tokenizer.decode(*args, **({"skip_special_tokens": True} | kwargs))
        return text

    @property
    def model_input_names(self) -> list[str]:
        """Names of the model's inputs."""
        return [*self.feature_extractor.model_input_names, "labels"]
