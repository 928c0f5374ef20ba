"""The web page: a video or the camera in; the mouth as the model sees it and the words with their times out.

It works with no internet: fonts are the system's, and the browser is told to load nothing from elsewhere.
"""

from __future__ import annotations

import concurrent.futures
import html
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np
from fastapi import FastAPI

from avhubert.constants import SAMPLES_PER_FRAME
from avhubert.data.audio import read_audio
from avhubert.data.noise import mix
from avhubert.data.video import probe, write_video
from avhubert.errors import AvhubertError
from avhubert.serve.limits import Limits, Refused
from avhubert.serve.media import Checker, Stopped, nameless, refusal
from avhubert.serve.worker import Worker
from avhubert.transcription.pipeline import Transcription
from avhubert.transcription.reader import Chunk, Reader
from avhubert.transcription.transcript import Transcript

if TYPE_CHECKING:
    from avhubert.model.recognizer import Recognizer

AUTO, ALL = "automatic", "all, side by side"
NAMES = {"av": "sound and lips", "a": "sound alone", "v": "lips alone"}
NOISES = ("none", "white noise", "babble of this recording's own voice")
VOICES = 6  # of the babble
MARGIN = 4  # pixels of the 96 × 96 crop that the model doesn't see
SCALE = 3  # of the crop on the page
PICTURE = 320  # pixels of height on the page
KEPT_SECONDS = 600  # uploads and crops are deleted after so long
LOOK = """
#video video {max-height: 17em}
.avh {display: flex; gap: 1.5em; flex-wrap: wrap}
.avh section {flex: 1; min-width: 9em}
.avh h3 {margin: 0 0 .4em 0}
.avh p {line-height: 2.6; font-size: 1.15em; margin: 0}
.avh ruby rt {font-size: .55em; opacity: .7}
.avh small {opacity: .75}
"""
CONSENT = "Only for recordings of people who agreed to it. Nothing is kept: files are deleted within minutes."


@dataclass
class Shown:
    """What one reading gives to the page: the transcript, or why there is none, and what the model saw and heard."""

    transcript: Transcript | None = None
    problem: str = ""
    mouths: list[np.ndarray] = field(default_factory=list)
    heard: list[np.ndarray] = field(default_factory=list)


class NoisyReader(Reader):
    """A reader that adds noise to the audio, and keeps the mouth frames and the audio that it read for the page."""

    def __init__(self, noise: str, snr: float, file: str | Path, use_audio: bool, use_video: bool) -> None:
        super().__init__(file, use_audio, use_video)
        self.shown = Shown()
        self._noise, self._snr = noise, snr

    def read_audio(self, begin: float, end: float) -> np.ndarray | None:
        """Samples between two times in seconds, with noise."""
        samples = super().read_audio(begin, end)
        if samples is None or self._noise == NOISES[0] or not len(samples):
            return samples
        return mix(samples, noises(samples, self._noise), self._snr)

    def read(self, start: int) -> Chunk | None:
        """The chunk that starts at frame `start`; frames that no earlier chunk had are kept."""
        chunk = super().read(start)
        if chunk is not None and chunk.mouth is not None:
            begin = chunk.start - sum(len(mouths) for mouths in self.shown.mouths)  # consecutive chunks overlap
            if begin <= 0:
                self.shown.mouths.append(chunk.mouth[-begin:])
                if chunk.samples is not None:
                    self.shown.heard.append(
                        chunk.samples[-begin * SAMPLES_PER_FRAME : chunk.frames * SAMPLES_PER_FRAME]
                    )
        return chunk


def noises(samples: np.ndarray, kind: str) -> list[np.ndarray]:
    """Noise for a recording int16 [N]: white, or voices: itself backwards, shifted by several amounts."""
    rng = np.random.default_rng(0)
    if kind == NOISES[1]:
        return [(3000 * rng.standard_normal(len(samples))).astype(np.int16)]
    return [np.roll(samples[::-1], int(shift)) for shift in rng.integers(0, len(samples), VOICES)]


def mount(
    app: FastAPI, recognizer: Recognizer, name: str, limits: Limits, worker: Worker, checker: Checker, folder: Path
) -> FastAPI:
    """The page at / of the API's application; `folder`, which is also Gradio's, is for uploads and crops."""
    known = list(recognizer.metadata.supported_modalities())
    choices = [AUTO, *(NAMES[one] for one in known), *([ALL] if len(known) > 1 else [])]
    run = partial(
        answer, recognizer=recognizer, known=known, limits=limits, worker=worker, checker=checker, folder=folder
    )
    with gr.Blocks(title="avhubert", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as page:
        gr.Markdown(f"# avhubert\nWhat is said in a video, from sound and lips. Model: `{name}`. {CONSENT}")
        with gr.Row():
            with gr.Column():
                video = gr.Video(
                    label="A video, or the camera", sources=["upload", "webcam"], elem_id="video", height=PICTURE
                )
                what = gr.Radio(choices, value=AUTO, label="Read from", elem_id="what")
                noise = gr.Radio(list(NOISES), value=NOISES[0], label="Noise added to the sound", elem_id="noise")
                snr = gr.Slider(-10, 20, value=0, step=1, label="Signal-to-noise ratio (dB)", elem_id="snr")
                button = gr.Button("Transcribe", variant="primary", elem_id="transcribe")
            with gr.Column():
                crop = gr.Video(
                    label="The mouth as the model sees it", interactive=False, loop=True, elem_id="crop",
                    height=PICTURE,
                )  # fmt: skip
                said = gr.HTML(elem_id="said")
        button.click(
            run, [video, what, noise, snr], [said, crop], api_visibility="private", concurrency_limit=limits.queue + 1
        )
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        app, page, "/", footer_links=[], show_error=False, ssr_mode=False, theme=theme, css=LOOK,
        allowed_paths=[str(folder)], max_file_size=limits.max_bytes, pwa=False,
    )  # fmt: skip


def answer(
    video: str | None,
    what: str,
    noise: str,
    snr: float,
    *,
    recognizer: Recognizer,
    known: Sequence[str],
    limits: Limits,
    worker: Worker,
    checker: Checker,
    folder: Path,
) -> tuple[str, str | None]:
    """What the button does: HTML of the transcripts, and the file of the mouth's video (None without a face)."""
    if video is None:
        return problem("there is no video yet; choose a file or record one"), None
    asked = list(known) if what == ALL else [next((one for one in known if NAMES[one] == what), "auto")]
    try:
        place = worker.admit()
        work = partial(
            readings, Path(video), recognizer, asked, noise, float(snr), checker, limits.max_seconds, folder
        )  # fmt: skip
        job = worker.submit(place, work)
        try:
            return job.future.result(limits.timeout)
        finally:
            job.give_up()
    except Refused as error:
        return problem(error.sentence), None
    except (Stopped, concurrent.futures.CancelledError):
        return problem("the server is stopping"), None
    except (TimeoutError, concurrent.futures.TimeoutError):
        return problem(f"there was no transcript within the {limits.timeout:g} s that this server allows"), None


def readings(
    path: Path,
    recognizer: Recognizer,
    asked: Sequence[str],
    noise: str,
    snr: float,
    checker: Checker,
    max_seconds: float,
    folder: Path,
    stop: threading.Event,
) -> tuple[str, str | None]:
    """Each of the modalities `asked`, by the one thread that owns the recognizer.

    Raises:
        Refused: the file is of no use at all.
        Stopped: `stop` was set meanwhile.
    """
    checker.check(path, max_seconds, stop)
    found: list[tuple[str, Shown]] = []
    for modality in asked:
        try:
            transcription = Transcription(path, recognizer, modality, reader=partial(NoisyReader, noise, snr))
            for _ in transcription:
                if stop.is_set():
                    raise Stopped
            reader = transcription.reader
            assert isinstance(reader, NoisyReader)
            reader.shown.transcript = transcription.transcript()
            found.append((modality, reader.shown))
        except AvhubertError as error:
            refused = refusal(error, path)
            if len(asked) == 1:
                raise refused from error
            found.append((modality, Shown(problem=refused.sentence)))
    return results(found, path), _mouth_video(found, path, folder)


def _mouth_video(found: Sequence[tuple[str, Shown]], path: Path, folder: Path) -> str | None:
    seen = next((one for _, one in found if one.mouths), None)
    if seen is None:
        return None
    heard = next((one.heard for _, one in found if one.heard), [])
    if not heard and probe(path).has_audio:
        heard = [read_audio(path)]
    mouths = np.concatenate(seen.mouths)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    target = Path(tempfile.mkdtemp(dir=folder)) / "mouth.mp4"
    large = (np.kron(one, np.ones((SCALE, SCALE), np.uint8)) for one in mouths)
    sound = np.concatenate(heard)[: len(mouths) * SAMPLES_PER_FRAME] if heard else None
    write_video(target, large, audio=sound)
    return str(target)


# --------------------------------------------------------------------------- HTML
def problem(sentence: str) -> str:
    """A sentence that says why there is no transcript."""
    return f'<div class="avh" role="alert"><b>{html.escape(sentence)}</b></div>'


def results(found: Sequence[tuple[str, Shown]], path: Path) -> str:
    """The transcripts side by side: each word with its time above it, paler the less certain it is."""
    return f'<div class="avh">{"".join(_section(modality, shown, path) for modality, shown in found)}</div>'


def _section(modality: str, shown: Shown, path: Path) -> str:
    if shown.transcript is None:
        return f"<section><h3>{NAMES.get(modality, modality)}</h3><p><b>{html.escape(shown.problem)}</b></p></section>"
    said = shown.transcript
    words = " ".join(
        f'<ruby style="opacity: {0.35 + 0.65 * word.confidence:.2f}" title="{word.start:.2f}–{word.end:.2f} s, '
        f'confidence {word.confidence:.2f}">{html.escape(word.text)}<rt>{word.start:.2f}</rt></ruby>'
        for word in said.words
    )
    warnings = "".join(f"<br><small>{html.escape(nameless(one, path))}</small>" for one in said.warnings)
    nothing = "<i>nothing was understood</i>"
    return (
        f'<section data-modality="{modality}"><h3>{NAMES[said.modality]}</h3><p>{words or nothing}</p>'
        f"<small>{html.escape(nameless(said.reason, path))}</small>{warnings}</section>"
    )
