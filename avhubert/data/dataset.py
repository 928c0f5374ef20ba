"""The data set: reads clips, applies the random choices of `data.augment`, and makes batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from avhubert.config.input_preparation import PUBLISHED, InputPreparation
from avhubert.config.schema import DataConfig
from avhubert.constants import EOS, FRAME_RATE, MODALITIES
from avhubert.data.audio import read_audio
from avhubert.data.augment import Augmentation
from avhubert.data.collate import Batch, Example, batch_frames, collate, empty_batch
from avhubert.data.corruption import corrupt
from avhubert.data.labels import LabelInfo
from avhubert.data.manifest import DRIFT_SECONDS, Clip
from avhubert.data.noise import mix, snr_of
from avhubert.data.preparation import prepare_streams
from avhubert.data.shards import clip_frames, clip_samples
from avhubert.data.tokenizer import Tokenizer
from avhubert.data.variation import change_images, change_speed_of_frames, change_speed_of_samples, frames_at_speed
from avhubert.errors import DataError, MediaError


class ClipDataset:
    """Loads clips and makes batches of them. Audio-visual, audio-only and video-only clips can share a data set.

    `data.augment` makes all random choices.

    Args:
        clips: that `select` chose; indices in the methods refer to this list.
        config: data settings.
        training: augment the clips; otherwise the crop is centred and the noise depends on the clip's id only.
        seed: of all random choices.
        labels: per label set the result of `load_labels`: class rows in the order of `clips`, and LabelInfo.
        texts: transcripts in the order of `clips`; None: none.
        tokenizer: of the transcripts; None without transcripts.
        noise: wav files; None: no noise.
        noise_speakers: whose voices these files contain, as far as it is known.
        tolerant: `batch` skips unreadable clips and lists them in `left_out`; otherwise it raises an error.
        corruption: the corruption of every clip's video, a name in `data.corruption`; None: no corruption.
        preparation: how the model's inputs are made.

    Raises:
        DataError: the number of label rows or transcripts differs from the number of clips.
        ConfigError: noise_num exceeds the number of noise files, of all or of those without the voice of a speaker; a
            kind of video corruption is unknown.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        config: DataConfig,
        training: bool,
        seed: int,
        labels: Sequence[tuple[Sequence[np.ndarray], LabelInfo]] = (),
        texts: Sequence[str] | None = None,
        tokenizer: Tokenizer | None = None,
        noise: Sequence[Path] | None = None,
        tolerant: bool = False,
        corruption: str | None = None,
        noise_speakers: Mapping[Path, frozenset[str]] | None = None,
        preparation: InputPreparation = PUBLISHED,
    ) -> None:
        assert (texts is None) == (tokenizer is None), "transcripts and a tokenizer go together"
        for name, rows in [*(("label rows", rows) for rows, _ in labels), ("transcripts", texts)]:
            if rows is not None and len(rows) != len(clips):
                raise DataError(f"there are {len(rows)} {name} for {len(clips)} clips; make them again")
        self.clips = list(clips)
        self.config = config
        self.augmentation = Augmentation(config, training, seed, noise, noise_speakers)
        self.augmentation.check_speakers(clips)
        self._labels = list(labels)
        self._texts = texts
        self._tokenizer = tokenizer
        self._tolerant = tolerant
        self._corruption = corruption
        self.preparation = preparation
        self._videos = [index for index, clip in enumerate(self.clips) if clip.video_frames]

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def label_infos(self) -> list[LabelInfo]:
        """How each label set was made."""
        return [info for _, info in self._labels]

    def labels(self, number: int) -> list[np.ndarray]:
        """Class indices int [labels] of each clip in label set `number`."""
        return list(self._labels[number][0])

    def load(self, index: int, epoch: int = 0) -> Example:
        """Read clip `index` and augment it for epoch `epoch`.

        Raises:
            MediaError: a file cannot be read; the error has the clip's id.
            DataError: the length of the video differs from the manifest by 0.1 s or more.
        """
        clip = self.clips[index]
        streams = clip.streams(MODALITIES[self.augmentation.modality(clip, index, epoch)])
        try:
            frames = self._frames(clip, index, epoch, "audio" in streams) if "video" in streams else None
            samples = self._samples(clip, index, epoch) if "audio" in streams else None
            length = frames_at_speed(clip.frames, self.augmentation.speed(index, epoch))
            audio, video = prepare_streams(
                samples,
                frames,
                self.preparation,
                length,
                self.augmentation.crop_and_flip(index, epoch),
                self.augmentation.voice(index, epoch),
            )
        except MediaError as error:
            raise MediaError(f"clip '{clip.id}': {error}", clip_id=clip.id) from error
        stream = audio if video is None else video
        length = length if stream is None else len(stream)
        self.augmentation.mask_time([stream for stream in (audio, video) if stream is not None], index, epoch)
        tokens = None
        if self._texts is not None and self._tokenizer is not None:
            tokens = [*self._tokenizer.encode(self._texts[index]), EOS]
        return Example(index, epoch, clip.id, length, audio, video, [rows[index] for rows, _ in self._labels], tokens)

    def _frames(self, clip: Clip, index: int, epoch: int, with_audio: bool) -> np.ndarray:
        """The frames of the clip, varied in training; beside audio perhaps those of another clip."""
        other = self.augmentation.wrong_video(index, epoch, self._videos) if with_audio else None
        if other is None:
            frames = _read_frames(clip)
        else:
            frames = _read_frames(self.clips[other])
            frames = frames[np.minimum(np.arange(clip.video_frames), len(frames) - 1)]  # its last frame stays
        if self._corruption is not None:
            frames = corrupt(frames, self._corruption, clip.id)
        speed = self.augmentation.speed(index, epoch)
        if speed != 1:
            frames = change_speed_of_frames(frames, speed)
        images = self.augmentation.images(index, epoch)
        if images is not None:
            frames = change_images(frames, images)
        corruption = self.augmentation.corruption(clip, index, epoch)
        return frames if corruption is None else corrupt(frames, *corruption)

    def _samples(self, clip: Clip, index: int, epoch: int) -> np.ndarray:
        """The samples of the clip, varied in training, perhaps with noise."""
        samples = clip_samples(clip.audio)
        speed = self.augmentation.speed(index, epoch)
        if speed != 1:
            samples = change_speed_of_samples(samples, speed)
        noise = self.augmentation.noise(clip, index, epoch)
        if noise is not None:
            samples = mix(samples, [read_audio(file) for file in noise.files], noise.snr)
        return samples

    def measured_snr(self, index: int) -> float | None:
        """Measure the SNR in dB of a clip's mixture in evaluation; None if no noise is mixed in."""
        clip = self.clips[index]
        noise = self.augmentation.noise_in_evaluation(clip.id, clip.speaker)
        if noise is None or not clip.audio_samples:
            return None
        samples, sources = clip_samples(clip.audio), [read_audio(file) for file in noise.files]
        return snr_of(mix(samples, sources, noise.snr), samples, sources)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Make a batch of examples.

        With `data.pad` they are padded to the longest, otherwise cropped to the shortest; `data.crop_frames` is the
        maximum. A cropped example starts at frame 0, or with `data.random_crop` at a random frame, the same for all its
        streams and labels.
        """
        size = batch_frames([example.frames for example in examples], self.config.pad, self.config.crop_frames)
        starts = [self.augmentation.start(e.id, e.frames, size, e.index, e.epoch) for e in examples]
        return collate(examples, size, starts, [info.rate for _, info in self._labels])

    def batch(self, indices: Iterable[int], epoch: int = 0) -> Batch:
        """Load the clips of `indices` for epoch `epoch` and make a batch of them.

        Raises:
            MediaError, DataError: a clip cannot be read, unless the data set is tolerant.
        """
        examples, left_out = [], {}
        for index in indices:
            try:
                examples.append(self.load(index, epoch))
            except (MediaError, DataError) as error:
                if not self._tolerant:
                    raise
                left_out[self.clips[index].id] = str(error)
        batch = self.collate(examples) if examples else empty_batch()
        batch.left_out = left_out
        return batch


def _read_frames(clip: Clip) -> np.ndarray:
    """The frames of a clip, uint8 [T, H, W]. DataError if the manifest names another length."""
    frames = clip_frames(clip.video)
    if abs(len(frames) - clip.video_frames) / FRAME_RATE >= DRIFT_SECONDS:
        raise DataError(
            f"clip '{clip.id}': {clip.video} has {len(frames)} frames but the manifest says {clip.video_frames}; "
            "prepare the clip again"
        )
    return frames
