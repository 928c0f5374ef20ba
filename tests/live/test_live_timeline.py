"""Frames and samples on the grid of 25 frames per second: uneven, late and missing ones, clocks that restart."""

from __future__ import annotations

import numpy as np
import pytest

from avhubert.errors import ConfigError
from avhubert.live.history import History
from avhubert.live.records import AudioBlock, VideoFrame
from avhubert.live.timeline import FrameTimeline, Origin, SampleTimeline


def frames_of(times: list[float]) -> list[int | None]:
    """Which of the frames at these times each grid frame shows."""
    timeline = FrameTimeline(Origin())
    shown: list[int | None] = []
    for number, time in enumerate(times):
        image = np.full((1, 1, 3), number, np.uint8)
        shown += [None if one is None else int(one[0, 0, 0]) for one in timeline.push(VideoFrame(image, time))]
    return shown


def test_frames_at_25_per_second_go_through() -> None:
    assert frames_of([100 + k / 25 for k in range(6)]) == [0, 1, 2, 3, 4]


def test_slow_frames_are_repeated_and_fast_ones_left_out() -> None:
    assert frames_of([0, 0.08, 0.16, 0.24]) == [0, 0, 1, 1, 2, 2]
    assert frames_of([k / 50 for k in range(9)]) == [0, 2, 4, 6]


def test_a_gap_is_held_for_a_while_and_then_missing() -> None:
    shown = frames_of([0, 0.04, 1.04, 1.08])
    assert shown[:7] == [0, 1, 1, 1, 1, 1, 1]
    assert set(shown[7:13]) == {None}
    assert shown[-1] == 2


def test_a_frame_that_goes_back_is_dropped_and_a_clock_that_restarts_continues() -> None:
    timeline = FrameTimeline(Origin())
    image = np.zeros((1, 1, 3), np.uint8)
    for time in (50.0, 50.04, 50.02, 50.08):
        list(timeline.push(VideoFrame(image, time)))
    assert (timeline.dropped, timeline.end) == (1, 2)
    assert timeline.late_seconds == pytest.approx(0.02)
    for time in (0.0, 0.04):
        list(timeline.push(VideoFrame(image, time)))
    assert (timeline.dropped, timeline.end) == (1, 4)


def test_gaps_of_the_audio_become_silence_and_overlaps_are_dropped() -> None:
    timeline = SampleTimeline(Origin())
    block = np.ones(1600, np.int16)
    assert timeline.push(AudioBlock(block, 7.0))[0] == 0
    missing, kept = timeline.push(AudioBlock(block, 7.5))
    assert (missing, len(kept)) == (6400, 1600)
    missing, kept = timeline.push(AudioBlock(block, 7.55))
    assert (missing, len(kept), timeline.dropped) == (0, 800, 800)
    missing, kept = timeline.push(AudioBlock(block))  # follows without a gap
    assert (missing, len(kept), timeline.end) == (0, 1600, 8000 + 1600 + 800 + 1600)


def test_jitter_of_timestamps_changes_nothing_and_drift_is_bounded() -> None:
    timeline = SampleTimeline(Origin())
    for k in range(100):
        timeline.push(AudioBlock(np.zeros(640, np.int16), k * 0.04 + 0.01 * (k % 2)))
    assert (timeline.missing, timeline.dropped, timeline.end) == (0, 0, 64_000)
    for k in range(100, 3600 * 25):  # a clock that is 0.1 % slow for an hour
        timeline.push(AudioBlock(np.zeros(640, np.int16), 4 + (k - 100) * 0.04 * 1.001))
        assert abs(timeline.end / 16_000 - (4 + (k - 99) * 0.04 * 1.001)) < 0.05


def test_a_clock_of_the_audio_that_restarts_continues() -> None:
    timeline = SampleTimeline(Origin())
    timeline.push(AudioBlock(np.zeros(160_000, np.int16), 500.0))
    assert timeline.push(AudioBlock(np.zeros(640, np.int16), 0.0))[0] == 0
    assert timeline.push(AudioBlock(np.zeros(640, np.int16), 0.04))[0] == 0
    assert (timeline.end, timeline.dropped) == (161_280, 0)


def test_wrong_timestamps_and_samples_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match="a timestamp of a live stream is nan; it must be a finite number of seconds"):
        list(FrameTimeline(Origin()).push(VideoFrame(np.zeros((1, 1, 3), np.uint8), float("nan"))))
    with pytest.raises(ConfigError, match=r"live audio is float32 \[5\]; it must be int16 \[N\] at 16 kHz"):
        SampleTimeline(Origin()).push(AudioBlock(np.zeros(5, np.float32), 0.0))


def test_a_history_remembers_the_last_frames_in_constant_memory() -> None:
    history = History((2,), np.int64, 10, start=5)
    for value in range(5, 1000):
        history.append([value, -value])
        assert history[max(history.start, history.end - 10) : history.end][-1].tolist() == [value, -value]
    assert history.end == 1000
    assert history.last(10)[:, 0].tolist() == list(range(990, 1000))
    assert len(history._values) == 20
    history.extend(np.zeros((57, 2), np.int64))
    assert history.end == 1057
    assert not history.last(10).any()
