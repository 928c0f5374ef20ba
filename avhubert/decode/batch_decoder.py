"""A recognizer on its device, ready to decode batches: encode, then beam search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from avhubert.config.schema import DecodeConfig
from avhubert.config.validate import from_dict
from avhubert.decode.beam_search import Hypothesis, beam_search, check_settings
from avhubert.decode.lm.load import load_language_model
from avhubert.devices import AUTO, resolve
from avhubert.model.inputs import ModelInputs
from avhubert.model.kernels import reuse_memory
from avhubert.model.recognizer import Recognizer

FRAMES_PER_BATCH = 600  # video frames of a batch of clips, padding included


class BatchDecoder:
    """A recognizer on its device, the settings of the beam search and the language model.

    Attributes:
        recognizer: the model.
        compute: its device and precision.
        settings: the recognizer's decoding settings, with the given ones in their place.
        lm: the language model that the settings name; None without one.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        device: str | torch.device = AUTO,
        precision: str = AUTO,
        decode: Mapping[str, Any] | None = None,
    ) -> None:
        """Move the recognizer to the device and load the language model.

        Args:
            recognizer: the model; it stays on the device.
            device: see `devices.resolve`.
            precision: see `devices.resolve`.
            decode: settings by the names of `DecodeConfig`, in place of the recognizer's.

        Raises:
            ConfigError: the device, the precision or a setting is unknown or cannot be used with this
                recognizer.
        """
        self.compute = resolve(device, precision)
        self.recognizer = recognizer.to(self.compute.device)
        if self.compute.device.type == "cpu":
            reuse_memory()
        settings = recognizer.decode_settings
        self.settings: DecodeConfig = (
            from_dict(DecodeConfig, asdict(settings) | dict(decode), "decode") if decode else settings
        )
        check_settings(self.settings, recognizer)
        use_lm = self.settings.lm is not None and self.settings.lm_weight > 0
        self.lm = load_language_model(str(self.settings.lm), recognizer.tokenizer) if use_lm else None

    @torch.inference_mode()
    def encode(self, inputs: ModelInputs) -> Tensor:
        """Encoded frames [B, T, D] of inputs that are on the device."""
        with self.compute.autocast():
            return self.recognizer.encode(inputs)

    @torch.inference_mode()
    def search(self, encoded: Tensor, padding_mask: Tensor | None) -> list[list[Hypothesis]]:
        """The best hypotheses of each utterance, best first; see `beam_search`."""
        with self.compute.autocast():
            return beam_search(self.recognizer, encoded, padding_mask, self.settings, self.lm)

    def text(self, hypothesis: Hypothesis) -> str:
        """The text of a hypothesis."""
        return self.recognizer.require_tokenizer("used").decode(hypothesis.tokens)
