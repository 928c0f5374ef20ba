"""The command `prepare`: a corpus of videos to mouth clips, audio, manifests, transcripts, tokenizer and report.

The outcome of every clip is written to `DST/journal/`. A second run prepares only clips that are not finished, and
tries rejected ones again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avhubert.config.command_defaults import MAX_CLIP_SECONDS, MAX_REJECTED, STALL_SECONDS, VOCAB_SIZE
from avhubert.config.input_preparation import MEAN_FACE
from avhubert.corpora.registry import check_corpus, find_clips
from avhubert.corpora.sources import Listing, SourceClip
from avhubert.data.media import AUTOMATIC, StreamChoice
from avhubert.errors import ConfigError, DataError, one_of
from avhubert.files import lock_directory, output_directory
from avhubert.platforms import usable_cores
from avhubert.prepare.cleanup import remove_directory_leftovers, remove_leftovers
from avhubert.prepare.clip import face_ids, input_fingerprint, is_current, media_paths, prepare_clip
from avhubert.prepare.detectors.selection import LandmarkSource
from avhubert.prepare.directories import write_directories
from avhubert.prepare.executors.registry import EXECUTORS
from avhubert.prepare.journal import open_journal, read_journals
from avhubert.prepare.log import append_error, rejection_of
from avhubert.prepare.parts import divide_at_cuts, is_divided
from avhubert.prepare.records import ClipResult, PreparedClip, Summary
from avhubert.prepare.rejection import MAX_FACES, NO_AUDIO, NO_FACE, NO_VIDEO
from avhubert.prepare.report import count_kinds, try_report, write_rejected
from avhubert.prepare.splits import assign_splits, check_split, read_valid_ids
from avhubert.processes import Failure
from avhubert.report import progress


@dataclass(frozen=True)
class _ClipSettings:
    """How the clips are prepared."""

    workers: int | None
    executor: str
    landmarks: LandmarkSource
    max_seconds: float
    streams: StreamChoice
    stall_seconds: float
    modality: str

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise ConfigError(one_of("executor", self.executor, EXECUTORS))


@dataclass(frozen=True)
class _OutputSettings:
    """How the data directories are made of the prepared clips."""

    corpus: str
    src: Path
    seed: int
    vocab_size: int
    max_rejected: float
    valid_ids: set[str] | None
    modality: str
    split: str | None
    crop: str


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
    streams: StreamChoice = AUTOMATIC,
    stall_seconds: float = STALL_SECONDS,
    modality: str = "av",
    split: str | None = None,
    speakers: str | Path | None = None,
    crop: str = MEAN_FACE,
) -> Summary:
    """Prepare a corpus; a killed run resumes when it is started again.

    The data directories do not depend on the number of workers or shards. Rejected inputs are named in
    DST/rejected.tsv with their reason, tracebacks of unexpected errors are in DST/errors.log.

    Args:
        corpus: `lrs3` writes DST/30h and DST/433h, `vox2` DST/en and DST/all, `grid` a folder by split, `folder` DST.
        src: The corpus.
        dst: The output folder.
        workers: Number of processes; by default one per core.
        shard: (I, N): prepare every N-th clip from the I-th on.
        seed: Seed of drawn splits.
        vocab_size: Number of symbols of the tokenizer.
        max_rejected: If a larger share of the inputs is rejected, no manifests are written.
        max_seconds: Longer clips are rejected.
        valid_list: For `lrs3`: file with the ids of the validation clips, one per line; default: drawn.
        english_ids: For `vox2`: file with the ids of the English clips, one per line.
        landmarks: Folder with 68 landmarks per frame, or 'dlib:' and the folder of dlib's models; default: built in.
        executor: `local` processes or a `ray` cluster.
        streams: Which of several audio or video streams of a file are read.
        stall_seconds: A clip is rejected if nothing of it is decoded for so long, also while long videos are cut.
        modality: The streams of the clips: 'av', 'a', 'v', or 'any', those that a recording has.
        split: For `grid` 'unseen' (default), 'overlap' or 'speaker:S'; for `folder` 'speakers': in one split each.
        speakers: For `folder`: a table of the speakers, or 'folders', see `corpora.speakers.with_speakers`.
        crop: The kind of mouth clip, a value of `InputPreparation.crop`; models read one kind.

    Raises:
        ConfigError: `dst` cannot be written or is in use, a list or split is for another corpus, or `crop` is unknown
            or cannot be made with `landmarks`.
        DataError: Unknown corpus, no clips in `src`, none usable, or too many rejected.
    """
    check_corpus(corpus, valid_list, english_ids, speakers)
    check_split(corpus, split)
    clip_settings = _ClipSettings(
        workers, executor, LandmarkSource.parse(landmarks, crop), max_seconds, streams, stall_seconds, modality
    )
    listing = find_clips(corpus, Path(src), english_ids, modality, streams, speakers, stall_seconds)
    valid_ids = read_valid_ids(valid_list, listing) if valid_list else None
    dst = _output_folder(dst, src)
    with _lock_shard(dst, shard):
        _prepare_with_parts(listing, dst, shard, clip_settings)
    output_settings = _OutputSettings(
        corpus, Path(src), seed, vocab_size, max_rejected, valid_ids, modality, split, crop
    )
    listing, divided = _with_parts(listing, dst)
    return _write_outputs(listing, read_journals(dst, listing.clips), dst, output_settings, divided)


def _output_folder(dst: str | Path, src: str | Path) -> Path:
    folder = output_directory(dst).resolve()
    if folder == Path(src).resolve():
        raise ConfigError(f"{folder} is the corpus itself; choose another output folder", path=folder)
    return folder


@contextlib.contextmanager
def _lock_shard(dst: Path, shard: tuple[int, int]) -> Iterator[None]:
    """Lock the output folder, or only the shard if there are several. ConfigError if another process has the lock."""
    index, count = shard
    folder = dst if count == 1 else dst / "journal" / f"{index}-of-{count}.lock.d"
    folder.mkdir(parents=True, exist_ok=True)
    with lock_directory(folder):
        yield


def _prepare_with_parts(listing: Listing, dst: Path, shard: tuple[int, int], settings: _ClipSettings) -> None:
    """Prepare the clips of a shard, then the parts of those that are divided at cuts, until none is."""
    taken = {clip.id for clip in listing.clips}
    clips = listing.clips[shard[0] :: shard[1]]
    while True:
        _prepare_clips(clips, dst, shard, settings)
        division = divide_at_cuts(clips, read_journals(dst, clips), taken)
        if not division.divided:
            return
        clips = division.clips


def _with_parts(listing: Listing, dst: Path) -> tuple[Listing, int]:
    """The listing with the parts of divided clips instead of these, and how many clips were divided."""
    taken = {clip.id for clip in listing.clips}
    total = 0
    while True:
        division = divide_at_cuts(listing.clips, read_journals(dst, listing.clips), taken)
        if not division.divided:
            return listing, total
        listing = Listing(division.clips, [*listing.rejections, *division.rejections])
        total += division.divided


def _prepare_clips(clips: Sequence[SourceClip], dst: Path, shard: tuple[int, int], settings: _ClipSettings) -> None:
    """Prepare the clips that are not finished, and write their results to the journal."""
    _remove_leftovers(clips, dst)
    if shard[1] == 1:
        remove_directory_leftovers(dst)
    results = read_journals(dst, clips)
    todo = [clip for clip in clips if not _is_finished(clip, results.get(clip.id), dst, settings)]
    if not todo:
        return
    settings.landmarks.check()
    workers = min(settings.workers or usable_cores(), len(todo))
    run = EXECUTORS[settings.executor]
    clip_settings = (dst, settings.max_seconds, settings.landmarks, settings.streams, settings.modality)
    outcomes = run(prepare_clip, todo, workers, settings.stall_seconds, *clip_settings)
    try:
        with open_journal(dst, shard) as append, progress() as bar, contextlib.closing(outcomes):
            task = bar.add_task("preparing clips", total=len(clips), completed=len(clips) - len(todo), unit="clips")
            for clip, outcome in outcomes:
                result = _failed(clip, outcome, settings) if isinstance(outcome, Failure) else outcome
                if result.traceback:
                    append_error(dst, f"clip {clip.id}, {clip.path}", result.traceback)
                append(result)
                bar.advance(task)
    finally:
        _remove_leftovers(todo, dst)  # of processes that were killed


def _remove_leftovers(clips: Sequence[SourceClip], dst: Path) -> None:
    """Remove half-written files of the clips; to be called while no process works on them."""
    remove_leftovers(
        path
        for clip in clips
        for name in face_ids(clip.id, MAX_FACES if clip.every_face else 1)
        for path in media_paths(dst, name)
    )


def _failed(clip: SourceClip, failure: Failure, settings: _ClipSettings) -> ClipResult:
    """The result of a clip whose process crashed, hung or raised an error."""
    try:
        fingerprint = input_fingerprint(clip, settings.landmarks, settings.streams)
    except OSError:  # the file has vanished
        fingerprint = ""
    return ClipResult(clip.id, rejection_of(clip.id, failure), fingerprint=fingerprint, traceback=failure.traceback)


def _is_finished(clip: SourceClip, result: ClipResult | None, dst: Path, settings: _ClipSettings) -> bool:
    """Whether the clip is usable or divided, its inputs are unchanged, and its files exist."""
    if result is not None and is_divided(clip, result):
        return is_current(
            replace(result, rejection=None), clip, settings.landmarks, settings.streams, settings.modality
        )
    if result is None or not is_current(result, clip, settings.landmarks, settings.streams, settings.modality):
        return False
    names = face_ids(clip.id, 1 + len(result.other_face_shares))
    lengths = (result.frames, result.samples)
    files = (path for name in names for path, length in zip(media_paths(dst, name), lengths, strict=True) if length)
    return all(path.is_file() for path in files)


def _write_outputs(
    listing: Listing, results: Mapping[str, ClipResult], dst: Path, settings: _OutputSettings, divided: int
) -> Summary:
    """Write rejected.tsv, the data directories and the report; nothing while clips of other shards are missing."""
    rejections = {rejection.id: rejection for rejection in listing.rejections}
    rejections |= {result.id: result.rejection for result in results.values() if result.rejection is not None}
    kinds = count_kinds(rejections.values())
    prepared = [PreparedClip(clip, results[clip.id]) for clip in listing.clips if clip.id in results]
    usable = [clip for clip in prepared if clip.result.rejection is None]
    if missing := len(listing.clips) - len(prepared):
        return Summary(len(usable), kinds, waiting_for=missing)
    write_rejected(dst, rejections.values())
    if not usable:
        inputs = [rejection for rejection in rejections.values() if rejection.is_input]
        first = min(inputs, key=lambda rejection: rejection.id)
        raise DataError(
            f"none of the {len(inputs)} clips of {settings.src} can be used; the first, {first.id}: {first.reason}"
            + "".join(f"; {hint}" for hint in _one_stream_hints(kinds, settings.modality))
        )
    clips = [face for clip in usable for face in _with_other_faces(clip)]
    assignment = assign_splits(settings.corpus, clips, dst, settings.seed, settings.valid_ids, settings.split)
    rejections |= {rejection.id: rejection for rejection in assignment.rejections}
    kinds += count_kinds(assignment.rejections)
    clips = [clip for clip in clips if clip.id not in rejections]
    write_rejected(dst, rejections.values())
    too_many = _too_many_rejections(len(clips), kinds, settings.max_rejected, dst)
    notes = [*assignment.notes, *_count_streams(clips, settings.modality), *_one_stream_hints(kinds, settings.modality)]
    if too_many is None:
        notes += write_directories(assignment.directories, dst, settings.vocab_size, settings.crop)
    # after the manifests: a report that cannot be made must not cost them
    sources = {clip.id: clip for clip in listing.clips}
    if others := sum(not rejection.is_input for rejection in rejections.values()):
        notes.append(f"{others} files and folders are no videos; rejected.tsv names each with its reason")
    if divided:
        notes.append(f"{divided} videos without a transcript were divided at cuts between shots with faces")
    notes += try_report(dst, settings.corpus, clips, list(rejections.values()), sources)
    if too_many is not None:
        raise too_many
    return Summary(len(clips), kinds, tuple(assignment.directories), notes=tuple(notes))


def _count_streams(clips: Sequence[PreparedClip], modality: str) -> list[str]:
    """How many clips lack a stream, for the user who asked for any."""
    if modality != "any":
        return []
    missing = {
        "audio": sum(not clip.result.samples for clip in clips),
        "video": sum(not clip.result.frames for clip in clips),
    }
    return [f"{count} clips have no {stream}" for stream, count in missing.items() if count]


def _one_stream_hints(kinds: Mapping[str, int], modality: str) -> list[str]:
    """How to use inputs that were rejected because they lack a stream."""
    count = sum(kinds.get(kind, 0) for kind in (NO_AUDIO, NO_VIDEO, NO_FACE))
    if modality == "any" or not count:
        return []
    return [
        f"--streams any also takes recordings with audio or video alone, which {count} of the rejected inputs may be"
    ]


def _with_other_faces(clip: PreparedClip) -> list[PreparedClip]:
    """The clip, and the clips of its other faces, whose transcript is unknown."""
    shares = clip.result.other_face_shares
    names = face_ids(clip.id, 1 + len(shares))[1:]
    others = [
        PreparedClip(
            replace(clip.source, id=name, text=None, phones=None, speaker=""),
            replace(clip.result, id=name, face_share=share, warnings=(), other_face_shares=()),
        )
        for name, share in zip(names, shares, strict=True)
    ]
    return [clip, *others]


def _too_many_rejections(usable: int, kinds: Counter[str], max_rejected: float, dst: Path) -> DataError | None:
    """The error if more than the share `max_rejected` of the inputs was rejected."""
    inputs = usable + kinds.total()
    if kinds.total() <= max_rejected * inputs:
        return None
    kind, number = kinds.most_common(1)[0]
    return DataError(
        f"{kinds.total()} of {inputs} inputs were rejected, more than the share {max_rejected:g} that is allowed, "
        f"most often ({number} times): {kind}; see {dst / 'report.html'}, then fix them or raise --max-rejected"
    )
