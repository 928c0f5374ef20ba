"""The conditions of an evaluation: modality, noise and video corruption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from avhubert.constants import MODALITIES
from avhubert.data.manifest import Clip
from avhubert.errors import ConfigError, DataError
from avhubert.model.recognizer import Recognizer


def check_modality(recognizer: Recognizer, modality: str) -> None:
    """ConfigError if the recognizer was never shown what it is asked to read."""
    trained = recognizer.metadata.supported_modalities()
    if modality not in trained:
        raise ConfigError(
            f"this model was fine-tuned for {', '.join(trained)}, not for '{modality}'; choose one of those or "
            "fine-tune with data.draw_* above 0 for it"
        )


def conditions(
    modalities: Sequence[str], noises: Sequence[str | None], snrs: Sequence[int | None], faults: Sequence[str]
) -> list[Condition]:
    """Every modality clean and in every noise (None: the only one) at every SNR in dB (None: clean), and its picture
    with every fault; what a modality does not see or hear is not repeated for it."""
    found = []
    for modality in modalities:
        hears, sees = ("audio" in MODALITIES[modality]), ("video" in MODALITIES[modality])
        if None in snrs or not hears:
            found.append(Condition(modality))
        for noise in noises:
            found += [Condition(modality, noise, snr) for snr in snrs if snr is not None and hears]
        found += [Condition(modality, fault=fault) for fault in faults if sees]
    return found


def check_streams(clips: Sequence[Clip], modality: str) -> None:
    without = [clip.id for clip in clips if not clip.streams(MODALITIES[modality])]
    if without:
        raise DataError(
            f"{len(without)} of {len(clips)} clips have nothing of modality '{modality}', among them '{without[0]}'; "
            "choose another modality, or take them out of the manifest"
        )


@dataclass(frozen=True)
class Condition:
    """What the recognizer was shown: a modality, a noise at an SNR (None: clean), a fault of the picture."""

    modality: str
    noise: str | None = None
    snr: int | None = None
    fault: str | None = None

    def __str__(self) -> str:
        if self.snr is None:
            return f"{self.modality}, {self.fault or 'clean'}"
        noise = f" {self.noise}" if self.noise else ""
        return f"{self.modality}, {self.snr} dB{noise}" + (f", {self.fault}" if self.fault else "")

    @property
    def file_name(self) -> str:
        """The condition as part of a file's name."""
        return str(self).replace(", ", "-").replace(" ", "").replace(":", "")
