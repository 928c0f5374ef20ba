"""The encoder and the recognizer as models of the library transformers.

Shapes: B utterances, T video frames at 25 Hz, D = `encoder_embed_dim`, L tokens, V symbols, H heads. Ids of symbols are
those of the model's own tokenizer.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
import transformers.initialization as init
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils.generic import can_return_tuple

from avhubert.checkpoints.avista.config import DECODING
from avhubert.errors import DataError
from avhubert.hf.configuration import AVHubertConfig
from avhubert.hf.decoding import DecoderRecord, decode
from avhubert.model.decoder import AttentionDecoder
from avhubert.model.encoder import AVHubert, Internals, PositionConvolution
from avhubert.model.inputs import ModelInputs

IGNORED = -100  # label of a position that does not count in the loss
PRELU_SLOPE = 0.25  # torch's
_LENGTH_KEYS = ("max_new_tokens", "max_length")


class AVHubertPreTrainedModel(PreTrainedModel):
    """What both models have in common."""

    config_class = AVHubertConfig
    base_model_prefix = "avhubert"
    main_input_name = "input_values"
    input_modalities = ("audio", "video")
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    _no_split_modules = ["EncoderLayer", "DecoderLayer"]  # noqa: RUF012
    # a constant table, which our decoder computes
    _keys_to_ignore_on_load_unexpected = [r"decoder\.pos_embed\.position_embeddings"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.PReLU):
            init.constant_(module.weight, PRELU_SLOPE)
        elif isinstance(module, PositionConvolution):
            kernel = module.direction.shape[2]
            init.normal_(module.direction, mean=0.0, std=(4 / (kernel * len(module.direction))) ** 0.5)
            init.copy_(module.gain, module.direction.norm(dim=(0, 1), keepdim=True))
            init.zeros_(module.bias)


class AVHubertModel(AVHubertPreTrainedModel):
    """The encoder: audio, video or both become features at 25 Hz.

    Raises:
        CheckpointError: the configuration asks for what our model does not have.
    """

    def __init__(self, config: AVHubertConfig) -> None:
        super().__init__(config)
        self.model = AVHubert(config.encoder_config())
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        padding_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        """Encode a batch.

        Args:
            input_values: float [B, T, 104], audio features; None: no audio.
            attention_mask: [B, T], 1 for real frames, 0 for padding at the end; None: no padding.
            pixel_values: float [B, T, 1, 88, 88], normalised mouth clips; None: no video.
            padding_mask: [B, T], 1 for padding: the name that AVista's own processor uses for the opposite mask.
            output_attentions: whether to return the attention weights of each layer, [B, H, T, T], which is slower.
            output_hidden_states: whether to return the input of each layer and the output of the encoder.

        Raises:
            DataError: shapes do not match, neither audio nor video is given, or padding is not at the end.
        """
        inputs = model_inputs(input_values, pixel_values, attention_mask, padding_mask)
        record = Internals(attentions=[] if _wanted(output_attentions, self.config.output_attentions) else None)
        x = self.model.fuse(self.model.front_ends(inputs))
        x = self.model.encoder(x, inputs.mask, internals=record)
        states = tuple(record.states) if _wanted(output_hidden_states, self.config.output_hidden_states) else None
        attentions = None if record.attentions is None else tuple(record.attentions)
        return BaseModelOutput(last_hidden_state=x, hidden_states=states, attentions=attentions)


class AVHubertForConditionalGeneration(AVHubertPreTrainedModel, GenerationMixin):
    """The recognizer: the encoder and a decoder that writes text.

    Raises:
        CheckpointError: the configuration asks for what our model does not have.
    """

    _tied_weights_keys = {"decoder.output.weight": "decoder.embedding.weight"}  # noqa: RUF012

    def __init__(self, config: AVHubertConfig) -> None:
        config = copy.deepcopy(config)
        config.is_encoder_decoder = True
        if config.decoder_start_token_id is None:
            config.decoder_start_token_id = config.bos_token_id
        super().__init__(config)
        self.avhubert = AVHubertModel(config)
        self.decoder = AttentionDecoder(config.encoder_embed_dim, config.decoder_config())
        self.decoder.embedding.padding_idx = config.pad_token_id
        self.post_init()

    def get_encoder(self, modality: str | None = None) -> AVHubertModel:
        """The encoder."""
        return self.avhubert

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of the decoder's tokens."""
        return self.decoder.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the embedding of the decoder's tokens."""
        self.decoder.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        """The output embedding; its weight may be that of the input embedding."""
        assert self.decoder.output is not None
        return self.decoder.output

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the output embedding."""
        self.decoder.output = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        padding_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Logits of the token after each token; the inputs of the encoder are those of `AVHubertModel.forward`.

        Args:
            input_values: audio.
            attention_mask: real frames.
            decoder_input_ids: int [B, L], each row starts with the start symbol; None: made of the labels.
            pixel_values: video.
            padding_mask: padding.
            decoder_attention_mask: [B, L], 0 for tokens that are not attended to; None: all are.
            encoder_outputs: result of the encoder; None: it is computed.
            past_key_values: cache of an `EncoderDecoderCache`; None: none.
            labels: int [B, L], the tokens to predict; -100 does not count in the loss.
            use_cache: whether to return the cache.
            output_attentions: whether to return attention weights.
            output_hidden_states: whether to return the states of all layers.

        Raises:
            DataError: as in `AVHubertModel.forward`; or neither tokens nor labels are given.
        """
        attentions = _wanted(output_attentions, self.config.output_attentions)
        states = _wanted(output_hidden_states, self.config.output_hidden_states)
        mask = _attention_mask(attention_mask, padding_mask)
        if encoder_outputs is None:
            encoder_outputs = self.avhubert(
                input_values, mask, pixel_values, output_attentions=attentions, output_hidden_states=states
            )
        elif isinstance(encoder_outputs, tuple):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        encoded = encoder_outputs.last_hidden_state
        if decoder_input_ids is None:
            decoder_input_ids = self._shifted(labels)
        record = DecoderRecord.empty(states, attentions)
        frames = None if mask is None else (mask != 0)[:, None, None, :]
        cache = past_key_values if past_key_values is not None and use_cache is not False else None
        logits = decode(self.decoder, decoder_input_ids, encoded, frames, decoder_attention_mask, cache, record)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=cache,
            decoder_hidden_states=record.states_or_none(),
            decoder_attentions=record.attentions_or_none(),
            cross_attentions=record.cross_attentions_or_none(),
            encoder_last_hidden_state=encoded,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )

    def _shifted(self, labels: Tensor | None) -> Tensor:
        """The decoder's input for labels int [B, L]: the start symbol, then all labels but the last."""
        if labels is None:
            raise DataError("neither decoder_input_ids nor labels were given: give one of them")
        shifted = F.pad(labels[:, :-1], (1, 0), value=self.config.decoder_start_token_id)
        return shifted.masked_fill(shifted == IGNORED, self.config.pad_token_id)

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **settings: Any) -> Any:
        """Write texts, with the search of transformers.

        Where neither the call nor `generation_config` says otherwise, it has the beams and the longest text that
        AVista's cards recommend. It finds the hypotheses that `avhubert.load` finds.

        Args:
            inputs: `input_values`.
            settings: `pixel_values`, `attention_mask` or `padding_mask`, and the settings of
                `GenerationMixin.generate`.

        Raises:
            DataError: as in `forward`.
        """
        if inputs is not None:
            settings["input_values"] = inputs
        settings["attention_mask"] = _attention_mask(
            settings.pop("attention_mask", None), settings.pop("padding_mask", None)
        )
        given = settings.get("generation_config") or self.generation_config
        chosen = given.to_diff_dict() | settings
        if not any(chosen.get(key) is not None for key in _LENGTH_KEYS):
            longest = min(DECODING.max_len_b + 1, self.config.max_target_positions - 1)
            settings["max_new_tokens"] = longest
        if chosen.get("num_beams") is None and not chosen.get("do_sample"):
            settings["num_beams"] = DECODING.beam
        if settings.get("encoder_outputs") is None:
            # here, because the search finds the size of the batch in `input_values`, which may be missing
            streams = {name: settings.pop(name, None) for name in ("input_values", "pixel_values")}
            wanted = {
                name: settings[name] for name in ("output_attentions", "output_hidden_states") if name in settings
            }
            settings["encoder_outputs"] = self.avhubert(
                **streams, attention_mask=settings["attention_mask"], **wanted, return_dict=True
            )
        return super().generate(**settings)


def model_inputs(
    input_values: Tensor | None,
    pixel_values: Tensor | None,
    attention_mask: Tensor | None = None,
    padding_mask: Tensor | None = None,
) -> ModelInputs:
    """Our inputs of theirs; see `AVHubertModel.forward`.

    Raises:
        DataError: shapes do not match, neither audio nor video is given, or padding is not at the end.
    """
    for name, tensor, dimensions in (("input_values", input_values, 3), ("pixel_values", pixel_values, 5)):
        if tensor is not None and tensor.dim() != dimensions:
            raise DataError(f"{name} must have {dimensions} dimensions, not the shape {list(tensor.shape)}")
    mask = _attention_mask(attention_mask, padding_mask)
    padding = None if mask is None else mask == 0
    if padding is not None and bool((padding[:, :-1] & ~padding[:, 1:]).any()):
        raise DataError("attention_mask has padding before a real frame: padding must be at the end of each row")
    audio = None if input_values is None else input_values.transpose(1, 2)
    video = None if pixel_values is None else pixel_values.transpose(1, 2)
    return ModelInputs(audio, video, padding)


def _attention_mask(attention_mask: Tensor | None, padding_mask: Tensor | None) -> Tensor | None:
    """The mask of real frames, of either mask."""
    if padding_mask is None:
        return attention_mask
    if attention_mask is not None:
        raise DataError("attention_mask and padding_mask say the same: give one of them")
    return (padding_mask == 0).long()


def _wanted(given: bool | None, default: bool | None) -> bool:
    return bool(default if given is None else given)
