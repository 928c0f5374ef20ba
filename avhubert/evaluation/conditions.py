"""The conditions of an evaluation: modality, noise and video corruption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from avhubert.constants import MODALITIES
from avhubert.data.corruption import parse_corruption
from avhubert.errors import ConfigError
from avhubert.model.recognizer import Recognizer


@dataclass(frozen=True)
class Condition:
    """What the recognizer gets: a modality, noise at an SNR in dB (None: clean), a corruption of the video."""

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


def conditions(
    modalities: Sequence[str], noises: Sequence[str | None], snrs: Sequence[int | None], faults: Sequence[str]
) -> list[Condition]:
    """All conditions of an evaluation.

    Every modality is evaluated clean, with every noise at every SNR, and with every video corruption. A condition that
    does not affect a modality's streams is not repeated for it.

    Args:
        modalities: av, a or v.
        noises: names of noise lists; None: the only list.
        snrs: in dB; None: clean.
        faults: video corruptions.
    """
    all_conditions = []
    for modality in modalities:
        has_audio, has_video = ("audio" in MODALITIES[modality]), ("video" in MODALITIES[modality])
        if None in snrs or not has_audio:
            all_conditions.append(Condition(modality))
        for noise in noises:
            all_conditions += [Condition(modality, noise, snr) for snr in snrs if snr is not None and has_audio]
        all_conditions += [Condition(modality, fault=fault) for fault in faults if has_video]
    return all_conditions


def check_modality(recognizer: Recognizer, modality: str) -> None:
    """Check that the recognizer was trained for a modality.

    Raises:
        ConfigError: it was not.
    """
    trained = recognizer.metadata.supported_modalities()
    if modality not in trained:
        raise ConfigError(
            f"this model was fine-tuned for {', '.join(trained)}, not for '{modality}'; choose one of those or "
            "fine-tune with data.draw_* above 0 for it"
        )


def check_conditions(modalities: Sequence[str], snrs: Sequence[int | None], faults: Sequence[str]) -> None:
    """Check that noise and video corruption affect at least one of the modalities.

    Raises:
        ConfigError: they do not, or a corruption is unknown.
    """
    if any(snr is not None for snr in snrs) and not any("audio" in MODALITIES[name] for name in modalities):
        raise ConfigError("noise is mixed into the audio, which modality 'v' does not use; add 'a' or 'av'")
    if faults and not any("video" in MODALITIES[name] for name in modalities):
        raise ConfigError("faults corrupt the video, which modality 'a' does not use; add 'v' or 'av'")
    for fault in faults:
        parse_corruption(fault)
