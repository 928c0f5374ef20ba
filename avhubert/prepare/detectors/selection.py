"""Selects the face detector: the default one, dlib, or landmark files (the option `--landmarks`).

To add a detector: write a class like `LandmarkModel` in a file of its own, and select it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from avhubert.config.input_preparation import CROPS, MEAN_FACE
from avhubert.errors import ConfigError, one_of
from avhubert.prepare.detectors.blazeface import BlazeFace
from avhubert.prepare.detectors.dlib import Dlib68, dlib68
from avhubert.prepare.detectors.interface import LandmarkModel


@dataclass(frozen=True)
class LandmarkSource:
    """Where the landmarks come from, and which mouth clips are cut with them.

    Attributes:
        kind: 'default' (BlazeFace), 'dlib', or 'stored' (landmark files).
        folder: Folder of dlib's model files or of the landmark files.
        crop: A value of `InputPreparation.crop`.
    """

    kind: str = "default"
    folder: Path = Path()
    crop: str = MEAN_FACE

    @classmethod
    def parse(cls, option: str | Path | None, crop: str = MEAN_FACE) -> LandmarkSource:
        """The values of `--landmarks` (None, 'dlib:FOLDER', or a folder) and `--crop`.

        Raises:
            ConfigError: It is not a folder, the crop is unknown, or these landmarks have no points for it.
        """
        if crop not in CROPS:
            raise ConfigError(one_of("crop", crop, CROPS))
        if option is None:
            return cls(crop=crop)
        if crop != MEAN_FACE:
            raise ConfigError(f"the crop '{crop}' needs the built-in face detector: leave --landmarks out")
        prefix, _, name = str(option).partition(":")
        source = cls("dlib", Path(name)) if prefix == "dlib" else cls("stored", Path(option))
        if not source.folder.is_dir():
            raise ConfigError(f"--landmarks names {source.folder}, which is not a folder")
        return source

    def model(self) -> LandmarkModel | None:
        """The detector of this process; None if the landmarks are stored."""
        if self.kind == "stored":
            return None
        return dlib68(self.folder) if self.kind == "dlib" else default_model()

    def check(self) -> None:
        """Load the detector once: it fails before any worker starts."""
        if self.kind == "default":
            BlazeFace()
        elif self.kind == "dlib":
            Dlib68(self.folder)


@cache
def default_model() -> LandmarkModel:
    """The default detector of this process."""
    return BlazeFace()


class _Thorough:
    """The default detector with both of its networks at every detection."""

    def __init__(self, model: BlazeFace) -> None:
        self.layout, self.detect_every = model.layout, model.detect_every
        self.detect, self.landmarks = model.detect_more, model.landmarks


def thorough_model(model: LandmarkModel) -> LandmarkModel | None:
    """A slower variant of a detector that misses fewer of several faces; None if there is none."""
    return _Thorough(model) if isinstance(model, BlazeFace) else None
