"""The page in a real browser: a file, the camera, all modalities side by side, noise, wrong files; no other host."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import av
import httpx
import numpy as np
import pytest

from avhubert.checkpoints.load import load_recognizer
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.noise import mix
from avhubert.data.video import read_frames, write_video
from avhubert.serve.noise import NOISES, make_noise
from avhubert.transcription.pipeline import transcribe
from tests.serve.conftest import Server, running

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SECONDS = 60_000  # milliseconds to wait for anything: the machine may be busy


@pytest.fixture(scope="module")
def camera(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that make the browser's camera and microphone show and say what the clip does, again and again."""
    folder = tmp_path_factory.mktemp("camera")
    with open(folder / "face.y4m", "wb") as file:
        file.write(b"YUV4MPEG2 W224 H224 F25:1 Ip A1:1 C420jpeg\n")
        for frame in read_frames(clip):
            planes = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuvj420p").to_ndarray()
            file.write(b"FRAME\n" + planes.tobytes())
    write_wav(folder / "voice.wav", read_audio(clip))
    return [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={folder / 'face.y4m'}",
        f"--use-file-for-fake-audio-capture={folder / 'voice.wav'}",
    ]


@pytest.fixture(scope="module")
def browser(camera: list[str]) -> Iterator:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (apt install chromium, or CHROMIUM=/path)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield found
        found.close()


@pytest.fixture
def opened(browser, server: Server) -> Iterator[Callable]:
    """Opens the page in a window of its own; after the test, no other host has been asked."""
    asked: set[str] = set()
    windows = []

    def open_page(address: str = server.address, **options: object):
        context = browser.new_context(viewport={"width": 1200, "height": 900}, **options)
        windows.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.on("response", lambda answer: asked.add(urlsplit(answer.url).netloc))
        page.goto(address + "/")
        page.wait_for_selector("#transcribe")
        return page

    yield open_page
    for one in windows:
        one.close()
    assert {host.partition(":")[0] for host in asked} <= {"127.0.0.1", ""}


def upload(page, path: Path) -> None:
    page.set_input_files("#video input[type=file]", str(path))
    page.wait_for_selector("#video video")


def said(page, sections: int = 1) -> list[str]:
    page.click("#transcribe")
    page.wait_for_function(f"document.querySelectorAll('#said section').length == {sections}")
    return [" ".join(one.text_content() for one in section.query_selector_all("ruby")) for section in
            page.query_selector_all("#said section")]  # fmt: skip


def test_a_clip_all_modalities_and_noise(opened: Callable, model: Path, clip: Path) -> None:
    page = opened()
    upload(page, clip)
    recognizer = load_recognizer(model)

    def words(modality: str) -> str:
        return " ".join(f"{word.text}{word.start:.2f}" for word in transcribe(clip, recognizer, modality).words)

    assert said(page) == [words("auto")]
    page.wait_for_selector("#crop video")
    size = "(() => { const v = document.querySelector('#crop video'); return [v.videoWidth, v.videoHeight]; })()"
    page.wait_for_function(f"{size}[0] > 0")
    assert page.evaluate(size) == [264, 264]  # the 88 × 88 pixels that the model sees, three times as large
    assert "audio and lips are both there" in page.inner_text("#said")

    page.get_by_label("all, side by side").check()
    assert said(page, 3) == [words("av"), words("a"), words("v")]
    assert page.locator("#said section").evaluate_all("all => all.map(one => one.dataset.modality)") == ["av", "a", "v"]

    page.get_by_label("lips alone", exact=True).check()
    page.get_by_label("white noise").check()
    assert said(page) == [words("v")]  # noise is not seen
    page.get_by_label("audio alone", exact=True).check()
    page.click("#transcribe")
    page.wait_for_selector("#said section[data-modality=a]")
    page.wait_for_selector("#crop video", state="detached")


def test_a_text_file_is_one_sentence(opened: Callable, server: Server, tmp_path: Path) -> None:
    page = opened()
    page.click("#transcribe")
    page.wait_for_selector("#said [role=alert]")
    assert page.inner_text("#said") == "there is no video yet; choose a file or record one"
    (tmp_path / "talk.mp4").write_text("This is text.\n" * 99, encoding="utf-8")
    upload(page, tmp_path / "talk.mp4")
    page.click("#transcribe")
    page.wait_for_function("document.querySelector('#said').innerText.startsWith('the file')")
    assert page.inner_text("#said").startswith("the file cannot be read as a video or audio file")


def test_what_is_missing_is_told_beside_what_is_there(opened: Callable, clip: Path, tmp_path: Path) -> None:
    mute = tmp_path / "mute.mp4"
    write_video(mute, read_frames(clip))
    page = opened()
    upload(page, mute)
    page.get_by_label("all, side by side").check()
    both, audio, lips = said(page, 3)
    assert not both
    assert not audio
    assert lips
    assert "the file has no audio track; choose modality v" in page.inner_text("#said")


def test_three_seconds_of_the_camera(opened: Callable) -> None:
    page = opened(permissions=["camera", "microphone"])
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_role("button", name="recording").click()
    page.wait_for_timeout(3000)
    page.get_by_role("button", name="recording").click()
    page.wait_for_selector("#video video[src]")
    assert len(said(page)) == 1
    assert "audio and lips are both there" in page.inner_text("#said")
    assert page.query_selector_all("#said ruby")
    page.wait_for_selector("#crop video")


def test_the_token_opens_the_page(browser, opened: Callable, model: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    with running(model, tmp_path / "served", "--token", "secret") as other:
        assert httpx.get(other.address + "/").status_code == 401
        assert httpx.get(other.address + "/gradio_api/info").status_code == 401
        page = opened(other.address, http_credentials={"username": "me", "password": "secret"})
        upload(page, clip)
        assert said(page)[0]


def test_a_model_of_one_modality_offers_only_that(opened: Callable, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "lips")
    config = json.loads((tmp_path / "lips" / "config.json").read_text(encoding="utf-8"))
    config["metadata"]["modalities"] = ["v"]
    (tmp_path / "lips" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "served").mkdir()
    with running(tmp_path / "lips", tmp_path / "served") as other:
        page = opened(other.address)
        assert [one.strip() for one in page.locator("#what label").all_inner_texts()] == ["automatic", "lips alone"]


def test_noise_is_as_loud_as_asked() -> None:
    rng = np.random.default_rng(0)
    samples = (4000 * np.sin(np.arange(32_000) / 20) * (1 + rng.random(32_000))).astype(np.int16)
    for kind in NOISES[1:]:
        mixed = mix(samples, make_noise(samples, kind), 0).astype(float)
        added = mixed - samples * (mixed @ samples / (samples.astype(float) @ samples))
        assert 0.7 < added.std() / samples.std() < 1.3


@pytest.mark.slow
def test_live_captions_of_the_camera(browser, opened: Callable, tmp_path: Path) -> None:
    """The page's tab: captions appear while the camera shows the clip, and go on after the connection was lost."""
    pytest.importorskip("websockets", reason="websockets is not installed")
    (tmp_path / "served").mkdir()
    with running(Path("builtin"), tmp_path / "served", "--token", "secret") as other:
        page = opened(
            other.address,
            permissions=["camera", "microphone"],
            http_credentials={"username": "me", "password": "secret"},
        )
        page.get_by_role("tab", name="Live").click()
        frame = page.frame_locator("iframe[title='live captions']")
        assert "agreed to be recorded" in frame.locator("#consent").inner_text()
        frame.locator("#start").click()
        frame.locator("#captions p.final").first.wait_for()
        lines = frame.locator("#captions p").count()
        (live,) = [one for one in page.frames if one.url.endswith("/live")]
        live.evaluate("socket.close()")
        live.wait_for_function("document.getElementById('state').textContent.startsWith('Listening')")
        live.wait_for_function(f"document.querySelectorAll('#captions p').length > {lines}")
        frame.locator("#stop").click()
        live.wait_for_function("document.getElementById('state').textContent == 'Ended.'")
        assert frame.locator("#start").is_enabled()
