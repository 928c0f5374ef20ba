"""Pre-training forward and backward against the published system's numbers, with its recorded masks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from avhubert.config.schema import ObjectiveConfig
from avhubert.model.masking import BLANK, Masks, replacement
from avhubert.model.masking import spans as runs
from avhubert.model.pretraining import pretrain_loss

EVAL = ["eval", "eval_label100hz", "eval_short_labels37", "eval_B1", "eval_sameotherseq"]
TRAIN = [
    *("train_nodrop", "train_dropaudio", "train_dropvideo"),
    *("train_gradmult0", "train_gradmult1", "train_bothlosses"),
]


@pytest.fixture(scope="module")
def summary(golden):
    return json.loads(golden("pretrain_forward_summary.json").read_text())


@pytest.fixture(scope="module")
def inputs(golden):
    return {name: torch.tensor(array) for name, array in np.load(golden("inputs.npz")).items()}


def masks_of(numbers) -> Masks:
    """Recorded masks over video that is masked already: every frame is its own source."""
    audio, video = torch.tensor(numbers["mask_audio"]), torch.tensor(numbers["mask_video"])
    if len(audio) == 1:
        return Masks(audio, video, torch.tensor(replacement(video.numpy(), "same_seq", np.random.default_rng())))
    return Masks(audio, video, torch.arange(audio.numel()).view(audio.shape))


def loss_of(case, model, summary, inputs, golden):
    """(our loss, the recorded arrays) of a case of the summary."""
    facts = summary[case]
    evaluation = np.load(golden("pretrain_forward_eval.npz"))
    recorded = golden(f"pretrain_forward_{case}.npz") if case not in ("train_gradmult0", "train_bothlosses") else None
    numbers = evaluation if recorded is None else np.load(recorded)
    video = torch.tensor((numbers if "masked_video" in numbers else evaluation)["masked_video"])
    rate = facts["label_rate"]
    labels = inputs[f"target_{rate}hz"][:, :: rate // 25].masked_fill(inputs["padding_mask"], -1)
    batch = [inputs["audio"], video, inputs["padding_mask"], labels]
    if case == "eval_short_labels37":
        batch[3] = labels[:, :37]
    if case == "eval_B1":
        batch[1] = inputs["video"]
        batch = [tensor[:1] for tensor in batch]
    keep = None
    if facts["train"] and facts["modality_dropout"]:
        goes = facts["np_random_random"][1] < facts["audio_dropout"]
        keep = (torch.tensor([not goes] * 2), torch.tensor([goes] * 2))
    weights = facts["criterion"]
    objective = ObjectiveConfig(
        weights["pred_masked_weight"], weights["pred_nomask_weight"], weights["loss_weights"][0]
    )
    audio, video, padding, labels = batch
    loss = pretrain_loss(model, audio, video, padding, None, None, [labels], masks_of(numbers), objective, keep)
    return loss, None if recorded is None else numbers


def check_log(loss, facts):
    log = facts["log"]
    assert loss.sample_size == facts["sample_size"]
    assert loss.loss.item() == pytest.approx(facts["loss"], abs=1e-3)
    for ours, theirs in (("masked", "m_0"), ("unmasked", "u_0")):
        assert loss.metrics[f"loss_{ours}"].item() == pytest.approx(log[f"loss_{theirs}"], abs=1e-3)
        assert loss.metrics[f"correct_{ours}"].item() == log[f"correct_{theirs}"]
        assert loss.metrics[f"count_{ours}"].item() == log[f"count_{theirs}"]
    penalty = 10 * loss.sample_size * loss.metrics["features_pen"].item()
    assert penalty == pytest.approx(log["loss_features_pen"], abs=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("case", EVAL)
def test_losses_in_evaluation(case, published, summary, inputs, golden):
    loss, _ = loss_of(case, published().eval(), summary, inputs, golden)
    check_log(loss, summary[case])


@pytest.mark.parametrize("case", TRAIN)
def test_losses_and_gradients_in_training(case, published, published_name, summary, inputs, golden):
    scale = {"train_gradmult0": 0.0, "train_gradmult1": 1.0}.get(case, 0.1)
    model = published(feature_grad_mult=scale).train()
    loss, numbers = loss_of(case, model, summary, inputs, golden)
    check_log(loss, summary[case])
    loss.loss.backward()

    parameters = dict(model.named_parameters())
    norms = summary[case]["grad_norm"]
    assert {published_name(name) for name in norms} == set(parameters)
    for name, norm in norms.items():
        gradient = parameters[published_name(name)].grad
        assert (gradient is None) == (norm is None), name
        if norm is not None:
            assert gradient.norm().item() == pytest.approx(norm, rel=5e-3, abs=1e-5), name
    if numbers is None:
        return
    for key in numbers:
        if key.startswith("grad:"):
            ours, theirs = parameters[published_name(key[5:])].grad.numpy(), numbers[key]
            np.testing.assert_allclose(ours, theirs, atol=5e-3 * abs(theirs).max() + 1e-7, rtol=0, err_msg=key)
    mean = model.visual.stem_norm.running_mean
    np.testing.assert_allclose(mean, numbers["bn_running_mean_after:frontend3D.1"], atol=1e-6)


@torch.no_grad()
def test_logits_in_evaluation(published, inputs, golden):
    model = published().eval()
    numbers = np.load(golden("pretrain_forward_eval.npz"))
    masks, padding = masks_of(numbers), inputs["padding_mask"]
    audio = masks.replace_audio(inputs["audio"], model.mask_embedding)
    np.testing.assert_allclose(audio, numbers["masked_audio"], atol=1e-6)
    encoded = model(audio, torch.tensor(numbers["masked_video"]), padding)
    masked = masks.union()
    for chosen, key in ((masked, "logit_m"), (~masked & ~padding, "logit_u")):
        np.testing.assert_allclose(model.head(encoded[chosen])[0], numbers[key], atol=1e-3)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_feature_masking(mode, published, published_name, inputs, golden):
    numbers = np.load(golden("pretrain_forward_featmask.npz"))
    facts = json.loads(golden("pretrain_forward_featmask.json").read_text())[mode]
    model = published(masking_type="feature").train(mode == "train")
    model.mask_embedding.data = torch.tensor(numbers["mask_emb"])
    labels = inputs["target_25hz"].masked_fill(inputs["padding_mask"], -1)
    masks = Masks(features=torch.tensor(numbers[f"{mode}_mask"]))
    given = (inputs["audio"], inputs["video"], inputs["padding_mask"], None, None, [labels])
    loss = pretrain_loss(model, *given, masks, ObjectiveConfig())
    check_log(loss, facts)
    if mode == "train":
        loss.loss.backward()
        np.testing.assert_allclose(model.mask_embedding.grad, numbers["train_grad_mask_emb"], atol=1e-4)
        parameters = dict(model.named_parameters())
        for name, norm in facts["grad_norm"].items():
            assert parameters[published_name(name)].grad.norm().item() == pytest.approx(norm, rel=5e-3, abs=1e-5), name


def test_replaced_video_is_what_the_rules_allow(inputs, golden):
    """The published draws are not ours; each replaced run must be one that our rule could have drawn."""
    numbers = np.load(golden("pretrain_forward_eval.npz"))
    theirs, clip = numbers["masked_video"][:, 0], inputs["video"][:, 0].numpy()
    assert runs(numbers["mask_video"]) == list(
        zip(numbers["mask_video_batch"], numbers["mask_video_starts"], numbers["mask_video_ends"], strict=True)
    )
    drawn = [replacement(numbers["mask_video"], "same_seq", np.random.default_rng(seed)) for seed in range(300)]
    for row, start, end in runs(numbers["mask_video"]):
        ours = {tuple(source[row, start:end] - row * clip.shape[1]) for source in drawn}
        assert any(np.array_equal(clip[row][list(source)], theirs[row, start:end]) for source in ours)
    np.testing.assert_array_equal(theirs[~numbers["mask_video"]], clip[~numbers["mask_video"]])


def test_same_other_seq_takes_the_same_frames_of_the_other_clip(inputs, golden):
    numbers = np.load(golden("pretrain_forward_eval_sameotherseq.npz"))
    source = replacement(numbers["mask_video"], "same_other_seq", np.random.default_rng(0))
    video = Masks(
        torch.tensor(numbers["mask_audio"]), torch.tensor(numbers["mask_video"]), torch.tensor(source)
    ).replace_video(inputs["video"])
    np.testing.assert_array_equal(video, numbers["masked_video"])


def test_batch_of_one_is_blanked():
    assert (replacement(np.ones((1, 9), bool), "same_other_seq", np.random.default_rng(0)) == BLANK).all()
