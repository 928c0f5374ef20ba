"""The weights of a model of `avhubert` under their published names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from avhubert.checkpoints.fairseq.names import module_names, published_name
from baseline.model import HubertModel, Seq2Seq, Sizes

if TYPE_CHECKING:
    from avhubert.config.schema import DecoderConfig, ModelConfig
    from avhubert.model.encoder import AVHubert
    from avhubert.model.recognizer import Recognizer


def sizes_of(model: ModelConfig, decoder: DecoderConfig | None = None) -> Sizes:
    """The sizes in a configuration of `avhubert`."""
    more = {}
    if decoder is not None:
        more = {
            "decoder_layers": decoder.layers, "decoder_heads": decoder.attention_heads,
            "decoder_ffn": decoder.ffn_embed_dim, "symbols": decoder.vocab_size,
        }  # fmt: skip
    return Sizes(
        model.encoder_embed_dim, model.encoder_layers, model.encoder_attention_heads, model.encoder_ffn_embed_dim,
        model.visual_width, tuple(model.visual_blocks), model.conv_pos, model.conv_pos_groups,
        sum(model.num_classes), model.final_dim, **more,
    )  # fmt: skip


def published_state(ours: nn.Module, model: ModelConfig, decoder: DecoderConfig | None = None) -> dict[str, Tensor]:
    """The tensors by their published names; those that published models do not have are left out."""
    table = module_names(model, decoder)
    named = ((published_name(name, table), tensor) for name, tensor in ours.state_dict().items())
    return {name: tensor.detach().clone().contiguous() for name, tensor in named if name is not None}


def baseline_of(ours: AVHubert) -> HubertModel:
    """The baseline with the weights of a pre-trained model."""
    model = HubertModel(sizes_of(ours.config))
    model.load_state_dict(published_state(ours, ours.config))
    return model.train(ours.training)


def baseline_recognizer(ours: Recognizer) -> Seq2Seq:
    """The baseline with the weights of a recognizer; a CTC head is left out."""
    config = ours.encoder.config
    model = Seq2Seq(sizes_of(config, ours.decoder_config))
    model.load_state_dict(published_state(ours, config, ours.decoder_config))
    return model.train(ours.training)
