"""The task `audio-visual-speech-recognition` of transformers: a video or audio file becomes a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Pipeline

from avhubert.constants import MODALITIES
from avhubert.data.video import probe
from avhubert.errors import ConfigError, one_of

TASK = "audio-visual-speech-recognition"


class AudioVisualSpeechRecognitionPipeline(Pipeline):
    """Reads the streams of a file in one piece; files of more than a minute are for `avhubert.transcribe`."""

    _load_processor = True
    _load_feature_extractor = False
    _load_image_processor = False
    _load_tokenizer = True
    _pipeline_calls_generate = False

    def _sanitize_parameters(self, modality: str | None = None, **settings: Any) -> Any:
        """Where a setting of the call belongs: `modality` to reading, the others to `generate`."""
        if modality is not None and modality not in MODALITIES:
            raise ConfigError(one_of("modality", modality, MODALITIES))
        return ({} if modality is None else {"modality": modality}), settings, {}

    def preprocess(self, file: str | Path, modality: str | None = None) -> Any:
        """The inputs of a file; `modality` av, a or v; None: the streams that the file has."""
        media = probe(file)
        streams = MODALITIES[modality] if modality else ("audio",) * media.has_audio + ("video",) * media.has_video
        return self.processor(audio=file if "audio" in streams else None, videos=file if "video" in streams else None)

    def _forward(self, inputs: Any, **settings: Any) -> Any:
        return {"tokens": self.model.generate(**inputs, **settings)}

    def postprocess(self, outputs: Any) -> dict[str, str]:
        """The text of the best hypothesis."""
        return {"text": self.processor.decode(outputs["tokens"][0])}
