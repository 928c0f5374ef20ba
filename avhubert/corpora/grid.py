"""The GRID corpus (Cooke et al., 2006): 34 speakers, 1 000 commands of six words each, in the folders of any mirror.

The nearest folder of a file that is named after a speaker (`s1`, `s1_50kHz`) says who speaks, its name says what:
`bbaf2n` is "bin blue at f two now". So the folders between do not matter: `s1/*.mpg`, `s1/video/mpg_6000/*.mpg`,
`alignments/s1/*.align`, `s1/align/*.align`, `audio_25k/s1/*.wav` are all found.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avhubert.constants import FRAME_RATE
from avhubert.corpora import archives
from avhubert.corpora.alignments import SILENCES, SUFFIX, read_alignment
from avhubert.corpora.sources import Listing, Rejection, SourceClip, clip_id, require_clips, require_folder
from avhubert.data.discovery import AUDIO_EXTENSIONS, MEDIA_EXTENSIONS, Skipped, find_recordings
from avhubert.errors import DataError, list_names

_log = logging.getLogger(__name__)

FRAMES = 75  # of every video of the corpus, except damaged ones
LEAST_FRAMES = 65  # of a video without `.align`: 99 of 100 sentences have ended by then
CONTRADICTION = "the name and the .align say different words"
SECOND_VIDEO = "a second recording of a sentence, of which the largest file is used"
AUDIO_ONLY = "a sentence without a video; --streams any or a takes its audio"
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
# what each letter of a file name says
_SLOTS: tuple[dict[str, str], ...] = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},  # w, the only long name, is not in the corpus
    {"z" if word == "zero" else str(digit): word for digit, word in enumerate(_DIGITS)},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
_SPEAKER = re.compile(r"(?:s|speaker[ _-]?)0*([1-9]\d{0,2})(?![a-z0-9])", re.IGNORECASE)


def sentence(code: str) -> str | None:
    """The words that a file name spells, such as 'bin blue at f two now' for 'bbaf2n'; None if it is no such name."""
    if len(code) != len(_SLOTS):
        return None
    words = [slot.get(letter) for slot, letter in zip(_SLOTS, code, strict=True)]
    return " ".join(word for word in words if word) if all(words) else None


def speaker_of(path: Path, src: Path) -> str | None:
    """The speaker, such as 's1', by the nearest folder of `path`, up to `src`, that is named after one."""
    for name in (*reversed(path.relative_to(src).parts[:-1]), src.absolute().name):
        if match := _SPEAKER.match(name):
            return f"s{match[1]}"
    return None


def speaker_order(speaker: str) -> tuple[int, str]:
    """Sorts s2 before s10."""
    digits = "".join(filter(str.isdigit, speaker))
    return (int(digits) if digits else 0, speaker)


@dataclass
class _Sentence:
    """The files of one sentence of one speaker."""

    videos: list[Path] = field(default_factory=list)
    audios: list[Path] = field(default_factory=list)


def find(src: str | Path, modality: str = "av") -> Listing:
    """One clip for each sentence of each speaker below `src`, with the id SPEAKER/NAME whatever the folders are.

    Args:
        src: The folder of the corpus, of a part of it, or of one speaker.
        modality: The streams of the clips; sentences that have no video (speaker s21) become clips for 'a' and 'any'.

    Raises:
        DataError: `src` is not a folder or contains no sentence.
    """
    src = Path(src)
    require_folder(src)
    found = find_recordings(src, MEDIA_EXTENSIONS | {SUFFIX})
    rejections: list[Rejection] = []
    alignments = {(speaker_of(path, src) or "", path.stem.lower()): path for path in found.files if _is_alignment(path)}
    sentences = _sentences(src, (path for path in found.files if not _is_alignment(path)), rejections)
    clips: list[SourceClip] = []
    for (speaker, name), files in sorted(sentences.items(), key=lambda item: (speaker_order(item[0][0]), item[0][1])):
        identifier = clip_id(f"{speaker}/{name}")
        path = _choose(files, modality)
        if path is None:
            rejections.append(Rejection(identifier, AUDIO_ONLY, AUDIO_ONLY, is_input=False))
            continue
        rejections += [
            Rejection(clip_id(second.relative_to(src).as_posix()), SECOND_VIDEO, SECOND_VIDEO, is_input=False)
            for second in files.videos
            if path in files.videos and second != path
        ]
        try:
            transcript = _transcript(name, alignments.get((speaker, name)) or alignments.get(("", name)))
        except DataError as error:
            rejections.append(Rejection.from_error(identifier, error))
            continue
        clips.append(
            SourceClip(
                identifier,
                path,
                "",
                text=transcript.text,
                phones=transcript.alignment,
                speaker=speaker,
                audio=files.audios[0] if files.audios else None,
                expected_frames=FRAMES,
                spoken_until=transcript.spoken_until,
            )
        )
    _report(clips, rejections)
    return require_clips(clips, rejections, src, "no GRID sentences", _with_archives(found.skipped))


def _sentences(src: Path, paths: Iterable[Path], rejections: list[Rejection]) -> dict[tuple[str, str], _Sentence]:
    """The files by speaker and lower-case name; files without a speaker are added to `rejections`."""
    sentences: dict[tuple[str, str], _Sentence] = {}
    for path in paths:
        speaker = speaker_of(path, src)
        if speaker is None:
            reason = "no folder on its path is named after a speaker (s1, s2, …)"
            rejections.append(Rejection(clip_id(path.relative_to(src).as_posix()), reason, reason))
            continue
        files = sentences.setdefault((speaker, path.stem.lower()), _Sentence())
        (files.videos if path.suffix.lower() not in AUDIO_EXTENSIONS else files.audios).append(path)
    return sentences


def _is_alignment(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX


def _choose(files: _Sentence, modality: str) -> Path | None:
    """The file that the clip is made of: the largest video; an audio file for audio alone; None: nothing fits."""
    if files.audios and (modality == "a" or (modality == "any" and not files.videos)):
        return files.audios[0]
    return max(files.videos, key=lambda path: path.stat().st_size, default=None)


@dataclass(frozen=True)
class _Transcript:
    """The words of a sentence.

    Attributes:
        text: The words.
        alignment: The `.align`; None if there is none.
        spoken_until: Seconds at which the last word ends.
    """

    text: str
    alignment: Path | None
    spoken_until: float


def _transcript(name: str, alignment: Path | None) -> _Transcript:
    """The words that the name spells, else those of the `.align`.

    Raises:
        DataError: They contradict, the `.align` is malformed, or the name spells nothing and there is no `.align`.
    """
    spelled = sentence(name)
    if alignment is None:
        if spelled is None:
            raise DataError(
                f"its name '{name}' spells no sentence (such as bbaf2n), and there is no {name}{SUFFIX}",
                kind="no transcript: the name spells no sentence and there is no .align",
            )
        return _Transcript(spelled, None, LEAST_FRAMES / FRAME_RATE)
    words = [word for word in read_alignment(alignment) if word.text not in SILENCES]
    aligned = " ".join(word.text for word in words)
    if spelled is not None and aligned != spelled:
        raise DataError(
            f"its name spells '{spelled}', but {alignment.name} says '{aligned}'; remove the wrong one",
            kind=CONTRADICTION,
        )
    return _Transcript(aligned, alignment, words[-1].end)


def _with_archives(skipped: Sequence[Skipped]) -> list[Skipped]:
    """What was skipped, archives with the sentence how to unpack them; unpacked ones are left out."""
    named: list[Skipped] = []
    for item in skipped:
        if not archives.is_archive(item.path):
            named.append(item)
        elif reason := archives.advice(item.path):
            _log.warning("%s is %s", item.path, reason)
            named.append(Skipped(item.path, reason))
    return named


def _report(clips: Sequence[SourceClip], rejections: Sequence[Rejection]) -> None:
    """Log what is missing in the corpus and is no error."""
    without = [clip.id for clip in clips if clip.phones is None]
    if without:
        _log.warning(
            "%d sentences have no .align (%s): their text is that of their names, their word times are unknown",
            *(len(without), list_names(without)),
        )
    audio_only = [rejection.id for rejection in rejections if rejection.kind == AUDIO_ONLY]
    if audio_only:
        _log.warning(
            "%d sentences have audio but no video (%s); --streams any takes them too",
            *(len(audio_only), list_names(audio_only)),
        )
