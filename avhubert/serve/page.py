"""The web page: takes a video or a recording of the camera, shows the mouth frames and the words with their times.

It needs no internet access: it uses the fonts of the system and loads nothing from other hosts.
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

import gradio as gr
import numpy as np
from fastapi import FastAPI

from avhubert.constants import CROP_SIZE, SAMPLES_PER_FRAME
from avhubert.data.audio import read_audio
from avhubert.data.video import write_video
from avhubert.serve.decoding import Decoder, RemoteReader
from avhubert.serve.limits import PAGE_FILE_SECONDS, RequestError, stopping, timed_out
from avhubert.serve.noise import NO_NOISE, NOISES, Noise, NoisyReader
from avhubert.serve.service import Service
from avhubert.serve.uploads import JobCancelledError
from avhubert.transcription.modality import AUTO
from avhubert.transcription.reader import Chunk
from avhubert.transcription.transcript import Transcript

AUTO_CHOICE, ALL_CHOICE = "automatic", "all, side by side"
NAMES = {"av": "audio and lips", "a": "audio alone", "v": "lips alone"}
SCALE = 3  # of mouth frames on the page
VIDEO_HEIGHT = 320  # pixels, on the page
STYLE = """
#video video {max-height: 17em}
.avh {display: flex; gap: 1.5em; flex-wrap: wrap}
.avh section {flex: 1; min-width: 9em}
.avh h3 {margin: 0 0 .4em 0}
.avh p {line-height: 2.6; font-size: 1.15em; margin: 0}
.avh ruby rt {font-size: .55em; opacity: .7}
.avh small {opacity: .75}
"""
LIVE_FRAME = (
    '<iframe src="live" title="live captions" allow="camera; microphone" style="width: 100%; height: 36em"></iframe>'
)
CONSENT = "Only for recordings of people who agreed to it. Nothing is kept: files are deleted within minutes."


@dataclass
class Reading:
    """The result of one modality on the page.

    Attributes:
        modality: The requested streams: 'auto', 'av', 'a' or 'v'.
        transcript: The transcript; None if there is none.
        problem: Why there is no transcript.
        mouths: Mouth frames, uint8 [T, H, W], of each chunk.
        audio: Samples, int16 [N], of each chunk, with noise.
    """

    modality: str
    transcript: Transcript | None = None
    problem: str = ""
    mouths: list[np.ndarray] = field(default_factory=list)
    audio: list[np.ndarray] = field(default_factory=list)


class PageReader(RemoteReader):
    """A reader that keeps the mouth frames and the audio, with noise, for the page."""

    def __init__(
        self, reading: Reading, noise: Noise, decoder: Decoder, file: str | Path, use_audio: bool, use_video: bool
    ) -> None:  # fmt: skip
        super().__init__(decoder, file, use_audio, use_video, partial(NoisyReader, noise))
        self._reading = reading

    def read(self, start: int) -> Chunk | None:
        """The chunk that starts at frame `start`; its frames that no earlier chunk had are kept."""
        chunk = super().read(start)
        if chunk is not None and chunk.mouth is not None:
            known = sum(len(mouths) for mouths in self._reading.mouths) - chunk.start  # consecutive chunks overlap
            if known >= 0:
                self._reading.mouths.append(chunk.mouth[known:])
                if chunk.samples is not None:
                    samples = chunk.samples[known * SAMPLES_PER_FRAME : chunk.frames * SAMPLES_PER_FRAME]
                    self._reading.audio.append(samples)
        return chunk


# --------------------------------------------------------------------------- the page
def mount(app: FastAPI, service: Service, folder: Path, live: bool = False) -> FastAPI:
    """Adds the page at / to the application of the API.

    Args:
        app: The application.
        service: The recognizer and its limits.
        folder: For uploads and mouth videos.
        live: Whether there is a page for live captions, which becomes a tab.
    """
    modalities = service.modalities
    choices = [AUTO_CHOICE, *(NAMES[modality] for modality in modalities)]
    if len(modalities) > 1:
        choices.append(ALL_CHOICE)
    with gr.Blocks(title="avhubert", analytics_enabled=False, delete_cache=(60, PAGE_FILE_SECONDS)) as page:
        gr.Markdown(f"# avhubert\nThe transcript of a video, from audio and lips. Model: `{service.name}`. {CONSENT}")
        if service.note:
            gr.Markdown(service.note[0].upper() + service.note[1:] + ".")
        with gr.Tab("A recording"), gr.Row():
            with gr.Column():
                video = gr.Video(
                    label="A video, or the camera", sources=["upload", "webcam"], elem_id="video", height=VIDEO_HEIGHT
                )
                streams = gr.Radio(choices, value=AUTO_CHOICE, label="Read from", elem_id="what")
                noise = gr.Radio(list(NOISES), value=NO_NOISE, label="Noise added to the audio", elem_id="noise")
                snr = gr.Slider(-10, 20, value=0, step=1, label="Signal-to-noise ratio (dB)", elem_id="snr")
                button = gr.Button("Transcribe", variant="primary", elem_id="transcribe")
            with gr.Column():
                mouth = gr.Video(
                    label="The mouth as the model sees it", interactive=False, loop=True, elem_id="crop",
                    height=VIDEO_HEIGHT,
                )  # fmt: skip
                text = gr.HTML(elem_id="said")
        if live:
            with gr.Tab("Live", elem_id="live"):
                gr.HTML(LIVE_FRAME)
        button.click(
            partial(respond, service, folder), [video, streams, noise, snr], [text, mouth], api_visibility="private",
            concurrency_limit=service.limits.queue + 1,
        )  # fmt: skip
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    mounted: FastAPI = gr.mount_gradio_app(
        app, page, "/", footer_links=[], show_error=False, ssr_mode=False, theme=theme, css=STYLE,
        allowed_paths=[str(folder)], max_file_size=service.limits.max_bytes, pwa=False,
    )  # fmt: skip
    return mounted


def respond(
    service: Service, folder: Path, video: str | None, streams: str, noise: str, snr: float
) -> tuple[str, str | None]:
    """Handles the button: HTML of the transcripts, and the path of the mouth video (None without a face)."""
    if video is None:
        return problem_html("there is no video yet; choose a file or record one"), None
    try:
        admission = service.worker.admit()
        work = partial(_transcribe, service, folder, Path(video), streams, Noise(noise, float(snr)))
        job = service.worker.submit(admission, work)
        try:
            return job.future.result(service.limits.timeout)
        finally:
            job.cancel()
    except RequestError as error:
        return problem_html(error.message), None
    except (JobCancelledError, concurrent.futures.CancelledError):
        return problem_html(stopping().message), None
    except (TimeoutError, concurrent.futures.TimeoutError):
        return problem_html(timed_out(service.limits).message), None


def _transcribe(
    service: Service, folder: Path, path: Path, streams: str, noise: Noise, stop: threading.Event
) -> tuple[str, str | None]:
    """The work of the recognizer's thread: HTML of the transcripts, and the path of the mouth video.

    Raises:
        RequestError: The file cannot be read, or the only requested modality cannot.
        JobCancelledError: `stop` was set meanwhile.
    """
    service.check(path, stop)
    if streams == ALL_CHOICE:
        modalities = list(service.modalities)
    else:
        modalities = [next((modality for modality in service.modalities if NAMES[modality] == streams), AUTO)]
    readings = [_read(service, path, modality, noise, stop) for modality in modalities]
    if len(readings) == 1 and readings[0].transcript is None:
        raise RequestError(422, readings[0].problem)
    return results_html(readings), _mouth_video(service.decoder, readings, path, folder)


def _read(service: Service, path: Path, modality: str, noise: Noise, stop: threading.Event) -> Reading:
    reading = Reading(modality)
    try:
        reading.transcript = service.transcribe(path, modality, stop, partial(PageReader, reading, noise))
    except RequestError as error:
        reading.problem = error.message
    return reading


def _mouth_video(decoder: Decoder, readings: Sequence[Reading], path: Path, folder: Path) -> str | None:
    mouths = next((reading.mouths for reading in readings if reading.transcript and reading.mouths), None)
    if mouths is None:
        return None
    audio = next((reading.audio for reading in readings if reading.transcript and reading.audio), [])
    if not audio and decoder.probe(path).has_audio:
        audio = [decoder.call(path, partial(read_audio, path))]
    frames = np.concatenate(mouths)
    margin = (frames.shape[1] - CROP_SIZE) // 2  # pixels at each side that the model does not see
    frames = frames[:, margin : margin + CROP_SIZE, margin : margin + CROP_SIZE]
    enlarged = (np.kron(frame, np.ones((SCALE, SCALE), np.uint8)) for frame in frames)
    samples = np.concatenate(audio)[: len(frames) * SAMPLES_PER_FRAME] if audio else None
    target = Path(tempfile.mkdtemp(dir=folder)) / "mouth.mp4"
    write_video(target, enlarged, audio=samples)
    return str(target)


# --------------------------------------------------------------------------- HTML
def problem_html(message: str) -> str:
    """A sentence that says why there is no transcript."""
    return f'<div class="avh" role="alert"><b>{html.escape(message)}</b></div>'


def results_html(readings: Sequence[Reading]) -> str:
    """The transcripts side by side: the time above each word; the lower the confidence, the paler the word."""
    return f'<div class="avh">{"".join(_section(reading) for reading in readings)}</div>'


def _section(reading: Reading) -> str:
    transcript = reading.transcript
    if transcript is None:
        name = NAMES.get(reading.modality, reading.modality)
        return f"<section><h3>{name}</h3><p><b>{html.escape(reading.problem)}</b></p></section>"
    words = " ".join(
        f'<ruby style="opacity: {0.35 + 0.65 * word.confidence:.2f}" title="{word.start:.2f}–{word.end:.2f} s, '
        f'confidence {word.confidence:.2f}">{html.escape(word.text)}<rt>{word.start:.2f}</rt></ruby>'
        for word in transcript.words
    )
    warnings = "".join(f"<br><small>{html.escape(warning)}</small>" for warning in transcript.warnings)
    return (
        f'<section data-modality="{reading.modality}"><h3>{NAMES[transcript.modality]}</h3>'
        f"<p>{words or '<i>nothing was understood</i>'}</p>"
        f"<small>{html.escape(transcript.reason)}</small>{warnings}</section>"
    )
