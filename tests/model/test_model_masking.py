"""Span masks, replacement frames and modality dropout."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avhubert.config.schema import MaskingConfig
from avhubert.errors import ConfigError
from avhubert.model.masking import BLANK, Masks, draw_masks, draw_modality_dropout, replacement, span_mask, spans

pytestmark = pytest.mark.quick

CONFIG = MaskingConfig()
rows = st.lists(st.integers(1, 60), min_size=1, max_size=5)
seeds = st.integers(0, 2**31)


def padding(lengths) -> torch.Tensor:
    return torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]


@settings(deadline=None)
@given(lengths=rows, prob=st.floats(0.05, 1), span=st.integers(1, 12), seed=seeds)
def test_spans_are_within_the_row_and_have_the_expected_length(lengths, prob, span, seed):
    mask = span_mask(lengths, max(lengths), prob, span, False, np.random.default_rng(seed))
    for row, length in zip(mask, lengths, strict=True):
        assert not row[length:].any()
        assert row.any() or length == 1
        count = max(2, int(prob * length / span) + 1)
        assert row.sum() <= count * span
        if length - span > count:
            assert not row[length - 1], "the last real frame is never masked"
    for row, start, end in spans(mask):
        assert end - start >= span or end == lengths[row]


@settings(deadline=None)
@given(lengths=rows, prob=st.floats(0.05, 1), span=st.integers(1, 12), seed=seeds)
def test_thinning_gives_all_rows_the_smallest_count(lengths, prob, span, seed):
    full = span_mask(lengths, max(lengths), prob, span, False, np.random.default_rng(seed))
    thin = span_mask(lengths, max(lengths), prob, span, True, np.random.default_rng(seed))
    assert (thin <= full).all()
    assert set(thin.sum(1)) == {full.sum(1).min()}


@settings(deadline=None)
@given(lengths=rows, selection=st.sampled_from(["same_seq", "same_other_seq"]), seed=seeds)
def test_replacement_frames_are_allowed_ones(lengths, selection, seed):
    rng = np.random.default_rng(seed)
    mask = span_mask(lengths, max(lengths), 0.3, 5, True, rng)
    source = replacement(mask, selection, rng)
    batch, frames = mask.shape
    assert (source[~mask] == BLANK).all()
    if batch == 1:
        assert (source == BLANK).all()
        return
    assert (source[mask] >= 0).all()
    assert (source[mask] < batch * frames).all()
    shifts = set()
    for row, start, end in spans(mask):
        own, frame = np.divmod(source[row, start:end], frames)
        if selection == "same_other_seq":
            assert (frame == np.arange(start, end)).all()
            shifts.add(*set((own - row) % batch))
            continue
        assert (own == row).all()
        first, length = frame[0], end - start
        assert (frame == np.minimum(first + np.arange(length), frames - 1)).all()
        possible = [s for s in range(frames) if s + length < start or s >= end]
        assert first in (possible or [0])
    assert len(shifts) <= 1
    assert 0 not in shifts


def test_every_allowed_start_is_drawn_equally_often():
    mask = np.zeros((2, 12), bool)
    mask[0, 5:8] = True
    rng = np.random.default_rng(0)
    starts = [int(replacement(mask, "same_seq", rng)[0, 5]) for _ in range(3000)]
    counts = np.bincount(starts, minlength=12)
    # the span ends before frame 4, or starts at frame 8 or later
    assert np.flatnonzero(counts).tolist() == [0, 1, 8, 9, 10, 11]
    assert counts[counts > 0].min() > 0.8 * 3000 / 6


@given(lengths=rows, kind=st.sampled_from(["input", "feature"]), seed=seeds)
@settings(deadline=None)
def test_the_same_rng_gives_the_same_masks(lengths, kind, seed):
    config = dataclasses.replace(CONFIG, prob_video=0.8, length_video=10)
    first, second = (draw_masks(padding(lengths), config, kind, np.random.default_rng(seed)) for _ in range(2))
    for field in dataclasses.fields(Masks):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    assert not (first.union() & padding(lengths)).any()


def test_video_is_drawn_before_audio():
    shape = padding([50, 40])
    both = draw_masks(shape, CONFIG, "input", np.random.default_rng(3))
    video_only = draw_masks(shape, dataclasses.replace(CONFIG, prob_audio=0.0), "input", np.random.default_rng(3))
    assert torch.equal(both.video, video_only.video)
    assert torch.equal(both.video_source, video_only.video_source)
    assert not video_only.audio.any()
    audio_only = draw_masks(shape, dataclasses.replace(CONFIG, prob_video=0.0), "input", np.random.default_rng(3))
    assert not audio_only.video.any()
    assert audio_only.audio.any()


def test_feature_masking_needs_equal_settings_of_both_streams():
    with pytest.raises(ConfigError, match=r"set masking\.prob_video and masking\.length_video"):
        draw_masks(padding([30]), CONFIG, "feature", np.random.default_rng(0))


def test_union_ignores_missing_streams():
    masks = Masks(torch.eye(3, dtype=torch.bool), ~torch.eye(3, dtype=torch.bool), torch.zeros(3, 3, dtype=torch.long))
    assert masks.union().all()
    has_audio, has_video = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    expected = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=torch.bool)
    assert torch.equal(masks.union(has_audio, has_video), expected)


def test_video_is_replaced_by_frames_before_masking():
    video = torch.arange(6.0).view(2, 1, 3, 1, 1)
    mask = torch.tensor([[True, True, False], [False, True, False]])
    source = torch.tensor([[1, 0, BLANK], [BLANK, BLANK, BLANK]])
    masks = Masks(torch.zeros_like(mask), mask, source)
    assert masks.replace_video(video).flatten().tolist() == [1, 0, 2, 3, 0, 5]
    assert video.flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_audio_is_replaced_by_the_embedding():
    audio, embedding = torch.ones(2, 4, 3), torch.full((4,), 7.0, requires_grad=True)
    mask = torch.tensor([[True, False, False], [False, False, True]])
    out = Masks(audio=mask).replace_audio(audio, embedding)
    assert out[:, 0].tolist() == [[7, 1, 1], [1, 1, 7]]
    alone = Masks(audio=mask[:1]).replace_audio(audio[:1], embedding)
    assert alone[0, 0].tolist() == [0, 1, 1], "in a batch of one, masked frames are 0, as published"


@given(batch=st.integers(1, 6), per_utterance=st.booleans(), seed=seeds)
def test_modality_dropout_never_drops_both_streams(batch, per_utterance, seed):
    config = dataclasses.replace(CONFIG, dropout_per_utterance=per_utterance)
    audio, video = draw_modality_dropout(batch, config, np.random.default_rng(seed))
    assert audio.shape == video.shape == (batch,)
    assert (audio | video).all()
    if not per_utterance:
        assert len(set(audio.tolist())) == len(set(video.tolist())) == 1


@pytest.mark.parametrize("per_utterance", [False, True])
def test_modality_dropout_rates(per_utterance):
    config = dataclasses.replace(CONFIG, modality_dropout=0.4, audio_dropout=0.25, dropout_per_utterance=per_utterance)
    rng = np.random.default_rng(0)
    drawn = [draw_modality_dropout(4, config, rng) for _ in range(4000)]
    assert np.mean([(~audio).float().mean() for audio, _ in drawn]) == pytest.approx(0.1, abs=0.02)
    assert np.mean([(~video).float().mean() for _, video in drawn]) == pytest.approx(0.3, abs=0.025)
