"""A corpus of raw videos → mouth clips, sound, manifests, transcripts, tokenizer, report: parallel and restartable.

What happened to every input is kept in `DST/journal/`: a finished clip isn't done twice, a rejected one is tried again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from avhubert.config.defaults import MAX_CLIP_SECONDS, MAX_REJECTED, VOCAB_SIZE
from avhubert.corpora import folder, lrs3, voxceleb2
from avhubert.corpora.sources import Rejected, SourceClip
from avhubert.data.manifest import REJECTED
from avhubert.errors import ConfigError, DataError, one_of
from avhubert.files import lock_directory, output_directory, write_text
from avhubert.prepare.cleanup import remove_leftovers
from avhubert.prepare.clip import dlib_folder, face_ids, fingerprint, media_paths, prepare_clip
from avhubert.prepare.executors.registry import EXECUTORS
from avhubert.prepare.journal import read_journals
from avhubert.prepare.records import Done, Summary
from avhubert.prepare.rejection import MAX_FACES
from avhubert.prepare.report import kind_of, write_report
from avhubert.prepare.splits import listed_ids, make_splits, write_directories
from avhubert.report import progress

CORPORA: dict[str, Callable[..., tuple[list[SourceClip], list[Rejected]]]] = {
    "lrs3": lrs3.find,
    "vox2": voxceleb2.find,
    "folder": folder.find,
}


def prepare(
    corpus: str,
    src: str | Path,
    dst: str | Path,
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
    seed: int = 0,
    vocab_size: int = VOCAB_SIZE,
    max_rejected: float = MAX_REJECTED,
    max_seconds: float = MAX_CLIP_SECONDS,
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
        folder = dlib_folder(landmarks) or Path(landmarks)
        if not folder.is_dir():
            raise ConfigError(f"--landmarks names {folder}, which is not a folder")
    find = CORPORA[corpus]
    clips, rejected = find(Path(src)) if english_ids is None else find(Path(src), english_ids)
    valid = listed_ids(clips, rejected, valid_list) if valid_list else None
    dst = output_directory(dst).resolve()
    index, count = shard
    (dst / "journal").mkdir(exist_ok=True)
    journal = dst / "journal" / f"{index}-of-{count}.jsonl"
    with lock_directory(dst) if count == 1 else lock_directory(_made(dst / "journal" / f"{index}-of-{count}.lock.d")):
        remove_leftovers(
            path
            for clip in clips[index::count]
            for name in face_ids(clip.id, MAX_FACES if clip.every_face else 1)
            for path in media_paths(dst, name)
        )
        if count == 1:
            for found in (*dst.glob(".*.part.*"), *dst.glob("*/.*.part.*")):
                found.unlink(missing_ok=True)
        _do_all(clips[index::count], dst, journal, workers, max_seconds, landmarks, executor)
    done = read_journals(dst, clips)
    missing = [clip for clip in clips if clip.id not in done]
    outcomes = {
        **{one.id: one.reason for one in rejected},
        **{one.id: one.reason for one in done.values() if one.reason},
    }
    counted = Counter(kind_of(reason) for reason in outcomes.values())
    usable = [clip for clip in clips if clip.id in done and not done[clip.id].reason]
    if missing:
        return Summary(len(usable), counted, waiting_for=len(missing))
    usable = _with_other_faces(usable, done)
    _write_rejected(dst, outcomes)
    if not usable:
        first = sorted(outcomes.items())[0]
        raise DataError(f"none of the {len(outcomes)} clips of {src} can be used; the first, {first[0]}: {first[1]}")
    directories, notes, more = make_splits(corpus, usable, dst, seed, valid)
    for one in more:
        counted[kind_of(one.reason)] += 1
        outcomes[one.id] = one.reason
    left = [clip for clip in usable if clip.id not in outcomes]
    _write_rejected(dst, outcomes)
    write_report(dst, corpus, left, done, outcomes, {clip.id: clip for clip in clips})
    inputs = len(left) + len(outcomes)
    if len(outcomes) > max_rejected * inputs:
        reason, number = counted.most_common(1)[0]
        raise DataError(
            f"{len(outcomes)} of {inputs} inputs were left out, more than the share {max_rejected:g} that may be, most "
            f"often ({number} times): {reason}; see {dst / 'report.html'}, then mend them or raise --max-rejected"
        )
    notes += write_directories(directories, done, dst, vocab_size)
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
    before = read_journals(dst, clips)
    todo = [
        clip
        for clip in clips
        if clip.id not in before
        or before[clip.id].reason
        or before[clip.id].source != fingerprint(clip, landmarks)
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
        from avhubert.prepare.detectors.blazeface import BlazeFace

        BlazeFace()
    elif models := dlib_folder(landmarks):
        from avhubert.prepare.detectors.dlib import Dlib68

        Dlib68(models)
    with open(journal, "a", encoding="utf-8") as handle, progress() as bar:
        task = bar.add_task("preparing clips", total=len(clips), completed=len(clips) - len(todo), unit="clips")
        count = min(workers or os.cpu_count() or 1, len(todo))
        for done in EXECUTORS[executor](prepare_clip, todo, count, dst, max_seconds, landmarks):
            handle.write(json.dumps(asdict(done), ensure_ascii=False) + "\n")
            handle.flush()
            bar.advance(task)
