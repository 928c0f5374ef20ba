"""Registers the classes with the Auto classes of transformers."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY

from avhubert.checkpoints.kinds import AVISTA_TYPE
from avhubert.hf.configuration import AVHubertConfig
from avhubert.hf.extraction import AVHubertFeatureExtractor
from avhubert.hf.modeling import AVHubertForConditionalGeneration, AVHubertModel
from avhubert.hf.pipeline import TASK, AudioVisualSpeechRecognitionPipeline
from avhubert.hf.processing import AVHubertProcessor
from avhubert.hf.renaming import renamings


def register() -> None:
    """Register everything; a second call changes nothing."""
    AutoConfig.register(AVISTA_TYPE, AVHubertConfig, exist_ok=True)
    AutoModel.register(AVHubertConfig, AVHubertModel, exist_ok=True)
    AutoModelForSpeechSeq2Seq.register(AVHubertConfig, AVHubertForConditionalGeneration, exist_ok=True)
    AutoTokenizer.register(AVHubertConfig, fast_tokenizer_class=PreTrainedTokenizerFast, exist_ok=True)
    AutoFeatureExtractor.register(AVHubertConfig, AVHubertFeatureExtractor, exist_ok=True)
    AutoProcessor.register(AVHubertConfig, AVHubertProcessor, exist_ok=True)
    # the speech recognition pipeline looks here whether a model is a sequence-to-sequence model
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES[AVISTA_TYPE] = AVHubertForConditionalGeneration.__name__
    register_checkpoint_conversion_mapping(AVISTA_TYPE, renamings(), overwrite=True)
    PIPELINE_REGISTRY.register_pipeline(
        TASK,
        pipeline_class=AudioVisualSpeechRecognitionPipeline,
        pt_model=(AutoModelForSpeechSeq2Seq,),
        type="multimodal",
    )
