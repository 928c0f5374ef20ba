"""A corpus of raw videos → mouth clips, sound, manifests, transcripts, tokenizer, report: parallel and restartable.

What happened to every input is kept in `DST/journal/`: a finished clip isn't done twice, a rejected one is tried again.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avhubert.constants import FRAME_RATE, MOUTH_SIZE, NUM_SPECIALS, SAMPLE_RATE, SAMPLES_PER_FRAME
from avhubert.corpora import folder, lrs3, voxceleb2
from avhubert.corpora.sources import Rejected, SourceClip, phones_per_frame, read_ids
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.labels import write_dictionary
from avhubert.data.manifest import REJECTED, Clip, write_manifest
from avhubert.data.tokenizer import train_tokenizer
from avhubert.data.transcripts import write_phones, write_transcripts
from avhubert.data.video import probe, read_frames, read_gray, rgb_to_gray, write_video
from avhubert.errors import ConfigError, DataError, MediaError, one_of
from avhubert.files import atomic_path, lock_directory, output_directory, write_text
from avhubert.prepare.executors import EXECUTORS
from avhubert.prepare.rejection import MAX_FACES, MAX_LENGTH_DIFFERENCE, MAX_SECONDS, Watch, check, too_long
from avhubert.report import Page, contact_sheet, progress

if TYPE_CHECKING:
    from avhubert.prepare.mouth import MouthTrack

CORPORA: dict[str, Callable[..., tuple[list[SourceClip], list[Rejected]]]] = {
    "lrs3": lrs3.find,
    "vox2": voxceleb2.find,
    "folder": folder.find,
}


MAX_REJECTED = 0.5  # share of the inputs; past it the corpus or the way it is read is wrong


TEMPORARY = re.compile(r"\.(?P<stem>.+)\.\w{8}\.part(?P<suffix>\.\w+)")  # the name of a file that is being written


VALID_SHARE = 0.1


SHEET = 40  # clips on the report's contact sheet


LISTED = 200  # rows of the report's tables


@dataclass(frozen=True)
class Done:
    """What became of a source clip. `reason` is empty for a usable one."""

    id: str
    reason: str = ""
    frames: int = 0
    samples: int = 0
    found_share: float = 0.0
    warnings: tuple[str, ...] = ()
    source: str = ""  # size and time of the input and of its landmarks: a changed one is done again
    others: tuple[float, ...] = ()  # found_share of the other faces that became clips


@dataclass(frozen=True)
class Summary:
    """How a preparation ended."""

    usable: int
    rejected: Counter = field(default_factory=Counter)  # reason → count
    directories: tuple[Path, ...] = ()
    waiting_for: int = 0  # clips of other shards
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.usable} clips are ready"]
        if self.rejected:
            lines.append(f"{self.rejected.total()} inputs were left out, each named in rejected.tsv:")
            lines += [f"  {count} × {reason}" for reason, count in self.rejected.most_common()]
        if self.waiting_for:
            lines.append(f"manifests wait for {self.waiting_for} clips of other shards")
        lines += [*self.notes, *(f"data directory: {directory}" for directory in self.directories)]
        return "\n".join(lines)


def prepare(
    corpus: str,
    src: str | Path,
    dst: str | Path,
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
    seed: int = 0,
    vocab_size: int = 1000,
    max_rejected: float = MAX_REJECTED,
    max_seconds: float = MAX_SECONDS,
    valid_list: Path | None = None,
    english_ids: Path | None = None,
    landmarks: str | Path | None = None,
    executor: str = "local",
) -> Summary:
    """Prepare a corpus into `dst`; can be killed and started again. Shard (I, N) does every N-th clip.

    The data directories come last, whole, and don't depend on the number of workers: `lrs3` writes DST/30h and
    DST/433h, `vox2` DST/en and DST/all, `folder` DST itself. What can't be used is named in DST/rejected.tsv with its
    reason: among others clips longer than `max_seconds`. No manifests are written when more than the share
    `max_rejected` of the inputs is left out. `valid_list` (lrs3) and `english_ids` (vox2) name files with one id a
    line; without a list the validation clips are drawn by `seed`. `landmarks`: a folder with a file of 68 points a
    frame for every clip (or its video), see `landmarks.read_landmarks`, or 'dlib:' and a folder with dlib's model
    files, instead of the default detector. `executor`: 'local' processes or a 'ray' cluster.

    Raises:
        ConfigError: `dst` can't be written, another process is preparing into it, or a list is for another corpus.
        DataError: unknown corpus, no clips in `src`, none that can be used, or too many that can't.
    """
    if corpus not in CORPORA:
        raise DataError(one_of("corpus", corpus, CORPORA))
    for option, value, only in (("--valid-list", valid_list, "lrs3"), ("--english-ids", english_ids, "vox2")):
        if value is not None and corpus != only:
            raise ConfigError(f"{option} is for the corpus {only}, not for {corpus}")
    if executor not in EXECUTORS:
        raise ConfigError(one_of("executor", executor, EXECUTORS))
    if landmarks is not None:
        folder = _dlib_models(landmarks) or Path(landmarks)
        if not folder.is_dir():
            raise ConfigError(f"--landmarks names {folder}, which is not a folder")
    find = CORPORA[corpus]
    clips, rejected = find(Path(src)) if english_ids is None else find(Path(src), english_ids)
    valid = _listed(clips, rejected, valid_list) if valid_list else None
    dst = output_directory(dst).resolve()
    index, count = shard
    (dst / "journal").mkdir(exist_ok=True)
    journal = dst / "journal" / f"{index}-of-{count}.jsonl"
    with lock_directory(dst) if count == 1 else lock_directory(_made(dst / "journal" / f"{index}-of-{count}.lock.d")):
        _remove_leftovers(
            path
            for clip in clips[index::count]
            for name in face_ids(clip.id, MAX_FACES if clip.every_face else 1)
            for path in media_paths(dst, name)
        )
        if count == 1:
            for found in (*dst.glob(".*.part.*"), *dst.glob("*/.*.part.*")):
                found.unlink(missing_ok=True)
        _do_all(clips[index::count], dst, journal, workers, max_seconds, landmarks, executor)
    done = _read_journals(dst, clips)
    missing = [clip for clip in clips if clip.id not in done]
    outcomes = {
        **{one.id: one.reason for one in rejected},
        **{one.id: one.reason for one in done.values() if one.reason},
    }
    counted = Counter(_kind(reason) for reason in outcomes.values())
    usable = [clip for clip in clips if clip.id in done and not done[clip.id].reason]
    if missing:
        return Summary(len(usable), counted, waiting_for=len(missing))
    usable = _with_other_faces(usable, done)
    _write_rejected(dst, outcomes)
    if not usable:
        first = sorted(outcomes.items())[0]
        raise DataError(f"none of the {len(outcomes)} clips of {src} can be used; the first, {first[0]}: {first[1]}")
    directories, notes, more = _splits(corpus, usable, dst, seed, valid)
    for one in more:
        counted[_kind(one.reason)] += 1
        outcomes[one.id] = one.reason
    left = [clip for clip in usable if clip.id not in outcomes]
    _write_rejected(dst, outcomes)
    _write_report(dst, corpus, left, done, outcomes, {clip.id: clip for clip in clips})
    inputs = len(left) + len(outcomes)
    if len(outcomes) > max_rejected * inputs:
        reason, number = counted.most_common(1)[0]
        raise DataError(
            f"{len(outcomes)} of {inputs} inputs were left out, more than the share {max_rejected:g} that may be, most "
            f"often ({number} times): {reason}; see {dst / 'report.html'}, then mend them or raise --max-rejected"
        )
    notes += _write_directories(directories, done, dst, vocab_size)
    return Summary(len(left), counted, tuple(directories), notes=tuple(notes))


def _with_other_faces(clips: Sequence[SourceClip], done: dict[str, Done]) -> list[SourceClip]:
    """The clips, each followed by those of its other faces, which are entered in `done`; nobody knows what they say."""
    found = []
    for clip in clips:
        found.append(clip)
        speaker = done[clip.id]
        others = face_ids(clip.id, 1 + len(speaker.others))[1:]
        for name, share in zip(others, speaker.others, strict=True):
            found.append(replace(clip, id=name, text=None, phones=None))
            done[name] = replace(speaker, id=name, found_share=share, warnings=(), others=())
    return found


def _write_rejected(dst: Path, outcomes: dict[str, str]) -> None:
    write_text(dst / REJECTED, "".join(f"{name}\t{why}\n" for name, why in sorted(outcomes.items())))


def _made(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def _kind(reason: str) -> str:
    """A reason without the names and numbers of one clip, to count by."""
    return reason.split(" (", 1)[0].split(": ", 1)[0]


# --------------------------------------------------------------------------- one clip
def prepare_clip(
    clip: SourceClip, dst: Path, max_seconds: float = MAX_SECONDS, landmarks: str | Path | None = None
) -> Done:
    """Write DST/video/ID.mp4 and DST/audio/ID.wav, or say why not. Runs in a worker."""
    from avhubert.prepare.mouth import crops

    source = _fingerprint(clip, landmarks)
    try:
        media = probe(clip.path)
        if not media.has_video:
            raise MediaError("no video track")
        sound = clip.path if media.has_audio else clip.path.with_suffix(".wav")
        if not sound.is_file():
            raise MediaError("no audio track")
        length = (media.duration_seconds if clip.end is None else clip.end) - clip.start
        if length > max_seconds + MAX_LENGTH_DIFFERENCE:  # known from the header, before anything is decoded
            raise MediaError(too_long(max_seconds))
        # a header may lie: no more is read than may be used
        latest = clip.start + max_seconds + 1 if clip.end is None else clip.end
        samples = read_audio(sound, clip.start, latest)
        watch = Watch(round(max_seconds * FRAME_RATE))
        is_crop = (media.width, media.height) == (MOUTH_SIZE, MOUTH_SIZE)  # a mouth clip already: taken as it is
        whole_crop = is_crop and clip.start == 0 and clip.end is None
        mouths: list[MouthTrack] = []
        shown: list[Iterable[np.ndarray]] = []
        if is_crop:
            shown = [[rgb_to_gray(picture) for picture in watch.over(read_frames(clip.path, clip.start, clip.end))]]
        else:
            mouths = _watched(clip, watch, samples, landmarks)
            shown = [crops(clip.path, mouth, clip.start, clip.end) for mouth in mouths]
        shares = [mouth.found_share for mouth in mouths] or [1.0]
        frames = watch.frames
        check(watch, shares[0], len(samples) / SAMPLE_RATE)
        samples = samples[: frames * SAMPLES_PER_FRAME]
        for name, pictures in zip(face_ids(clip.id, len(shown)), shown, strict=True):
            video, audio = media_paths(dst, name)
            for path in (video, audio):
                path.parent.mkdir(parents=True, exist_ok=True)
            if whole_crop and clip.path.suffix == ".mp4" and media.fps == FRAME_RATE:
                with atomic_path(video) as temporary:
                    shutil.copyfile(clip.path, temporary)
            else:
                write_video(video, pictures)
            write_wav(audio, samples)
    except MediaError as error:
        return Done(clip.id, _without_path(str(error), clip.path), source=source)
    warnings = mouths[0].warnings if mouths else ()
    return Done(clip.id, "", frames, len(samples), shares[0], warnings, source, tuple(shares[1:]))


def face_ids(identifier: str, faces: int) -> list[str]:
    """Ids of a source clip's faces: the speaker's has its own."""
    return [identifier, *(f"{identifier}_face{number}" for number in range(2, faces + 1))]


def _watched(clip: SourceClip, watch: Watch, samples: np.ndarray, landmarks: str | Path | None) -> list[MouthTrack]:
    """The mouths, or MediaError; where no face is found because the picture is black or frozen, it says that."""
    from avhubert.prepare.mouth import find_mouths

    points = model = None
    if landmarks is not None:
        if models := _dlib_models(landmarks):
            from avhubert.prepare.detectors.dlib import dlib68

            model = dlib68(models)
        else:
            points = _stored(clip, Path(landmarks))
    try:
        found = find_mouths(clip.path, clip.start, clip.end, model, watch, samples, points)
        return found if clip.every_face else found[:1]
    except MediaError as error:
        if watch.finished and watch.fault():
            raise MediaError(watch.fault()) from error
        raise


def _dlib_models(landmarks: str | Path) -> Path | None:
    """The folder of dlib's model files, if they are to find the landmarks."""
    kind, _, folder = str(landmarks).partition(":")
    return Path(folder) if kind == "dlib" else None


def _stored(clip: SourceClip, folder: Path) -> list[np.ndarray | None]:
    """The clip's landmarks: a file of its own, or its part of the whole video's."""
    from avhubert.prepare.landmarks import landmark_file, read_landmarks

    whole = _whole_video(clip)
    if clip.id == whole or landmark_file(folder, [clip.id]):
        return read_landmarks(folder, [clip.id])
    first = round(clip.start * FRAME_RATE)
    return read_landmarks(folder, [whole])[first : None if clip.end is None else round(clip.end * FRAME_RATE)]


def _whole_video(clip: SourceClip) -> str:
    """The name that the landmarks of the clip's whole video have."""
    return (Path(clip.id).parent / clip.path.stem).as_posix()


def media_paths(dst: Path, identifier: str) -> tuple[Path, Path]:
    """Where a clip's mouth video and sound are."""
    return dst / "video" / f"{identifier}.mp4", dst / "audio" / f"{identifier}.wav"


def _without_path(reason: str, path: Path) -> str:
    """A reason that begins with its kind, so that reasons can be counted."""
    return " ".join(reason.replace(str(path), "the file").split())


def _fingerprint(clip: SourceClip, landmarks: str | Path | None) -> str:
    """What tells whether the inputs of a clip are those that it was made from."""
    files, kind = [clip.path], ""
    if landmarks is not None:
        from avhubert.prepare.landmarks import landmark_file

        kind = "-landmarks"
        if _dlib_models(landmarks):
            kind = "-dlib"
        elif file := landmark_file(Path(landmarks), [clip.id, _whole_video(clip)]):
            files.append(file)
    return "-".join(f"{found.st_size}-{found.st_mtime_ns}" for found in (file.stat() for file in files)) + kind


# --------------------------------------------------------------------------- all clips
def _do_all(
    clips: Sequence[SourceClip],
    dst: Path,
    journal: Path,
    workers: int | None,
    max_seconds: float,
    landmarks: str | Path | None,
    executor: str,
) -> None:
    before = _read_journals(dst, clips)
    todo = [
        clip
        for clip in clips
        if clip.id not in before
        or before[clip.id].reason
        or before[clip.id].source != _fingerprint(clip, landmarks)
        or not all(
            path.is_file()
            for name in face_ids(clip.id, 1 + len(before[clip.id].others))
            for path in media_paths(dst, name)
        )
    ]
    if not todo:
        return
    # fetches the face models, or says what is missing, once and before the workers start
    if landmarks is None:
        from avhubert.prepare.landmarks import BlazeFace

        BlazeFace()
    elif models := _dlib_models(landmarks):
        from avhubert.prepare.detectors.dlib import Dlib68

        Dlib68(models)
    with open(journal, "a", encoding="utf-8") as handle, progress() as bar:
        task = bar.add_task("preparing clips", total=len(clips), completed=len(clips) - len(todo), unit="clips")
        count = min(workers or os.cpu_count() or 1, len(todo))
        for done in EXECUTORS[executor](prepare_clip, todo, count, dst, max_seconds, landmarks):
            handle.write(json.dumps(asdict(done), ensure_ascii=False) + "\n")
            handle.flush()
            bar.advance(task)


def _remove_leftovers(files: Iterable[Path]) -> None:
    """Remove what a killed run left of these files under their temporary names; called before any worker starts."""
    wanted = set(files)
    for place in {path.parent for path in wanted}:
        for found in place.glob(".*.part.*"):
            match = TEMPORARY.fullmatch(found.name)
            if match and place / (match["stem"] + match["suffix"]) in wanted:
                found.unlink(missing_ok=True)


def _read_journals(dst: Path, clips: Sequence[SourceClip]) -> dict[str, Done]:
    """The last record of every clip; a torn last line (killed while writing) doesn't count."""
    wanted = {clip.id for clip in clips}
    found: dict[str, Done] = {}
    for journal in sorted((dst / "journal").glob("*.jsonl")):
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                kept = json.loads(line)
            except ValueError:
                continue
            if kept["id"] in wanted and not (kept["reason"] and kept["id"] in found and not found[kept["id"]].reason):
                found[kept["id"]] = Done(
                    **{**kept, "warnings": tuple(kept["warnings"]), "others": tuple(kept.get("others", ()))}
                )
    return found


# --------------------------------------------------------------------------- data directories
def _draw_valid(clips: Sequence[SourceClip], seed: int, share: float = VALID_SHARE) -> set[str]:
    """Ids of the validation clips: a tenth, at least one."""
    names = sorted(clip.id for clip in clips)
    return set(random.Random(seed).sample(names, max(1, round(share * len(names)))))


def _listed(clips: Sequence[SourceClip], rejected: Sequence[Rejected], path: Path) -> set[str]:
    """Ids of the clips that a list names, those of a video in pieces too; DataError if it names what isn't there."""
    names = read_ids(path)
    by_video = {clip.id: f"{clip.id.rpartition('/')[0]}/{clip.path.stem}" for clip in clips if clip.split != "test"}
    unknown = names - set(by_video) - set(by_video.values()) - {one.id for one in rejected}
    if unknown:
        raise DataError(
            f"{path} names {len(unknown)} ids that the corpus has neither in pretrain/ nor in trainval/, such as "
            f"'{min(unknown)}'; ids are paths without suffix"
        )
    return {one for one, video in by_video.items() if one in names or video in names}


def _splits(
    corpus: str, clips: Sequence[SourceClip], dst: Path, seed: int, listed: set[str] | None = None
) -> tuple[dict[Path, dict[str, list[SourceClip]]], list[str], list[Rejected]]:
    """Data directory → split → clips; notes; and clips that no split takes."""
    by_split: dict[str, list[SourceClip]] = {}
    for clip in clips:
        by_split.setdefault(clip.split, []).append(clip)
    if corpus == "lrs3":
        labelled = by_split.get("trainval") or by_split.get("pretrain", [])
        if len(labelled) < 2:
            raise DataError(
                "trainval/ and pretrain/ have fewer than 2 usable clips; training needs one and validation another"
            )
        valid = _draw_valid(labelled, seed) if listed is None else listed
        if not any(clip.id in valid for clip in labelled) or all(clip.id in valid for clip in labelled):
            raise DataError("of the clips that can be used all or none are for validation; training needs some of each")
        small = [clip for clip in labelled if clip.id not in valid]
        large = [
            *(clip for clip in by_split.get("pretrain", []) if clip.id not in valid),
            *by_split.get("trainval", []),
        ]
        large = [clip for clip in large if clip.id not in valid]
        others = {"valid": [clip for clip in labelled if clip.id in valid], "test": by_split.get("test", [])}
        return {dst / "30h": {"train": small, **others}, dst / "433h": {"train": large, **others}}, [], []
    if corpus == "vox2":
        english = by_split.get("en", [])
        notes = (
            []
            if english
            else ["no English ids (--english-ids, or english.txt beside the videos): DST/en is not written"]
        )
        found = {}
        for name, chosen in (("en", english), ("all", list(clips))):
            if len(chosen) > 1:
                valid = _draw_valid(chosen, seed, 0.01)
                found[dst / name] = {
                    "train": [clip for clip in chosen if clip.id not in valid],
                    "valid": [clip for clip in chosen if clip.id in valid],
                }
        if not found:
            raise DataError("only one clip can be used; training needs one and validation another")
        return found, notes, []
    rejected = []
    if any(clip.text for clip in clips) and not all(clip.text for clip in clips):
        rejected = [
            Rejected(
                clip.id,
                "another face beside the one that says the transcript"
                if folder.FACE.search(clip.id)
                else "no transcript beside it while other videos have one",
            )
            for clip in clips
            if not clip.text
        ]
        clips = [clip for clip in clips if clip.text]
    given = {split: [clip for clip in clips if clip.split == split] for split in folder.SPLITS}
    rest = [clip for clip in clips if not clip.split]
    notes = (
        []
        if any(clip.text for clip in clips)
        else ["no transcripts: this data can be learned from, but not fine-tuned on"]
    )
    if len(rest) >= 3:
        for name in ("test", "valid"):
            if not given[name]:
                drawn = _draw_valid(rest, seed)
                given[name] = [clip for clip in rest if clip.id in drawn]
                rest = [clip for clip in rest if clip.id not in drawn]
    given["train"] += rest
    return {dst: given}, notes, rejected


def _write_directories(
    directories: dict[Path, dict[str, list[SourceClip]]], done: dict[str, Done], dst: Path, vocab_size: int
) -> list[str]:
    """Every data directory, with one tokenizer from the largest training split; returns what a user should know."""
    notes = []
    largest = max((splits["train"] for splits in directories.values()), key=len)
    texts = [clip.text for clip in largest if clip.text]
    tokenizer = train_tokenizer(texts, vocab_size) if texts else None
    if tokenizer is not None and tokenizer.vocab_size < vocab_size:
        notes.append(f"the tokenizer has {tokenizer.vocab_size} symbols: the text supports no more than that")
    for directory, splits in directories.items():
        directory.mkdir(parents=True, exist_ok=True)
        if tokenizer is not None:
            with atomic_path(directory / "tokenizer.model") as temporary:
                temporary.write_bytes(tokenizer.serialized)
            counts = Counter(i for clip in splits["train"] for i in tokenizer.encode(clip.text or ""))
            symbols = enumerate(tokenizer.symbols[NUM_SPECIALS:], NUM_SPECIALS)
            write_dictionary(directory / "dict.wrd.txt", {symbol: counts[i] for i, symbol in symbols})
        for split, chosen in splits.items():
            if chosen:
                _write_split(directory, split, sorted(chosen, key=lambda clip: clip.id), done, dst)
    return notes


def _write_split(directory: Path, split: str, clips: Sequence[SourceClip], done: dict[str, Done], dst: Path) -> None:
    """Transcripts and phones first: a split whose manifest is there is whole."""
    if all(clip.text for clip in clips):
        write_transcripts(directory / f"{split}.wrd", [clip.text or "" for clip in clips])
    if all(clip.phones for clip in clips):
        rows = [phones_per_frame(clip.phones, done[clip.id].frames, clip.start) for clip in clips if clip.phones]
        write_phones(directory / f"{split}.phn", rows)
    manifest = [
        Clip(clip.id, *media_paths(dst, clip.id), done[clip.id].frames, done[clip.id].samples) for clip in clips
    ]
    write_manifest(directory / f"{split}.tsv", manifest, dst)


# --------------------------------------------------------------------------- the report
def _write_report(
    dst: Path,
    corpus: str,
    clips: Sequence[SourceClip],
    done: dict[str, Done],
    outcomes: dict[str, str],
    sources: dict[str, SourceClip],
) -> None:
    page = Page(f"Preparation of {corpus}")
    seconds = sum(done[clip.id].frames for clip in clips) / FRAME_RATE
    page.text(f"{len(clips)} clips, {seconds / 3600:.2f} hours, are ready; {len(outcomes)} inputs were left out.")
    if outcomes:
        page.table(("reason", "inputs"), Counter(_kind(reason) for reason in outcomes.values()).most_common())
        page.table(("left out", "why"), sorted(outcomes.items())[:LISTED])
        if len(outcomes) > LISTED:
            page.text(f"The first {LISTED} of {len(outcomes)}; all of them are in rejected.tsv.")
        seen = [one for one in sorted(outcomes, key=lambda one: (_kind(outcomes[one]), one)) if one in sources]
        pictures = ((one, _first_picture(sources[one])) for one in seen[:SHEET])
        shown = [(one, picture) for one, picture in pictures if picture is not None]
        if shown:
            page.heading("What was left out, by reason")
            for one, picture in shown:
                page.image(picture, f"{one}: {outcomes[one]}")
    page.histogram([done[clip.id].frames / FRAME_RATE for clip in clips], "length, seconds")
    page.histogram([100 * done[clip.id].found_share for clip in clips], "frames in which the face was found, %")
    noted = [(clip.id, warning) for clip in clips for warning in done[clip.id].warnings]
    if noted:
        page.heading("Warnings")
        page.table(("clip", "warning"), noted[:LISTED])
    page.heading("Mouth clips, those with the fewest faces first")
    worst = sorted(clips, key=lambda clip: (done[clip.id].found_share, clip.id))[:SHEET]
    middles = []
    for clip in worst:
        frames = read_gray(media_paths(dst, clip.id)[0])
        middles.append(frames[len(frames) // 2])
    page.image(contact_sheet(middles), "the middle frame of each")
    page.write(dst / "report.html")


def _first_picture(clip: SourceClip) -> np.ndarray | None:
    """Its first frame, at most 160 pixels high, RGB; None if it has none."""
    try:
        picture = next(read_frames(clip.path, clip.start, clip.end), None)
    except MediaError:
        return None
    return None if picture is None else picture[:: -(-picture.shape[0] // 160), :: -(-picture.shape[0] // 160)]
