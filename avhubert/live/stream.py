"""One live stream: puts its frames and samples in order, decides what is read when, and what is shown.

A stream asks for windows (`requests`) and takes their words (`accept`), so that an engine can read the windows of many
streams in one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from avhubert.config.input_preparation import CLIP_SIZES
from avhubert.constants import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from avhubert.decode.alignment import AlignedWord
from avhubert.errors import ConfigError
from avhubert.live.activity import CONTEXT, AudioActivity, Segmenter, Window, speaking
from avhubert.live.agreement import Agreement
from avhubert.live.engine import LiveEngine, WindowFeatures
from avhubert.live.features import AudioFeatures, VideoFeatures
from avhubert.live.load import Load
from avhubert.live.mouths import MouthTracker, Person
from avhubert.live.records import FINAL, NOTICE, PARTIAL, AudioBlock, LiveEvent, LiveWord, VideoFrame
from avhubert.live.speaker import VoiceLevels, speaking_person
from avhubert.live.timeline import FrameTimeline, Origin, SampleTimeline
from avhubert.model.frontends import STEM_RADIUS
from avhubert.transcription.modality import AUTO, CHOICES, PREFERENCE
from avhubert.transcription.segmenter import SILENT, STILL, movement

SEGMENT_STEP = 2  # frames between decisions where utterances begin and end
PATIENCE = 12  # frames for which one stream waits for the other
LONGEST_PATIENCE = 3 * FRAME_RATE  # the same, after the other was found to be late
MIN_WINDOW = 8  # frames with which an utterance is read first


@dataclass(frozen=True)
class Request:
    """A window to read.

    Attributes:
        window: Which frames.
        features: What the engine reads.
        modality: The streams in it.
        person: Number of the speaker; None without video.
    """

    window: Window
    features: WindowFeatures
    modality: str
    person: int | None


class LiveStream:
    """The state of one stream.

    Attributes:
        load: Whether the machine keeps up.
        retracted: Number of words that were shown and taken back.
    """

    def __init__(self, engine: LiveEngine, tracker: MouthTracker | None, modality: str, load: Load) -> None:
        """Begin a stream.

        Args:
            engine: The recognizer.
            tracker: Follows the mouths; None: frames are mouth crops.
            modality: Streams to read: 'av', 'a', 'v', or 'auto': those that are usable.
            load: Measures the work.

        Raises:
            ConfigError: The modality is unknown, or the recognizer was not trained for it.
        """
        if modality not in CHOICES:
            raise ConfigError(f"unknown modality '{modality}'; known: {', '.join(CHOICES)}")
        if modality != AUTO and modality not in engine.modalities:
            raise ConfigError(
                f"the model was not trained for modality '{modality}'; it reads: {', '.join(engine.modalities)}"
            )
        self.load = load
        self.retracted = 0
        self._engine = engine
        self._modality = modality
        self._tracker = tracker
        self._origin = Origin()
        self._frame_times, self._sample_times = FrameTimeline(self._origin), SampleTimeline(self._origin)
        self._audio: AudioActivity | None = None
        self._audio_features: AudioFeatures | None = None
        self._levels: VoiceLevels | None = None
        self._unlevelled = np.zeros(0, np.int16)
        self._crops: Person | None = None  # of a stream of mouth crops
        self._has_video = False
        self._video: dict[int, VideoFeatures] = {}  # by person
        self._segmenter = Segmenter(engine.longest)
        self._agreement = Agreement()
        self._counted = -1.0  # seconds; words of the utterance before end there
        self._position = 0  # frame of the last decision
        self._read = 0  # frame where the last window ended
        self._patience = PATIENCE
        self._stalled: set[str] = set()
        self._notices: list[str] = []
        self._reported: dict[str, int] = {"frames": 0, "samples": 0}

    @property
    def reads_video(self) -> bool:
        """Whether frames are of use; a stream whose model reads no lips takes none."""
        return self._tracker is not None

    # ----------------------------------------------------------------------- input
    def push(self, frames: Iterable[VideoFrame], audio: AudioBlock | None) -> int:
        """Take frames and samples; by how many frames the stream is longer now.

        Raises:
            ConfigError: A timestamp is not a number, or the samples or the frames have a wrong shape.
        """
        before = max(self._video_end, self._audio_end)
        for frame in frames:
            self._check(frame)
            self._has_video = True
            self._stalled.discard("video")
            for image in self._frame_times.push(frame):
                self._take_image(image)
        if audio is not None and len(audio.samples):
            self._begin_audio()
            self._stalled.discard("audio")
            missing, samples = self._sample_times.push(audio)
            self._take_silence(missing)
            self._take_samples(samples, True)
        self._wait()
        return max(0, max(self._video_end, self._audio_end) - before)

    def finish(self) -> None:
        """No frame and no sample will follow: make everything that was received readable."""
        if self._has_video:
            for image in self._frame_times.fill(self._frame_times.end + 1):
                self._take_image(image)
        if self._audio is not None:
            rest = -self._sample_times.end % SAMPLES_PER_FRAME
            self._take_silence(self._sample_times.fill(self._sample_times.end + rest + SAMPLES_PER_FRAME))
        if self._tracker is not None:
            self._tracker.flush()
        self._fill(max(self._video_end, self._audio_end))

    def _check(self, frame: VideoFrame) -> None:
        shape, image = frame.image.shape, frame.image
        size = CLIP_SIZES[self._engine.preparation.crop]
        if self._tracker is None and shape != (size, size):
            raise ConfigError(f"a mouth crop is {list(shape)}; it must be gray, uint8 [{size}, {size}]")
        if self._tracker is not None and (image.ndim != 3 or shape[2] != 3):
            raise ConfigError(f"a frame is {list(shape)}; it must be RGB, uint8 [height, width, 3]")
        if image.dtype != np.uint8:
            raise ConfigError(f"a frame is of {image.dtype}; it must be uint8")

    def _begin_audio(self) -> None:
        if self._audio is None:
            self._audio, self._levels = AudioActivity(), VoiceLevels()
            self._audio_features = AudioFeatures(self._engine)

    def _take_image(self, image: np.ndarray | None) -> None:
        if self._tracker is not None:
            self._tracker.push(image, self._frame_times.end % self.load.track_every == 0)
            return
        if self._crops is None:
            self._crops = Person.begin(1, self._frame_times.end - 1, CLIP_SIZES[self._engine.preparation.crop])
        if image is None:
            self._crops.repeat()
            return
        self._crops.append(image, True, 0.0, 1.0)

    def _take_silence(self, count: int) -> None:
        for first in range(0, count, SAMPLE_RATE):
            self._take_samples(np.zeros(min(SAMPLE_RATE, count - first), np.int16), False)

    def _take_samples(self, samples: np.ndarray, present: bool) -> None:
        assert self._audio is not None
        assert self._audio_features is not None
        assert self._levels is not None
        self._audio.push(samples, present)
        self._audio_features.push(samples)
        self._unlevelled = np.concatenate([self._unlevelled, samples])
        whole = len(self._unlevelled) // SAMPLES_PER_FRAME
        self._levels.push(self._unlevelled[: whole * SAMPLES_PER_FRAME], whole)
        self._unlevelled = self._unlevelled[whole * SAMPLES_PER_FRAME :]

    # ----------------------------------------------------------------------- how far both streams are
    @property
    def people(self) -> list[Person]:
        """Everybody whose face was seen recently."""
        if self._tracker is not None:
            return self._tracker.people
        return [] if self._crops is None else [self._crops]

    @property
    def _video_end(self) -> int:
        """Number of frames whose mouths are known, or known not to be visible."""
        return self._frame_times.end if self._tracker is None else self._tracker.end

    @property
    def _audio_end(self) -> int:
        if self._audio is None:
            return 0
        assert self._audio_features is not None
        return min(self._audio.end, self._audio_features.features.end)

    @property
    def _end(self) -> int:
        """Number of frames for which both streams are known, as far as they are there."""
        ends = []
        if self._has_video:
            ends.append(max(0, self._video_end - STEM_RADIUS))
        if self._audio is not None:
            ends.append(self._audio_end)
        return min(ends, default=0)

    def _wait(self) -> None:
        """Go on without a stream that does not deliver; wait longer for one that is only late."""
        if not self._has_video or self._audio is None:
            return
        for times in (self._frame_times, self._sample_times):
            if times.late_seconds:
                late = round(times.late_seconds * FRAME_RATE)
                self._patience = min(LONGEST_PATIENCE, max(self._patience, late + PATIENCE))
                times.late_seconds = 0.0
        video, audio = self._video_end, self._audio_end
        for name, behind in (("video", audio - video), ("audio", video - audio)):
            if behind > (0 if name in self._stalled else self._patience):
                self._stalled.add(name)
                self._fill(max(video, audio))

    def _fill(self, end: int) -> None:
        if self._has_video:
            margin = 0 if self._tracker is None else self._tracker.received - self._tracker.end
            for image in self._frame_times.fill(end + margin):
                self._take_image(image)
        if self._audio is not None:
            self._take_silence(self._sample_times.fill(end * SAMPLES_PER_FRAME))

    # ----------------------------------------------------------------------- what to read
    def requests(self, last: bool = False) -> Iterator[Request]:
        """The windows to read now: of utterances that have ended, and the newest one of an utterance that goes on.

        Args:
            last: Whether `finish` was called.
        """
        end = max(self._video_end, self._audio_end) if last else self._end
        while self._position + SEGMENT_STEP <= end or (last and self._position < end):
            self._position = min(self._position + SEGMENT_STEP, end)
            ended = self._decide(self._position)
            if ended is not None:
                yield from self._request(ended)
        current = self._segmenter.current
        if last:
            flushed = self._segmenter.flush(end)
            if flushed is not None:
                yield from self._request(flushed)
        elif (
            current is not None
            and self._position - current.start >= MIN_WINDOW
            and self._position - self._read >= self.load.step
        ):
            self._read = self._position
            yield from self._request(Window(current, self._position, self._position, False))

    def _decide(self, end: int) -> Window | None:
        """The window of the utterance that is known to have ended when the stream is `end` frames long."""
        count = min(end, CONTEXT)
        audio = self._audio if self._audio is not None and self._hears(end, count) else None
        moved = self._movement(end, count)
        if audio is None and moved is None:
            return self._segmenter.update(np.zeros(count, bool), np.zeros(count), end)
        speech = speaking(audio, moved, end, count)
        activity = moved if audio is None else audio.level[end - count : end]
        assert activity is not None
        return self._segmenter.update(speech, activity, end)

    def _hears(self, end: int, count: int) -> bool:
        """Whether the audio of the last frames was recorded, at least in part, and is not read by request."""
        assert self._audio is not None
        recent = self._audio.present[max(end - count, end - 2 * FRAME_RATE) : end]
        return self._modality != "v" and bool(recent.any())

    def _movement(self, end: int, count: int) -> np.ndarray | None:
        """Movement of the lips of whoever moves them most, float [count]; None if no face is there."""
        if self._modality == "a" or not self._has_video:
            return None
        if self._crops is not None:  # crops do not say how far the mouth is open: all is read
            return np.full(count, 2 * STILL)
        moved: np.ndarray | None = None
        for person in self.people:
            first = max(end - count, person.mouths.start)
            if person.mouths.end < end or first >= end or not person.detected[first:end].any():
                continue
            height = float(np.median(person.height[first:end]))
            values = movement(person.lip_gap[first:end], height) * person.detected[first:end]
            padded = np.pad(values, (count - len(values), 0))
            moved = padded if moved is None else np.maximum(moved, padded)
        return moved

    def _request(self, window: Window) -> Iterator[Request]:
        start, end = window.utterance.start, window.end
        person = None
        if self._has_video and self._modality != "a":
            levels = None if self._levels is None else self._levels.levels
            person = speaking_person(self.people, levels, start, end)
        heard = self._audio is not None and self._modality != "v" and self._audible(start, end)
        usable = ("a" if heard else "") + ("v" if person is not None else "")
        modality = self._choose(usable)
        if not modality:
            self._agreement = Agreement()
            return
        features = WindowFeatures(
            self._audio_features.features[start:end].copy() if "a" in modality and self._audio_features else None,
            self._mouth_features(person, start, end) if "v" in modality and person is not None else None,
        )
        number = None if person is None else person.number
        yield Request(window, features, modality, number)

    def _audible(self, start: int, end: int) -> bool:
        assert self._audio is not None
        present = self._audio.present[start:end]
        return bool(present.mean() >= 0.5) and float(self._audio.level[start:end].max()) > SILENT

    def _choose(self, usable: str) -> str:
        """The modality of a window in which these streams are usable; '' if none of the model's is."""
        if self._modality != AUTO:
            return self._modality if set(self._modality) <= set(usable) else ""
        possible = [m for m in PREFERENCE[usable] if m in self._engine.modalities and set(m) <= set(usable)]
        return possible[0] if possible else ""

    def _mouth_features(self, person: Person, start: int, end: int) -> np.ndarray:
        features = self._video.get(person.number)
        if features is None or not features.features.start <= start <= features.features.end:
            features = self._video[person.number] = VideoFeatures(self._engine, person, start)
            known = {other.number for other in self.people}
            self._video = {number: value for number, value in self._video.items() if number in known}
        features.until(end)
        values: np.ndarray = features.features[start:end].copy()
        return values

    # ----------------------------------------------------------------------- what was read
    def accept(self, request: Request, words: Sequence[AlignedWord]) -> Iterator[LiveEvent]:
        """Take the words of a window; the events that follow."""
        window, utterance = request.window, request.window.utterance
        origin = self._origin.seconds or 0.0
        begin = utterance.start / FRAME_RATE
        after = self._counted if utterance.core_start > utterance.start else -1.0
        before = window.core_end / FRAME_RATE if window.core_end < window.end else float("inf")
        live = tuple(
            LiveWord(word.word, begin + word.start_seconds, begin + word.end_seconds, word.confidence)
            for word in words
            if after < begin + (word.start_seconds + word.end_seconds) / 2 < before
        )
        if window.final:
            self._agreement.finish(live)
            self._counted = live[-1].end if live else utterance.core_start / FRAME_RATE
        elif not self._agreement.update(live, window.end / FRAME_RATE):
            return
        yield LiveEvent(
            FINAL if window.final else PARTIAL,
            utterance.number,
            origin + utterance.core_start / FRAME_RATE,
            origin + window.core_end / FRAME_RATE,
            tuple(
                LiveWord(word.text, origin + word.start, origin + word.end, word.confidence)
                for word in self._agreement.shown
            ),
            request.modality,
            request.person,
        )
        if window.final:
            self.retracted += self._agreement.retracted
            self._agreement = Agreement()

    def notices(self, message: str | None) -> Iterator[LiveEvent]:
        """The messages since the last call; `message`: one more."""
        messages = [] if message is None else [message]
        dropped = {"frames": self._frame_times.dropped, "samples": self._sample_times.dropped}
        for name, count in dropped.items():
            new = count - self._reported[name]
            if new and (self._reported[name] == 0 or new >= (FRAME_RATE if name == "frames" else SAMPLE_RATE)):
                self._reported[name] = count
                messages.append(f"{count} {name} came too late and were not read")
        now = (self._origin.seconds or 0.0) + self._position / FRAME_RATE
        for text in messages:
            yield LiveEvent(NOTICE, self._segmenter.number, now, now, message=text)
