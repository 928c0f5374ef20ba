"""Front ends and encoder against the published system's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

TOLERANCE = 1e-4


def close(ours, theirs, atol=TOLERANCE):
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def inputs(golden):
    return np.load(golden("inputs.npz"))


@pytest.fixture(scope="module")
def expected(golden):
    return np.load(golden("encoder_lnfirst.npz"))


@pytest.fixture(scope="module")
def model(published):
    return published().eval()


@pytest.mark.parametrize("modality", ["av", "a", "v"])
@pytest.mark.parametrize(
    ("key", "padded", "layer"),
    [("x", True, None), ("x_nopadmask", False, None), ("layer1", True, 1), ("layer2", True, 2)],
)
def test_encoder_of_every_modality_and_layer(model, inputs, expected, modality, key, padded, layer):
    out = model.extract_features(
        audio=inputs["audio"] if "a" in modality else None,
        video=inputs["video"] if "v" in modality else None,
        padding_mask=inputs["padding_mask"] if padded else None,
        layer=layer,
    )
    close(out, expected[f"{modality}_{key}"])


@pytest.mark.parametrize("suffix", ["", "_nopadmask"])
def test_layer_0_is_the_fused_features(model, inputs, expected, suffix):
    mask = None if suffix else inputs["padding_mask"]
    out = model.extract_features(inputs["audio"], inputs["video"], mask, layer=0)
    close(out, expected[f"extract_features_ret_conv{suffix}"])


@torch.no_grad()
def test_stages(model, inputs, expected):
    audio, video = torch.tensor(inputs["audio"]), torch.tensor(inputs["video"])
    features = model.front_ends(audio, video, torch.tensor(inputs["padding_mask"]))
    close(features[..., :64].transpose(1, 2), expected["stage_audio_feat"])
    close(features[..., 64:].transpose(1, 2), expected["stage_video_feat"])
    close(model.fusion_norm(features), expected["stage_concat_layernorm"])
    fused = model.fuse(features)
    close(fused, expected["stage_post_extract_proj"])
    silent = fused.masked_fill(torch.tensor(inputs["padding_mask"])[..., None], 0)
    close(model.encoder.position(silent), expected["stage_pos_conv"])
    close(model.encoder.position.weight(), expected["pos_conv_effective_weight"], 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["prelu", "relu"])
def test_visual_front_end(published, inputs, golden, kind):
    numbers = np.load(golden("resencoder.npz"))
    visual = published(visual_activation=kind).visual.eval()
    close(visual.encode(torch.tensor(numbers["input"])).transpose(1, 2), numbers[f"{kind}_output"])
    if kind == "prelu":
        stem = visual.stem(torch.tensor(numbers["input"]))
        close(stem[2], numbers["prelu_frontend3D_frame2"])
        short = visual.encode(torch.tensor(inputs["video"][:, :, :3]))
        close(short.transpose(1, 2), numbers["prelu_output_B2T3"])


def test_visual_front_end_in_training_moves_its_batch_norms(published, golden):
    numbers = np.load(golden("resencoder.npz"))
    visual = published().visual.train()
    out = visual.encode(torch.tensor(numbers["input"]))
    close(out.detach().transpose(1, 2), numbers["prelu_trainmode_output"])
    close(visual.stem_norm.running_mean, numbers["trainmode_running_mean_after_frontend3D.1"], 1e-6)
    close(visual.stem_norm.running_var, numbers["trainmode_running_var_after_frontend3D.1"], 1e-6)
    last = visual.stages[3][1].norm2
    close(last.running_var, numbers["trainmode_running_var_after_trunk.layer4.1.bn2"], 1e-6)


def test_visual_initialisation(published, golden):
    from avhubert.model.frontends import VisualFrontEnd

    numbers = np.load(golden("resencoder.npz"))
    torch.manual_seed(0)
    visual = VisualFrontEnd(64)
    for ours, theirs in (
        (visual.stem_conv, "init_std_frontend_conv"),
        (visual.stages[0][0].conv1, "init_std_layer1.0.conv1"),
        (visual.stages[3][0].shortcut_conv, "init_std_layer4.0.downsample.0"),
    ):
        assert ours.weight.std().item() == pytest.approx(float(numbers[theirs]), rel=0.02)
