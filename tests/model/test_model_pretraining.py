"""The pre-training loss: its terms, missing targets and streams, padding."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avhubert.config.schema import MaskingConfig, ObjectiveConfig
from avhubert.errors import ConfigError, DataError
from avhubert.model.masking import draw_masks
from avhubert.model.pretraining import ClusterHead, pretrain_loss

OBJECTIVE = ObjectiveConfig()


@pytest.fixture
def masks(batch):
    return draw_masks(batch[2], MaskingConfig(), "input", np.random.default_rng(0))


@pytest.fixture
def labels(batch):
    return torch.randint(4, 14, (3, 20), generator=torch.Generator().manual_seed(2)).masked_fill(batch[2], -1)


@pytest.mark.parametrize("untied", [True, False])
def test_head_is_cosine_similarity(small, untied):
    head = ClusterHead(small(num_classes=[5, 9], untie_final_proj=untied, logit_temp=0.2).config)
    x = torch.randn(6, 32)
    projected = head.projection(x)
    parts = projected.chunk(2, -1) if untied else (projected, projected)
    for logits, part, embeddings in zip(head(x), parts, head.class_embeddings.split([5, 9]), strict=True):
        torch.testing.assert_close(logits, F.cosine_similarity(part[:, None], embeddings[None], dim=-1) / 0.2)


def test_loss_is_the_sum_of_its_terms(small, batch, masks, labels):
    model = small().eval()
    loss = pretrain_loss(model, *batch, None, None, [labels], masks, ObjectiveConfig(1.0, 0.5, 3.0))
    counted = int((labels >= 0).sum())
    assert loss.sample_size == counted == 20 + 13 + 16
    parts = (
        loss.metrics["loss_masked"] + 0.5 * loss.metrics["loss_unmasked"] + 3 * counted * loss.metrics["features_pen"]
    )
    torch.testing.assert_close(loss.loss.detach(), parts)
    assert loss.metrics["count_masked"] + loss.metrics["count_unmasked"] == counted
    only_masked = pretrain_loss(model, *batch, None, None, [labels], masks, OBJECTIVE)
    assert only_masked.sample_size == only_masked.metrics["count_masked"]
    torch.testing.assert_close(only_masked.metrics["loss_unmasked"], loss.metrics["loss_unmasked"])


def test_frames_without_a_target_do_not_count(small, batch, masks, labels):
    model = small().eval()
    whole = pretrain_loss(model, *batch, None, None, [labels], masks, OBJECTIVE)
    missing = masks.union() & (torch.arange(20) < 10) & (labels >= 0)
    assert missing.any()
    partly = pretrain_loss(model, *batch, None, None, [labels.masked_fill(missing, -1)], masks, OBJECTIVE)
    rest = pretrain_loss(model, *batch, None, None, [labels.masked_fill(~missing, -1)], masks, OBJECTIVE)
    assert partly.sample_size == whole.sample_size - int(missing.sum())
    for name in ("loss_masked", "correct_masked", "count_masked"):
        torch.testing.assert_close(partly.metrics[name] + rest.metrics[name], whole.metrics[name])


def test_batch_without_targets_has_loss_zero(small, batch, masks, labels):
    loss = pretrain_loss(small(), *batch, None, None, [torch.full_like(labels, -1)], masks, OBJECTIVE)
    assert loss.sample_size == 0
    assert loss.loss.item() == 0
    loss.loss.backward()


def test_label_sets_add_up_and_frames_count_once(small, batch, masks, labels):
    model = small(num_classes=[14, 14]).eval()
    other = (labels + 1).clamp(max=13).masked_fill(labels < 0, -1)
    both = pretrain_loss(model, *batch, None, None, [labels, other], masks, OBJECTIVE)
    nothing = torch.full_like(labels, -1)
    parts = [
        pretrain_loss(model, *batch, None, None, given, masks, OBJECTIVE)
        for given in ([labels, nothing], [nothing, other])
    ]
    torch.testing.assert_close(both.metrics["loss_masked"], sum(part.metrics["loss_masked"] for part in parts))
    assert both.sample_size == parts[0].sample_size == parts[1].sample_size
    assert both.metrics["count_masked"] == 2 * both.sample_size


def test_short_labels_cut_the_features(small, batch, labels):
    audio, video, padding = (tensor[:1] for tensor in batch)
    masks = draw_masks(padding, MaskingConfig(), "input", np.random.default_rng(0))
    model = small().eval()
    short = pretrain_loss(model, audio, video, padding, None, None, [labels[:1, :15]], masks, OBJECTIVE)
    assert short.metrics["count_masked"] + short.metrics["count_unmasked"] == 15
    audio, video = masks.replace_audio(audio, model.mask_embedding), masks.replace_video(video)
    expected = model.front_ends(audio, video)[:, :15].square().mean()
    torch.testing.assert_close(short.metrics["features_pen"], expected.detach())


def test_padding_and_other_rows_do_not_change_the_cross_entropy(small, batch, labels):
    """With equal masks. The penalty is a mean that includes padding, as published."""
    model = small().eval()
    audio, video, padding = batch
    masks = draw_masks(padding, dataclasses.replace(MaskingConfig(), prob_video=0.0), "input", np.random.default_rng(0))
    together = pretrain_loss(model, audio, video, padding, None, None, [labels], masks, OBJECTIVE)
    pairs = []
    for rows in ([0, 1], [2, 2]):
        part = dataclasses.replace(masks, audio=masks.audio[rows], video=masks.video[rows], video_source=None)
        part.video_source = torch.full_like(labels[rows], -1)
        given = (audio[rows], video[rows], padding[rows], None, None, [labels[rows]])
        pairs.append(pretrain_loss(model, *given, part, OBJECTIVE).metrics["loss_masked"])
    torch.testing.assert_close(together.metrics["loss_masked"], pairs[0] + pairs[1] / 2, rtol=1e-5, atol=1e-4)


def test_dropped_stream_has_zero_gradients_and_updates_statistics(small, batch, masks, labels):
    model = small().train()
    before = model.visual.stem_norm.running_mean.clone()
    keep = (torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool))
    pretrain_loss(model, *batch, None, None, [labels], masks, OBJECTIVE, keep).loss.backward()
    assert (model.visual.stem_norm.running_mean - before).abs().max() > 0
    assert not model.visual.stem_conv.weight.grad.any()
    assert model.audio.weight.grad.any()


def test_the_only_stream_of_an_utterance_is_not_dropped(small, batch, masks, labels):
    model = small().eval()
    audio, _, padding = batch
    drop_audio = (torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool))
    kept = pretrain_loss(model, audio, None, padding, None, None, [labels], masks, OBJECTIVE)
    dropped = pretrain_loss(model, audio, None, padding, None, None, [labels], masks, OBJECTIVE, drop_audio)
    torch.testing.assert_close(dropped.loss, kept.loss)
    assert kept.sample_size == int((masks.audio & (labels >= 0)).sum()), "missing video masks nothing"


def test_one_stream_per_utterance(small, batch, masks, labels):
    model = small().train()
    has_audio, has_video = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    loss = pretrain_loss(model, *batch, has_audio, has_video, [labels], masks, OBJECTIVE)
    assert loss.sample_size == int((masks.union(has_audio, has_video) & (labels >= 0)).sum())
    loss.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.visual.parameters())


@pytest.mark.parametrize("kind", ["input", "feature"])
def test_training_reduces_the_loss(small, batch, labels, kind):
    config = MaskingConfig(prob_video=0.8, length_video=10)
    model = small(masking_type=kind, dropout=0, attention_dropout=0, dropout_input=0, encoder_layerdrop=0).train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    masks = draw_masks(batch[2], config, kind, np.random.default_rng(0))
    losses = []
    for _ in range(40):
        loss = pretrain_loss(model, *batch, None, None, [labels], masks, OBJECTIVE)
        optimizer.zero_grad()
        (loss.loss / loss.sample_size).backward()
        optimizer.step()
        losses.append(loss.metrics["loss_masked"].item() / loss.sample_size)
    assert losses[-1] < 0.5 * losses[0]


def test_invalid_input_is_an_error(small, batch, masks, labels):
    with pytest.raises(ConfigError, match=r"model\.num_classes"):
        pretrain_loss(small(num_classes=[]), *batch, None, None, [labels], masks, OBJECTIVE)
    with pytest.raises(DataError, match="2 label sets were given to a model with 1"):
        pretrain_loss(small(), *batch, None, None, [labels, labels], masks, OBJECTIVE)
