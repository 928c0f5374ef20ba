"""What is shown of a hypothesis, and how much work is dropped on a slow machine."""

from __future__ import annotations

import pytest

from avhubert.live.agreement import Agreement, retracted_words
from avhubert.live.load import STEPS, Load
from avhubert.live.records import LiveWord


def said(text: str) -> list[LiveWord]:
    return [LiveWord(word, k * 0.3, k * 0.3 + 0.3, 0.9) for k, word in enumerate(text.split())]


def test_words_are_shown_when_two_windows_agree() -> None:
    agreement = Agreement()
    assert not agreement.update(said("lay"), 1)
    assert agreement.update(said("lay blue"), 1)
    assert agreement.update(said("lay blue with"), 1.5)
    assert [word.text for word in agreement.shown] == ["lay", "blue"]
    assert agreement.retracted == 0


def test_a_window_that_differs_takes_nothing_back_but_two_do() -> None:
    agreement = Agreement()
    for text in ("lay blue", "lay blue", "lay green"):
        agreement.update(said(text), 2)
    assert [word.text for word in agreement.shown] == ["lay", "blue"]
    assert agreement.update(said("lay green"), 2)
    assert [word.text for word in agreement.shown] == ["lay", "green"]
    assert agreement.retracted == 1
    agreement.finish(said("lay red now"))
    assert agreement.retracted == 2


def test_a_word_at_the_end_of_the_window_waits() -> None:
    agreement = Agreement()
    for _ in range(2):
        agreement.update(said("lay blue"), 0.62)
    assert [word.text for word in agreement.shown] == ["lay"]


def test_a_word_that_is_not_probable_waits_for_the_end_of_the_utterance() -> None:
    agreement = Agreement()
    doubtful = [*said("lay blue")[:1], LiveWord("blue", 0.3, 0.6, 0.5), LiveWord("now", 0.6, 0.9, 0.9)]
    for _ in range(3):
        agreement.update(doubtful, 2)
    assert [word.text for word in agreement.shown] == ["lay"]
    agreement.finish(doubtful)
    assert [word.text for word in agreement.shown] == ["lay", "blue", "now"]
    assert agreement.retracted == 0


def test_retracted_words_are_counted_by_alignment() -> None:
    assert retracted_words(said("a b c d"), said("a x c d e")) == 1
    assert retracted_words(said("a b"), said("")) == 2


def test_a_slow_machine_drops_work_and_a_fast_one_takes_it_up_again() -> None:
    now = [0.0]
    load = Load(lambda: now[0])
    messages = []

    def work(seconds: float) -> None:
        for _ in range(50):
            load.begin()
            now[0] += seconds
            if message := load.end(1):
                messages.append(message)

    work(0.01)
    assert (load.step, messages) == (STEPS[0], [])
    for _ in range(4):
        work(0.05)
    assert load.step == STEPS[-1]
    assert load.track_every == 3
    assert (
        messages[-1] == "the machine is too slow: words appear every 1.3 s, and faces are followed in every third frame"
    )
    for _ in range(4):
        work(0.001)
    assert load.step == STEPS[0]
    assert messages[-1] == "the machine keeps up again"
    assert messages[0].startswith("the machine is too slow")


@pytest.mark.parametrize("share", [0.5, 0.79])
def test_the_level_stays_between_the_limits(share: float) -> None:
    now = [0.0]
    load = Load(lambda: now[0])
    for _ in range(200):
        load.begin()
        now[0] += share / 25
        assert load.end(1) is None
