"""AVHubert: layers, padding, missing streams, fusion, initialisation, messages of errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from avhubert.config.schema import ModelConfig
from avhubert.errors import ConfigError, DataError
from avhubert.model.encoder import AVHubert, EncoderLayer, PositionConvolution

pytestmark = pytest.mark.quick

LENGTHS = (20, 13, 16)


@pytest.mark.parametrize("layer", [None, 0, 1, 3])
@pytest.mark.parametrize("modality", ["av", "a", "v"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_features_of_an_utterance_are_equal_alone_and_in_a_batch(small, batch, layer, modality, norm_first):
    model = small(layer_norm_first=norm_first).eval()
    audio, video, padding = batch
    audio, video = audio if "a" in modality else None, video if "v" in modality else None
    together = model.extract_features(audio, video, padding, layer)
    for row, length in enumerate(LENGTHS):
        alone = model.extract_features(
            None if audio is None else audio[row : row + 1, :, :length],
            None if video is None else video[row : row + 1, :, :length],
            layer=layer,
        )
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=0)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3), extra=st.integers(0, 6), seed=st.integers(0, 99))
def test_padding_has_no_effect(lengths, extra, seed):
    torch.manual_seed(seed)
    config = ModelConfig(visual_width=2, visual_blocks=[1, 1], encoder_layers=1, encoder_embed_dim=16)
    model = AVHubert(
        dataclasses.replace(config, encoder_attention_heads=2, encoder_ffn_embed_dim=8, conv_pos=5, conv_pos_groups=2)
    )
    frames = max(lengths) + extra
    padding = torch.arange(frames) >= torch.tensor(lengths)[:, None]
    audio, video = torch.randn(len(lengths), 104, frames), torch.randn(len(lengths), 1, frames, 88, 88)
    together = model.extract_features(audio, video, padding)
    for row, length in enumerate(lengths):
        alone = model.extract_features(audio[row : row + 1, :, :length], video[row : row + 1, :, :length])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=0)


def test_missing_stream_of_an_utterance_equals_a_call_without_the_stream(small, batch):
    model = small().eval()
    audio, video, padding = batch
    has_audio, has_video = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    with torch.no_grad():
        mixed = model(audio, video, padding, has_audio, has_video)
    torch.testing.assert_close(mixed[0], model.extract_features(audio, video, padding)[0])
    torch.testing.assert_close(mixed[1], model.extract_features(None, video, padding)[1])
    torch.testing.assert_close(mixed[2], model.extract_features(audio, None, padding)[2])


def test_missing_video_does_not_update_batch_norm_statistics(small, batch):
    model = small().train()
    before = model.visual.stem_norm.running_mean.clone()
    no_video = torch.zeros(3, dtype=torch.bool)
    model(*batch, has_video=no_video)
    torch.testing.assert_close(model.visual.stem_norm.running_mean, before, atol=0, rtol=0)


def test_silence_differs_from_missing_audio(small, batch):
    model = small().eval()
    audio, video, padding = batch
    silent = model.extract_features(torch.zeros_like(audio), video, padding)
    assert (silent - model.extract_features(None, video, padding)).abs().max() > 1e-3


def test_last_layer_is_the_output_before_the_final_norm(small, batch):
    model = small().eval()
    last = model.extract_features(*batch, layer=3)
    with torch.no_grad():
        torch.testing.assert_close(model.encoder.norm(last), model.extract_features(*batch))
    post = small(layer_norm_first=False).eval()
    torch.testing.assert_close(post.extract_features(*batch, layer=3), post.extract_features(*batch), atol=0, rtol=0)


@pytest.mark.parametrize("norm_first", [True, False])
def test_layer_equals_pytorchs(small, norm_first):
    config = small(layer_norm_first=norm_first).config
    layer = EncoderLayer(config).eval()
    theirs = nn.TransformerEncoderLayer(32, 4, 48, 0.0, "gelu", batch_first=True, norm_first=norm_first).eval()
    attention = layer.attention
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn_like(p))
        theirs.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        pairs = [
            (theirs.self_attn.out_proj, attention.out_proj),
            (theirs.linear1, layer.fc1),
            (theirs.linear2, layer.fc2),
            (theirs.norm1, layer.attention_norm),
            (theirs.norm2, layer.ffn_norm),
        ]
        for target, source in pairs:
            target.load_state_dict(source.state_dict())
        x = torch.randn(2, 7, 32)
        padding = torch.arange(7) >= torch.tensor([7, 4])[:, None]
        ours = layer(x, ~padding[:, None, None])
        torch.testing.assert_close(
            ours[~padding], theirs(x, src_key_padding_mask=padding)[~padding], atol=1e-5, rtol=1e-5
        )


def test_post_norm_follows_the_position_convolution(small, batch):
    model = small(layer_norm_first=False, encoder_layers=1).eval()
    fused = model.extract_features(*batch[:2], layer=0)
    with torch.no_grad():
        x = model.encoder.norm(fused + model.encoder.position(fused))
        torch.testing.assert_close(model.encoder.layers[0](x, None), model.extract_features(*batch[:2]))


@torch.no_grad()
def test_position_convolution_equals_pytorchs_weight_norm():
    ours = PositionConvolution(32, 16, 4)
    theirs = nn.Conv1d(32, 32, 16, padding=8, groups=4)
    theirs = nn.utils.parametrizations.weight_norm(theirs, dim=2)
    theirs.parametrizations.weight.original0.copy_(ours.gain.uniform_(0.5, 2))
    theirs.parametrizations.weight.original1.copy_(ours.direction)
    theirs.bias.copy_(ours.bias.normal_())
    x = torch.randn(2, 9, 32)
    expected = nn.functional.gelu(theirs(x.transpose(1, 2))[..., :-1]).transpose(1, 2)
    torch.testing.assert_close(ours(x), expected)


def test_add_fusion_sums_the_streams(small, batch):
    model = small(modality_fuse="add").eval()
    audio, video, padding = batch
    with torch.no_grad():
        both = model.front_ends(audio, video, padding)
        torch.testing.assert_close(
            both, model.front_ends(audio, None, padding) + model.front_ends(None, video, padding)
        )
        torch.testing.assert_close(model.fuse(both), model.fusion_norm(both))
    assert model.fusion_projection is None
    assert both.shape == (3, 20, 32)


def test_extract_features_accepts_numpy_and_keeps_the_mode(small, batch):
    model = small().train()
    out = model.extract_features(*(tensor.numpy() for tensor in batch))
    assert model.training
    assert not out.requires_grad
    torch.testing.assert_close(out, model.extract_features(*batch), atol=0, rtol=0)


def test_invalid_input_is_an_error(small, batch):
    model = small()
    audio, video, padding = batch
    with pytest.raises(ConfigError, match="layer 4 does not exist: this model has layers 0 to 3"):
        model.extract_features(audio, video, layer=4)
    with pytest.raises(ConfigError, match="layer -1"):
        model.extract_features(audio, video, layer=-1)
    with pytest.raises(DataError, match=r"audio must have the shape \[batch, 104, frames\], not \[3, 20, 104\]"):
        model.extract_features(audio.transpose(1, 2))
    with pytest.raises(DataError, match=r"video must have the shape .*not \[3, 20, 88, 88\]"):
        model.extract_features(video=video[:, 0])
    with pytest.raises(DataError, match=r"differ in \[batch, frames\]: \(3, 19\), \(3, 20\)"):
        model.extract_features(audio[..., 1:], video)
    with pytest.raises(DataError, match=r"differ in \[batch, frames\]: \(3, 20\), \(3, 19\)"):
        model.extract_features(audio, padding_mask=torch.zeros(3, 19, dtype=torch.bool))
    with pytest.raises(DataError, match=r"frames of 88×88 pixels, not \[3, 1, 20, 96, 96\]"):
        model.extract_features(video=torch.zeros(3, 1, 20, 96, 96))
    with pytest.raises(DataError, match=r"the batch is empty: \[batch, frames\] is \[3, 0\]"):
        model.extract_features(audio[..., :0])
    with pytest.raises(ConfigError, match="layer True does not exist"):
        model.extract_features(audio, layer=True)
    with pytest.raises(DataError, match="neither audio nor video"):
        model.extract_features(padding_mask=padding)
    with pytest.raises(ConfigError, match=r"must be a multiple of model\.encoder_attention_heads=5"):
        small(encoder_attention_heads=5)
    with pytest.raises(ConfigError, match="visual_blocks"):
        small(visual_blocks=[])


def test_layerdrop_skips_layers_in_training_only(small, batch):
    model = small(encoder_layerdrop=1.0, dropout=0, attention_dropout=0, dropout_input=0)
    model.encoder.layers.train()
    features = model.train().fuse(model.front_ends(*batch[:2]))
    x = features + model.encoder.position(features)
    torch.testing.assert_close(model.encoder(features, layer=3), x)
    assert (model.eval().encoder(features, layer=3) - x).abs().max() > 1e-3


def test_gradient_scale_of_the_front_ends(small, batch):
    gradients = {}
    for scale in (0.0, 0.1, 1.0):
        model = small(feature_grad_mult=scale, dropout=0, attention_dropout=0, dropout_input=0, encoder_layerdrop=0)
        model(*batch[:2]).square().sum().backward()
        gradients[scale] = [
            model.audio.weight.grad,
            model.visual.stem_conv.weight.grad,
            model.encoder.position.bias.grad,
        ]
    assert gradients[0.0][:2] == [None, None]
    for scaled, unscaled in zip(gradients[0.1][:2], gradients[1.0][:2], strict=True):
        torch.testing.assert_close(scaled, unscaled * 0.1, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(gradients[0.0][2], gradients[1.0][2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "millions"),
    [
        ({}, 103),
        (
            {
                "encoder_layers": 24,
                "encoder_embed_dim": 1024,
                "encoder_ffn_embed_dim": 4096,
                "encoder_attention_heads": 16,
            },
            325,
        ),
    ],
)
def test_parameter_counts(sizes, millions):
    with torch.device("meta"):
        model = AVHubert(dataclasses.replace(ModelConfig(num_classes=[2004]), **sizes))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=1)


def test_initialisation():
    torch.manual_seed(0)
    model = AVHubert(ModelConfig(encoder_layers=1, num_classes=[104], masking_type="feature"))
    layer = model.encoder.layers[0]
    for linear in (layer.fc1, layer.fc2, layer.attention.q_proj, layer.attention.out_proj):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not linear.bias.any()
    assert model.encoder.position.direction.std().item() == pytest.approx(np.sqrt(4 / (128 * 768)), rel=0.02)
    torch.testing.assert_close(model.encoder.position.weight(), model.encoder.position.direction)
    for linear, inputs in ((model.audio, 104), (model.fusion_projection, 1536), (model.head.projection, 768)):
        assert linear.weight.abs().max().item() == pytest.approx(inputs**-0.5, rel=0.01)
        assert linear.bias.any()
    for uniform in (model.mask_embedding, model.head.class_embeddings):
        assert 0 <= uniform.min() < 0.01
        assert 0.99 < uniform.max() < 1
    assert model.visual.stem_activation.weight.unique().tolist() == [0.25]


def test_mask_embedding_has_the_width_of_the_masking_type(small):
    assert small(masking_type="input").mask_embedding.shape == (104,)
    assert small(masking_type="feature").mask_embedding.shape == (32,)
    assert small(num_classes=[]).mask_embedding is None
