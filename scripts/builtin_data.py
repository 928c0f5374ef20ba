"""Training data of the built-in model: trimmed GRID clips, synthetic faces and voices in one data directory."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import sentencepiece

from avhubert.constants import BOS, EOS, PAD, SAMPLE_RATE, SAMPLES_PER_FRAME, UNK
from avhubert.corpora.alignments import SILENCES
from avhubert.corpora.synthetic.text import GRID, sentence
from avhubert.corpora.synthetic.voice import ACCENTS, HIGH_VARIANTS, LOW_VARIANTS, Voice, say
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.manifest import Clip, read_manifest, write_manifest
from avhubert.data.tokenizer import Tokenizer
from avhubert.data.transcripts import read_phones_of, read_transcripts
from avhubert.data.video import read_gray, write_video
from avhubert.files import write_text

# voices of espeak-ng beside those of the synthetic corpus
MORE_VARIANTS = (
    *("klatt", "klatt2", "klatt3", "klatt4", "Andy", "Annie", "Denis", "Gene", "Mario", "Michael", "Reed", "Storm"),
    *("adam", "anika", "aunty", "belinda", "boris", "david", "grandma", "iven", "john", "linda", "max", "pablo"),
    *("quincy", "rob", "shelby", "steph", "travis", "victor", "zac"),
)
TRIMMED_CRF = 10  # of x264: nearly lossless, because the clips are encoded a second time
QUIET, LOUD = 0.2, 0.9  # factors of the amplitude of synthetic voices
SPEECH_LEVEL = 200  # of int16; quieter samples at both ends are cut off
MAX_SILENCE_SECONDS = 0.6  # around a synthetic voice


@dataclass(frozen=True)
class Utterance:
    """A clip with its text."""

    clip: Clip
    text: str


def read_split(directory: Path, split: str) -> list[Utterance]:
    """The clips and transcripts of a split; none if the directory does not have it."""
    manifest = directory / f"{split}.tsv"
    if not manifest.is_file():
        return []
    clips = read_manifest(manifest)
    texts = read_transcripts(manifest.with_suffix(".wrd"), clips)
    return [Utterance(clip, text) for clip, text in zip(clips, texts, strict=True)]


def write_split(directory: Path, split: str, utterances: Sequence[Utterance], tokenizer: Tokenizer) -> None:
    """Write a split of a data directory; a clip that is repeated gets ids of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.model").write_bytes(tokenizer.serialized)
    seen: dict[str, int] = {}
    clips = []
    for utterance in utterances:
        number = seen[utterance.clip.id] = seen.get(utterance.clip.id, 0) + 1
        name = utterance.clip.id if number == 1 else f"{utterance.clip.id}_copy{number}"
        clips.append(replace(utterance.clip, id=name))
    write_manifest(directory / f"{split}.tsv", clips, directory)
    write_text(directory / f"{split}.wrd", "".join(f"{utterance.text}\n" for utterance in utterances))


def repeated(utterances: Sequence[Utterance], times: Mapping[str, int]) -> list[Utterance]:
    """Every utterance as often as its speaker is to be heard in an epoch."""
    return [utterance for utterance in utterances for _ in range(times.get(utterance.clip.speaker, 1))]


def trimmed(directory: Path, split: str, out: Path, most: int, seed: int) -> list[Utterance]:
    """The clips of a split without most of the silence around the words.

    Args:
        directory: A data directory of `avhubert prepare grid`, with the word of each frame.
        split: Its split.
        out: The folder of the new clips; those that are there already are not made again.
        most: The largest number of frames that are kept before the first and after the last word.
        seed: Seed of these numbers.
    """
    utterances = read_split(directory, split)
    words = read_phones_of(directory / f"{split}.phn", [utterance.clip for utterance in utterances])
    result = []
    for number, utterance in enumerate(utterances):
        clip = utterance.clip
        spoken = [frame for frame, word in enumerate(words[number]) if word not in SILENCES] if words else []
        rng = np.random.default_rng([seed, number])
        before, after = (int(frames) for frames in rng.integers(most // 2, most + 1, 2))
        start = max(0, spoken[0] - before) if spoken else 0
        end = min(clip.video_frames, spoken[-1] + 1 + after) if spoken else clip.video_frames
        video, audio = out / f"{clip.id}.mp4", out / f"{clip.id}.wav"
        samples = read_audio(clip.audio)[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
        if not (video.is_file() and audio.is_file()):
            video.parent.mkdir(parents=True, exist_ok=True)
            write_video(video, list(read_gray(clip.video)[start:end]), crf=TRIMMED_CRF)
            write_wav(audio, samples)
        part = replace(clip, video=video, audio=audio, video_frames=end - start, audio_samples=len(samples))
        result.append(Utterance(part, utterance.text))
    return result


def make_voices(out: Path, count: int, seed: int) -> list[Utterance]:
    """GRID sentences by many voices of espeak-ng, audio only; existing files are not made again."""
    variants = (*LOW_VARIANTS, *HIGH_VARIANTS, *MORE_VARIANTS)
    result = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        words = sentence(rng)
        accent, variant = (names[rng.integers(len(names))] for names in (ACCENTS, variants))
        pitch, span, rate = (int(rng.integers(low, high)) for low, high in ((10, 90), (20, 80), (130, 215)))
        path = out / f"{index // 1000:03}" / f"{index:06}.wav"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            voice = Voice(f"{accent}+{variant}" if variant else accent, pitch, span, rate)
            # the speakers of GRID are British
            write_wav(path, _recorded(say(["zed" if word == "z" else word for word in words], voice).samples, rng))
        clip = Clip(f"voices/{index:06}", path, path, 0, len(read_audio(path)), f"voice{index}")
        result.append(Utterance(clip, " ".join(words)))
    return result


def _recorded(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A synthetic voice with silence of random length around it, another loudness, and a little noise."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > SPEECH_LEVEL)
    speech = samples[loud[0] : loud[-1] + 1].astype(np.float64) if len(loud) else samples.astype(np.float64)
    before, after = (int(seconds * SAMPLE_RATE) for seconds in rng.uniform(0.1, MAX_SILENCE_SECONDS, 2))
    padded = np.pad(speech, (before, after))
    noisy = padded * rng.uniform(QUIET, LOUD) + rng.normal(0, rng.uniform(1, 20), len(padded))
    return noisy.clip(-32768, 32767).astype(np.int16)


def word_tokenizer() -> Tokenizer:
    """A tokenizer with one symbol per word of GRID.

    With pieces of words, the model invents words. W is a symbol too, because a tokenizer must know all characters.
    """
    rng = np.random.default_rng(1)
    sentences = [" ".join(words[rng.integers(len(words))] for words in GRID) for _ in range(4000)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter([*sentences, "w"]),
        model_writer=model,
        model_type="word",
        vocab_size=sum(map(len, GRID)) + 5,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        bos_id=BOS, pad_id=PAD, eos_id=EOS, unk_id=UNK,
        num_threads=1,
        minloglevel=2,
    )  # fmt: skip
    return Tokenizer(model.getvalue())
