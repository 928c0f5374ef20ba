"""Examples, collation, order and loading: equal to the published values, and independent of the number of workers."""

from __future__ import annotations

import json
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avhubert.config.schema import DataConfig, FinetuneDataConfig
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.batching import StepOrder, make_batches
from avhubert.data.collate import Batch, Example, batch_frames, collate, frame_labels
from avhubert.data.dataset import ClipDataset
from avhubert.data.labels import LabelInfo
from avhubert.data.loader import Loader
from avhubert.data.manifest import Clip
from avhubert.data.noise import mix
from avhubert.data.tokenizer import Tokenizer, train_tokenizer
from avhubert.data.video import read_gray, transform, write_video
from avhubert.errors import ConfigError, DataError, MediaError
from avhubert.model.inputs import ModelInputs

pytestmark = pytest.mark.quick

TEXTS = ["bin blue at f two now", "lay red by a", "place white with one please", "set green in z nine again"] * 3


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    """Twelve mouth clips of 6 to 17 frames, each frame and sample different."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    made = []
    for index in range(12):
        frames = 6 + index
        base = rng.integers(0, 256, (12, 12)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        write_video(folder / f"{index}.mp4", [np.roll(base, 3 * t, axis=1) for t in range(frames)])
        samples = (rng.standard_normal(frames * 640) * 2000).astype(np.int16)
        write_wav(folder / f"{index}.wav", samples)
        made.append(Clip(f"c{index}", folder / f"{index}.mp4", folder / f"{index}.wav", frames, len(samples)))
    return made


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("noise")
    paths = [folder / f"{index}.wav" for index in range(5)]
    for index, path in enumerate(paths):
        samples = (np.random.default_rng(index + 9).standard_normal(3000) * 1000).astype(np.int16)
        write_wav(path, samples)
    return paths


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 60)


def config(**values) -> DataConfig:
    return DataConfig(dir="", **values)


def same(first: Batch, second: Batch) -> bool:
    def equal(a, b) -> bool:
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        if isinstance(a, ModelInputs):
            return all(equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(ModelInputs))
        if isinstance(a, list) and a and isinstance(a[0], torch.Tensor):
            return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        return a == b

    return all(equal(getattr(first, field.name), getattr(second, field.name)) for field in fields(Batch))


def test_golden_items(golden, tmp_path) -> None:
    media, items = golden("media"), np.load(golden("dataset_items.npz"))
    clips = []
    for index in range(3):
        audio = media / f"test0{index}.wav"
        frames = len(items[f"item{index}:label"])
        clips.append(Clip(f"test{index}", media / f"test0{index}.mp4", audio, frames, len(read_audio(audio))))
    rows = [items[f"item{index}:label"] for index in range(3)]
    labels = [(rows, LabelInfo(25, 50, "mfcc", None, ""))]
    dataset = ClipDataset(clips, config(), training=False, seed=0, labels=labels)
    batch = dataset.batch([0, 1, 2])
    assert batch.frames == 54 + 46 + 35
    assert batch.inputs.audio is not None
    assert batch.inputs.video is not None
    assert batch.inputs.audio.shape == (3, 104, 54)
    assert batch.inputs.video.shape == (3, 1, 54, 88, 88)
    for index, row in enumerate(rows):
        frames = len(row)
        np.testing.assert_allclose(
            batch.inputs.audio[index, :, :frames].T, items[f"item{index}:audio_source"], rtol=0, atol=1e-5
        )
        total = float(items[f"item{index}:video_source_sum"])
        assert batch.inputs.video[index].double().sum().item() == pytest.approx(total, abs=1e-6 * 54 * 88 * 88)
        assert batch.labels[0][index].tolist() == [*row.tolist(), *[-1] * (54 - frames)]
        assert not batch.inputs.audio[index, :, frames:].any()
        assert not batch.inputs.video[index, :, frames:].any()
        assert batch.inputs.padding_mask[index].tolist() == [False] * frames + [True] * (54 - frames)


@pytest.mark.parametrize("modalities", ["av", "a", "v"])
def test_only_the_configured_modalities_are_loaded(clips, modalities: str) -> None:
    batch = ClipDataset(clips, config(modalities=modalities), training=True, seed=0).batch([0, 3])
    assert (batch.inputs.audio is None, batch.inputs.video is None) == ("a" not in modalities, "v" not in modalities)
    assert batch.inputs.has_audio.tolist() == [batch.inputs.audio is not None] * 2
    assert batch.inputs.has_video.tolist() == [batch.inputs.video is not None] * 2
    assert batch.inputs.padding_mask.shape == (2, 9)
    assert batch.frames == 6 + 9


def test_augmentation_uses_one_crop_and_flip_for_all_frames_of_a_clip(clips) -> None:
    dataset = ClipDataset(clips, config(modalities="v"), training=True, seed=3)
    gray = read_gray(clips[2].video)
    crops = set()
    for epoch in range(30):
        video = dataset.load(2, epoch).video
        choices = [
            (top, left, flip)
            for top in range(9)
            for left in range(9)
            for flip in (False, True)
            if torch.equal(video[0], transform(gray[:1], top, left, flip)[0])
        ]
        assert len(choices) == 1
        assert torch.equal(video, transform(gray, *choices[0]))
        crops.add(choices[0])
    assert len({top for top, _, _ in crops}) > 4
    assert len({left for _, left, _ in crops}) > 4
    assert {flip for _, _, flip in crops} == {False, True}


@pytest.mark.parametrize(("training", "augment"), [(False, True), (True, False)])
def test_crop_is_centred_without_augmentation(clips, training: bool, augment: bool) -> None:
    dataset = ClipDataset(clips, config(augment=augment), training, seed=0)
    assert torch.equal(dataset.load(1, 5).video, transform(read_gray(clips[1].video)))


def test_modality_is_drawn_per_utterance_in_training_only(clips) -> None:
    settings = FinetuneDataConfig(dir="", draw_av=2, draw_a=1, draw_v=1)
    dataset = ClipDataset(clips[:1], settings, training=True, seed=0)
    drawn = [dataset.augmentation.modality(dataset.clips[0], 0, epoch) for epoch in range(2000)]
    assert [drawn.count(name) / 2000 for name in ("av", "a", "v")] == pytest.approx([0.5, 0.25, 0.25], abs=0.04)
    example = dataset.load(0, drawn.index("a"))
    assert (example.audio is None, example.video is None) == (False, True)
    evaluation = ClipDataset(clips, settings, training=False, seed=0).batch(range(12))
    assert evaluation.inputs.has_audio.all()
    assert evaluation.inputs.has_video.all()


def test_modality_is_drawn_among_the_configured_ones(clips) -> None:
    dataset = ClipDataset(clips, FinetuneDataConfig(dir="", modalities="a", draw_v=1.0), training=True, seed=0)
    assert {dataset.augmentation.modality(dataset.clips[index], index, 0) for index in range(12)} == {"a"}
    dataset = ClipDataset(clips, FinetuneDataConfig(dir="", modalities="v"), training=True, seed=0)
    assert {dataset.augmentation.modality(dataset.clips[index], index, 0) for index in range(12)} == {"v"}


def test_dropped_stream_is_not_read(clips, tmp_path) -> None:
    clip = Clip("a", tmp_path / "none.mp4", clips[0].audio, 6, clips[0].audio_samples)
    batch = ClipDataset([clip, clips[1]], FinetuneDataConfig(dir="", draw_av=0, draw_a=1), True, 0).batch([0, 1])
    assert batch.inputs.video is None
    mixed = ClipDataset([clip, clips[1]], config(), True, 0)
    rows = [Example(0, 0, "a", 6, torch.ones(6, 104), None, [], None), mixed.load(1)]
    batch = mixed.collate(rows)
    assert batch.inputs.has_video.tolist() == [False, True]
    assert batch.inputs.video is not None
    assert not batch.inputs.video[0].any()
    assert batch.inputs.video[1].any()


def test_transcripts_become_tokens(clips, tokenizer: Tokenizer) -> None:
    dataset = ClipDataset(clips, config(modalities="a"), False, 0, texts=TEXTS, tokenizer=tokenizer)
    tokens = dataset.batch([0, 1]).tokens
    assert tokens is not None
    assert tokens.dtype == torch.int64
    for row, text in zip(tokens.tolist(), TEXTS, strict=False):
        expected = [*tokenizer.encode(text), 2]
        assert row == expected + [1] * (len(row) - len(expected))


def test_golden_transcript_collation(golden) -> None:
    arrays = np.load(golden("collater.npz"))
    examples = [Example(i, 0, str(i), 3, torch.ones(3, 104), None, [], arrays[f"in{i}_seq"].tolist()) for i in range(3)]
    batch = collate(examples, 3, [0] * 3, [])
    assert batch.tokens is not None
    np.testing.assert_array_equal(batch.tokens, arrays["s2s:target"])


def noisy(clips, noise, training: bool = True, seed: int = 0, **values) -> ClipDataset:
    values = {"modalities": "a", "noise_prob": 1.0, **values}
    return ClipDataset(clips, config(**values), training, seed, noise=noise)


def test_evaluation_noise_depends_on_the_id_and_the_list_only(clips, noise) -> None:
    first = noisy(clips, noise, training=False, noise_snr=[-5, 5])
    second = noisy(clips[::-1], noise, training=False, seed=9, noise_snr=[-5, 5])
    for index, clip in enumerate(clips):
        draw = first.augmentation.noise_in_evaluation(clip.id)
        assert draw == second.augmentation.noise_in_evaluation(clip.id)
        assert draw is not None
        assert len(draw.files) == 1
        assert -5 <= draw.snr <= 5
        assert torch.equal(first.load(index, 0).audio, second.load(11 - index, 7).audio)
    assert len({first.augmentation.noise_in_evaluation(clip.id) for clip in clips}) > 3
    other_snr = noisy(clips, noise, training=False, noise_snr=[10, 10])
    assert all(
        other_snr.augmentation.noise_in_evaluation(c.id).files == first.augmentation.noise_in_evaluation(c.id).files
        for c in clips
    )


@pytest.mark.parametrize("training", [True, False])
def test_no_clip_is_mixed_with_the_voice_of_its_speaker(clips, noise, training: bool) -> None:
    spoken = [replace(clip, speaker=f"s{index % 3}") for index, clip in enumerate(clips)]
    voices = {file: frozenset([f"s{index % 3}", "s9"]) for index, file in enumerate(noise)}
    dataset = ClipDataset(
        spoken, config(modalities="a", noise_prob=1.0), training, 0, noise=noise, noise_speakers=voices
    )
    drawn = set()
    for epoch in range(5):
        for index, clip in enumerate(spoken):
            draw = dataset.augmentation.noise(clip, index, epoch)
            assert draw is not None
            assert not any(clip.speaker in voices[file] for file in draw.files)
            drawn.update(draw.files)
    assert len(drawn) > 3
    # a clip whose speaker is unknown gets the same noise as before
    plain, unknown = noisy(clips, noise, training), replace(spoken[0], speaker="")
    assert dataset.augmentation.noise(unknown, 0, 0) == plain.augmentation.noise(clips[0], 0, 0)


def test_noise_of_the_own_voice_alone_is_an_error(clips, noise) -> None:
    own = [replace(clip, speaker="s1") for clip in clips]
    voices = {file: frozenset(["s1"]) for file in noise}
    with pytest.raises(ConfigError, match="0 files of the noise list are without the voice of the speaker 's1'"):
        ClipDataset(own, config(modalities="a", noise_prob=1.0), True, 0, noise=noise, noise_speakers=voices)
    ClipDataset(own, config(modalities="a", noise_prob=0.0), True, 0, noise=noise, noise_speakers=voices)


def test_noise_is_mixed_into_the_audio_before_the_features(clips, noise) -> None:
    from avhubert.data.filterbank import audio_features

    dataset = noisy(clips, noise, training=False, noise_snr=[5, 5])
    draw = dataset.augmentation.noise_in_evaluation("c4")
    mixed = mix(read_audio(clips[4].audio), [read_audio(draw.files[0])], 5)
    assert torch.equal(dataset.load(4).audio, audio_features(mixed, clips[4].video_frames))


def test_training_noise_is_drawn_per_epoch_with_its_probability(clips, noise) -> None:
    clean = ClipDataset(clips, config(modalities="a"), True, 0)
    dataset = noisy(clips, noise, noise_prob=0.25)
    noisy_count = sum(
        not torch.equal(dataset.load(index, epoch).audio, clean.load(index).audio)
        for epoch in range(20)
        for index in range(12)
    )
    assert 0.15 < noisy_count / 240 < 0.35
    assert torch.equal(dataset.load(3, 1).audio, noisy(clips, noise, noise_prob=0.25).load(3, 1).audio)
    always = noisy(clips, noise)
    epochs = [always.load(3, epoch).audio for epoch in range(6)]
    assert not all(torch.equal(epochs[0], other) for other in epochs[1:])
    assert not all(torch.equal(epochs[0], noisy(clips, noise, seed=seed).load(3, 0).audio) for seed in range(1, 6))


def test_snr_range_includes_both_ends_and_several_noises_are_distinct(clips, noise) -> None:
    dataset = noisy(clips, noise, noise_snr=[-1, 1], noise_num=3)
    draws = [dataset.augmentation._draw_noise(np.random.default_rng(seed), "") for seed in range(60)]
    assert {draw.snr for draw in draws} == {-1, 0, 1}
    assert all(len(set(draw.files)) == 3 for draw in draws)


def test_more_noises_than_files_is_an_error(clips, noise) -> None:
    with pytest.raises(ConfigError, match=r"data\.noise_num=6 but the noise list has 5 files"):
        noisy(clips, noise, noise_num=6)


COLLATER = json.loads((Path(__file__).parent / "golden" / "collater.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", [name for name in COLLATER if name != "s2s"])
def test_golden_collation(golden, case: str) -> None:
    arrays, facts = (
        np.load(golden("collater.npz")),
        json.loads(golden("collater.json").read_text(encoding="utf-8"))[case],
    )
    rate = 100 if "rate100" in case else 25
    examples = [
        Example(
            index=i,
            epoch=0,
            id=f"u{i}",
            frames=len(arrays[f"in{i}_audio"]),
            audio=torch.from_numpy(arrays[f"in{i}_audio"]) if f"{case}:audio" in arrays else None,
            video=torch.from_numpy(arrays[f"in{i}_video"][..., 0]) if f"{case}:video" in arrays else None,
            labels=[arrays[f"in{i}_label{rate}"]],
            tokens=None,
        )
        for i in range(3)
    ]
    given_settings = facts["settings"]
    size = batch_frames(
        [e.frames for e in examples], given_settings["pad_audio"], given_settings.get("max_sample_size")
    )
    assert size == facts["size"]
    batch = collate(examples, size, facts["starts"], [rate])
    for name in ("audio", "video"):
        if f"{case}:{name}" in arrays:
            np.testing.assert_array_equal(getattr(batch.inputs, name), arrays[f"{case}:{name}"])
        else:
            assert getattr(batch.inputs, name) is None
    np.testing.assert_array_equal(batch.inputs.padding_mask, arrays[f"{case}:padding_mask"])
    assert batch.ids == facts["utt_id"]
    target, lengths = arrays[f"{case}:target"], arrays[f"{case}:target_lengths"]
    assert lengths.sum() == facts["ntokens"][0]
    # published targets have the rate of the labels; ours are per frame, -1 at padding and after the end
    for row in range(3):
        has_label = [t * rate // 25 < lengths[row] and not batch.inputs.padding_mask[row, t] for t in range(size)]
        expected = [int(target[row, t * rate // 25]) if has_label[t] else -1 for t in range(size)]
        assert batch.labels[0][row].tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 40)),
    st.booleans(),
    st.sampled_from([25, 50, 100]),
    st.integers(0, 99),
)
def test_streams_and_labels_stay_aligned(lengths, pad, crop_frames, random_crop, rate, seed) -> None:
    """Frame t of clip i has the value 1000 i + t in every stream."""
    examples = []
    for i, length in enumerate(lengths):
        numbers = 1000 * i + torch.arange(length, dtype=torch.float32)
        row = np.repeat(1000 * i + np.arange(length), rate // 25)
        video = numbers[:, None, None].expand(-1, 2, 2)
        examples.append(Example(i, 0, str(i), length, numbers[:, None].expand(-1, 3), video, [row], None))
    settings_ = config(pad=pad, crop_frames=crop_frames, random_crop=random_crop)
    clips = [Clip(str(i), Path("v"), Path("a"), length, 0) for i, length in enumerate(lengths)]
    labels = [([example.labels[0] for example in examples], LabelInfo(rate, 9, "", None, ""))]
    batch = ClipDataset(clips, settings_, training=True, seed=seed, labels=labels).collate(examples)
    size = min(max(lengths) if pad else min(lengths), crop_frames or 99)
    assert batch.inputs.audio is not None
    assert batch.inputs.video is not None
    assert batch.inputs.padding_mask.shape == (len(lengths), size)
    assert batch.frames == int((~batch.inputs.padding_mask).sum())
    for i, length in enumerate(lengths):
        real = min(length, size)
        assert (~batch.inputs.padding_mask[i]).tolist() == [True] * real + [False] * (size - real)
        target = batch.labels[0][i, :real]
        assert target.diff().eq(1).all()
        assert 1000 * i <= target[0]
        assert target[-1] < 1000 * i + length
        assert random_crop or target[0] == 1000 * i
        torch.testing.assert_close(batch.inputs.audio[i, 0, :real], target.float())
        torch.testing.assert_close(batch.inputs.video[i, 0, :real, 1, 1], target.float())
        assert batch.labels[0][i, real:].eq(-1).all()
        assert not batch.inputs.audio[i, :, real:].any()


def test_random_crops_differ_between_epochs_and_cover_the_clip() -> None:
    clip = Clip("a", Path("v"), Path("a"), 20, 0)
    dataset = ClipDataset([clip], config(crop_frames=5, random_crop=True), True, 0)
    starts = [dataset.augmentation.start("a", 20, 5, 0, epoch) for epoch in range(300)]
    assert set(starts) == set(range(16))
    evaluation = ClipDataset([clip], config(crop_frames=5, random_crop=True), False, 0)
    assert len({evaluation.augmentation.start("a", 20, 5, 0, epoch) for epoch in range(9)}) == 1


def test_frames_after_the_last_label_have_none() -> None:
    assert frame_labels(np.array([7, 8, 9]), 25, 1, 4).tolist() == [8, 9, -1, -1]
    assert frame_labels(np.arange(10), 100, 0, 4).tolist() == [0, 4, 8, -1]
    assert frame_labels(np.arange(9), 30, 2, 4).tolist() == [2, 3, 4, 6]


def test_batch_is_moved_to_a_device(clips, tokenizer) -> None:
    labels = [([np.zeros(20, np.int32)] * 12, LabelInfo(25, 5, "", None, ""))]
    batch = ClipDataset(clips, config(), False, 0, labels, TEXTS, tokenizer).batch([0, 1])
    moved = batch.to("meta")
    assert all(
        tensor.device.type == "meta" for tensor in (moved.inputs.audio, moved.inputs.video, moved.tokens, *moved.labels)
    )
    assert moved.ids == batch.ids
    assert same(batch.to("cpu"), batch)


def test_golden_batches(golden) -> None:
    facts = json.loads(golden("batching.json").read_text(encoding="utf-8"))
    for name, expected in facts.items():
        if name.startswith("batches"):
            frames, multiple = map(int, name.removeprefix("batches_max_tokens").split("_mult"))
            assert make_batches(facts["sizes"], frames, seed=0, multiple=multiple) == expected
    assert sum(make_batches(facts["sizes"], 1000), []) == facts["ordered_indices_np_seed0"]  # noqa: RUF017


lengths_of_clips = st.lists(st.integers(1, 600), min_size=1, max_size=80)
budgets = st.integers(50, 3000)


@settings(max_examples=100, deadline=None)
@given(lengths_of_clips, budgets, st.integers(0, 2**33), st.one_of(st.none(), st.integers(1, 500)))
def test_batches_contain_every_clip_once_and_respect_the_maximum(lengths, budget, seed, crop) -> None:
    batches = make_batches(lengths, budget, seed, crop)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(flat, reverse=True)
    for batch in batches:
        longest = max(min(lengths[i], crop or lengths[i]) for i in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget
        assert len(batch) <= 8 or len(batch) % 8 == 0


@settings(max_examples=50, deadline=None)
@given(lengths_of_clips, budgets, st.integers(1, 5), st.integers(0, 2**32), st.integers(0, 3))
def test_steps_are_a_pure_function_and_contain_every_clip_once_per_epoch(lengths, budget, factor, seed, epoch) -> None:
    order = StepOrder(lengths, budget, factor * budget, seed)
    numbers = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    steps = [order.step(number) for number in numbers]
    assert {step_epoch for step_epoch, _ in steps} == {epoch}
    assert sorted(i for _, step in steps for batch in step for i in batch) == list(range(len(lengths)))
    assert all(len(step) == factor for _, step in steps[:-1])
    assert 1 <= len(steps[-1][1]) <= factor
    again = StepOrder(lengths, budget, factor * budget, seed)
    assert [again.step(number) for number in reversed(numbers)] == steps[::-1]


def test_epochs_and_seeds_differ() -> None:
    lengths = list(range(20, 80))
    order = StepOrder(lengths, 200, 200, 1)
    assert order.step(0)[1] != order.step(order.steps_per_epoch)[1]
    assert order.step(0) != StepOrder(lengths, 200, 200, 2).step(0)


@pytest.mark.parametrize(("step", "expected"), [(32_000, 32), (300, 1), (1400, 1), (1600, 2), (100, 1)])
def test_micro_batches_per_step(step: int, expected: int) -> None:
    assert StepOrder([10], 1000, step, 0).batches_per_step == expected


def test_no_clips_is_an_error() -> None:
    assert make_batches([], 100) == []
    with pytest.raises(DataError, match="no clips are left to train on"):
        StepOrder([], 1000, 1000, 0)


def make_loader(clips, noise, workers: int) -> tuple[Loader, StepOrder]:
    settings_ = FinetuneDataConfig(
        dir="", draw_a=1, draw_v=1, noise_prob=0.5, noise_snr=[-3, 3], crop_frames=12, random_crop=True
    )
    dataset = ClipDataset(clips, settings_, training=True, seed=5, noise=noise)
    return Loader(dataset, workers), StepOrder([c.video_frames for c in clips], 36, 72, 5, crop_frames=12)


def take(loader: Loader, order: StepOrder, count: int, **options) -> list[list[tuple[int, Batch]]]:
    steps = loader.steps(order, **options)
    taken = [list(next(steps)) for _ in range(count)]
    steps.close()  # type: ignore[attr-defined]
    return taken


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_the_number_of_workers(clips, noise, workers: int) -> None:
    inline = take(*make_loader(clips, noise, 0), 6)
    threaded = take(*make_loader(clips, noise, workers), 6)
    assert [[index for index, _ in step] for step in inline] == [[index for index, _ in step] for step in threaded]
    assert all(
        same(a, b)
        for inline_step, threaded_step in zip(inline, threaded, strict=True)
        for (_, a), (_, b) in zip(inline_step, threaded_step, strict=True)
    )
    assert len({batch.ids[0] for step in inline for _, batch in step}) > 2


def test_resuming_and_distribution_over_ranks_give_the_same_batches(clips, noise) -> None:
    loader, order = make_loader(clips, noise, 0)
    whole = take(loader, order, 5)
    later = take(loader, order, 2, first=3)
    ranks = [take(loader, order, 5, rank=rank, world_size=3) for rank in range(3)]
    for step, resumed_step in zip(whole[3:], later, strict=True):
        assert all(p == q and same(a, b) for (p, a), (q, b) in zip(step, resumed_step, strict=True))
    for number, step in enumerate(whole):
        shared = sorted((part for rank in ranks for part in rank[number]), key=lambda part: part[0])
        assert [index for index, _ in shared] == [index for index, _ in step]
        assert all(same(a, b) for (_, a), (_, b) in zip(step, shared, strict=True))
    assert all(not step for step in ranks[2])  # two micro-batches per step: the third rank has none


def loader_threads() -> int:
    return sum(thread.name.startswith("avhubert-loader") for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [0, 2])
def test_error_of_an_unreadable_clip_is_raised_in_place_of_its_batch(clips, tmp_path, workers: int) -> None:
    bad = Clip("bad", clips[0].video, tmp_path / "gone.wav", 6, 3840)
    loader = Loader(ClipDataset([*clips[:3], bad], config(), True, 0), workers)
    stream = loader.batches([(0, [0]), (0, [1]), (0, [3]), (0, [2])])
    assert [next(stream).ids, next(stream).ids] == [["c0"], ["c1"]]
    with pytest.raises(MediaError, match=r"clip 'bad': cannot read .*gone\.wav: there is no such file"):
        next(stream)
    assert loader_threads() == 0


def test_threads_end_when_the_consumer_stops(clips) -> None:
    stream = Loader(ClipDataset(clips, config(), True, 0), 2).batches((0, [i % 12]) for i in range(10**9))
    next(stream)
    assert loader_threads() > 0
    stream.close()  # type: ignore[attr-defined]
    assert loader_threads() == 0


def test_video_shorter_than_in_the_manifest_is_an_error(clips) -> None:
    wrong = Clip("c0", clips[0].video, clips[0].audio, 9, 3840)
    with pytest.raises(DataError, match=r"clip 'c0': .*0\.mp4 has 6 frames but the manifest says 9; prepare"):
        ClipDataset([wrong], config(), False, 0).load(0)
    nearly = Clip("c0", clips[0].video, clips[0].audio, 8, 3840)
    assert ClipDataset([nearly], config(), False, 0).load(0).frames == 6


def test_unreadable_video_is_an_error_with_the_id_of_the_clip(clips, tmp_path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"clip 'x': .*x\.mp4"):
        ClipDataset([Clip("x", tmp_path / "x.mp4", clips[0].audio, 6, 3840)], config(), False, 0).load(0)


def test_number_of_labels_or_transcripts_must_match_the_clips(clips, tokenizer) -> None:
    with pytest.raises(DataError, match="there are 1 label rows for 12 clips"):
        ClipDataset(clips, config(), True, 0, labels=[([np.zeros(6)], LabelInfo(25, 5, "", None, ""))])
    with pytest.raises(DataError, match="there are 2 transcripts for 12 clips"):
        ClipDataset(clips, config(), True, 0, texts=TEXTS[:2], tokenizer=tokenizer)


def test_time_masks_are_applied_to_training_clips_only(clips: list[Clip]) -> None:
    config = FinetuneDataConfig(dir="x", augment=False, time_mask_rate=2.0, time_mask_frames=4)
    plain = ClipDataset(clips, FinetuneDataConfig(dir="x", augment=False), training=True, seed=1)
    masked = ClipDataset(clips, config, training=True, seed=1)
    masked_frames = {"audio": 0, "video": 0}
    for index in range(len(clips)):
        for epoch in range(8):
            before, after = plain.load(index, epoch), masked.load(index, epoch)
            for stream in masked_frames:
                x, y = getattr(before, stream), getattr(after, stream)
                changed = [t for t in range(len(x)) if not torch.equal(x[t], y[t])]
                assert all(not y[t].any() for t in changed)
                masked_frames[stream] += len(changed)
            again = masked.load(index, epoch)
            assert torch.equal(again.audio, after.audio)
            assert torch.equal(again.video, after.video)
    frames = 8 * sum(clip.frames for clip in clips)
    for count in masked_frames.values():  # 2 spans per second of 2.5 frames on average; some overlap
        assert 0.1 < count / frames < 0.21
    assert masked_frames["audio"] != masked_frames["video"]  # drawn separately
    evaluated = ClipDataset(clips, config, training=False, seed=1).load(11)
    assert torch.equal(evaluated.audio, plain.load(11).audio)
    assert torch.equal(evaluated.video, plain.load(11).video)


def test_video_corruption_is_drawn_in_training_only(clips: list[Clip]) -> None:
    config = FinetuneDataConfig(dir="x", augment=False, faults=["freeze", "occlusion"], fault_prob=0.5)
    plain = ClipDataset(clips, FinetuneDataConfig(dir="x", augment=False), training=True, seed=1)
    corrupted = ClipDataset(clips, config, training=True, seed=1)
    changed = 0
    for index in range(len(clips)):
        for epoch in range(6):
            before, after = plain.load(index, epoch), corrupted.load(index, epoch)
            changed += not torch.equal(before.video, after.video)
            assert torch.equal(before.audio, after.audio)
            assert torch.equal(corrupted.load(index, epoch).video, after.video)
    assert 0.2 < changed / (6 * len(clips)) < 0.8
    evaluated = ClipDataset(clips, config, training=False, seed=1)
    assert torch.equal(evaluated.load(0).video, plain.load(0).video)
    with pytest.raises(ConfigError, match="unknown video corruption"):
        ClipDataset(clips, FinetuneDataConfig(dir="x", faults=["blurred"]), training=True, seed=1)


def test_video_of_another_clip_is_drawn_beside_audio_only(clips: list[Clip]) -> None:
    settings_of: dict[str, Any] = {"dir": "x", "augment": False, "draw_av": 1.0, "draw_a": 1.0, "draw_v": 1.0}
    plain = ClipDataset(clips, FinetuneDataConfig(**settings_of), training=True, seed=1)
    wrong = ClipDataset(clips, FinetuneDataConfig(**settings_of, wrong_video_prob=1.0), training=True, seed=1)
    seen, changed = 0, 0
    for index in range(len(clips)):
        for epoch in range(6):
            before, after = plain.load(index, epoch), wrong.load(index, epoch)
            assert (before.audio is None, before.video is None) == (after.audio is None, after.video is None)
            assert after.frames == before.frames
            if before.audio is not None:
                assert torch.equal(before.audio, after.audio)
            if before.video is None:
                continue
            if before.audio is None:
                assert torch.equal(before.video, after.video)
            else:
                seen += 1
                changed += not torch.equal(before.video, after.video)
                assert torch.equal(wrong.load(index, epoch).video, after.video)
    assert 0 < changed <= seen
    assert changed > seen / 2  # the clip itself may be drawn
    evaluated = ClipDataset(clips, FinetuneDataConfig(**settings_of, wrong_video_prob=1.0), training=False, seed=1)
    untouched = ClipDataset(clips, FinetuneDataConfig(**settings_of), training=False, seed=1)
    assert torch.equal(evaluated.load(0).video, untouched.load(0).video)


def test_time_mask_is_not_longer_than_its_clip(clips: list[Clip]) -> None:
    config = FinetuneDataConfig(dir="x", time_mask_rate=50.0, time_mask_frames=1000)
    example = ClipDataset(clips, config, training=True, seed=1).load(0)
    assert example.audio.shape == (6, 104)
    assert example.frames == 6
