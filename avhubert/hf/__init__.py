"""Models of this package in the library transformers: `import avhubert.hf` registers them with its Auto classes.

A thin adapter for models in AVista's layout (`model_type: avhubert`). It needs the extra `hf`. No code of a model's
repository is run, so `trust_remote_code` is not needed.

- `configuration`: `config.json`.
- `renaming`: the table between their tensor names and ours.
- `modeling`: the encoder and the recognizer.
- `extraction`: files and arrays become inputs.
- `processing`: inputs and texts.
- `pipeline`: the task `audio-visual-speech-recognition`, from a file to a text.
"""

from __future__ import annotations

from avhubert.hf.requirement import require_transformers

require_transformers()

from avhubert.hf.configuration import AVHubertConfig  # noqa: E402
from avhubert.hf.extraction import AVHubertFeatureExtractor  # noqa: E402
from avhubert.hf.modeling import AVHubertForConditionalGeneration, AVHubertModel  # noqa: E402
from avhubert.hf.pipeline import AudioVisualSpeechRecognitionPipeline  # noqa: E402
from avhubert.hf.processing import AVHubertProcessor  # noqa: E402
from avhubert.hf.registration import register  # noqa: E402

register()

__all__ = [
    "AVHubertConfig",
    "AVHubertFeatureExtractor",
    "AVHubertForConditionalGeneration",
    "AVHubertModel",
    "AVHubertProcessor",
    "AudioVisualSpeechRecognitionPipeline",
]
