"""The HTTP API of a real server: what it answers, what it refuses and how soon, what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from avhubert import __version__
from avhubert.checkpoints.load import load_recognizer
from avhubert.transcription.pipeline import transcribe
from avhubert.transcription.transcript import render
from tests.serve.conftest import Server, running

PATH = "/v1/transcriptions"


def send(server: Server, content: Path | bytes, name: str = "clip", **fields: str) -> httpx.Response:
    content = content.read_bytes() if isinstance(content, Path) else content
    return httpx.post(server.address + PATH, files={"file": (name, content)}, data=fields, timeout=60)


def refused(answer: httpx.Response, status: int, words: str) -> None:
    """One JSON sentence, which tells nothing of the server's inside."""
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert list(told) == ["error"]
    assert words in told["error"]
    assert "\n" not in told["error"]
    assert "Traceback" not in told["error"]
    assert "/tmp" not in told["error"]


def test_health(server: Server) -> None:
    found = httpx.get(server.address + "/health").json()
    assert found["model"] == "tiny"
    assert found["modalities"] == ["av", "a", "v"]
    assert found["queue"] == 0
    assert found["queue_limit"] == 17
    assert found["version"] == __version__


@pytest.mark.parametrize("modality", ["auto", "a", "v", "av"])
def test_answers_are_those_of_transcribe(server: Server, model: Path, clip: Path, modality: str) -> None:
    answer = send(server, clip, modality=modality)
    assert answer.status_code == 200
    said = transcribe(clip, load_recognizer(model), modality)
    assert said.text
    assert answer.json() == json.loads(render(said, "json"))
    assert answer.headers["content-type"] == "application/json"
    assert server.emptied()


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({"format": "txt"}, "txt"),
        ({"response_format": "text"}, "txt"),
        ({"format": "srt"}, "srt"),
        ({"response_format": "vtt"}, "vtt"),
        ({"response_format": "verbose_json"}, "json"),
    ],
)
def test_forms(server: Server, model: Path, recording: Path, fields: dict[str, str], form: str) -> None:
    answer = send(server, recording, **fields)
    assert answer.status_code == 200
    assert answer.text == render(transcribe(recording, load_recognizer(model)), form)


def test_wrong_fields(server: Server, recording: Path) -> None:
    refused(send(server, recording, modality="x"), 400, "unknown modality 'x'; known: a, auto, av, v")
    refused(send(server, recording, format="doc"), 400, "unknown format 'doc'; known: json")
    refused(send(server, recording, modality="av"), 422, "the file has no video track; choose modality a")
    refused(httpx.post(server.address + PATH, data={"file": "x"}), 400, "there is no file in the multipart field")
    refused(httpx.post(server.address + PATH, content=b"x"), 400, "there is no file in the multipart field")
    broken = {"content-type": "multipart/form-data; boundary=b"}
    refused(httpx.post(server.address + PATH, content=b"x" * 99, headers=broken), 400, "is not valid")
    refused(httpx.get(server.address + PATH), 404, "the API is POST /v1/transcriptions")
    refused(httpx.delete(server.address + "/health"), 405, "/health does not support DELETE")
    assert server.emptied()


def test_no_media(server: Server) -> None:
    refused(send(server, b"This is text.\n" * 99, "talk.mp4"), 422, "the file cannot be read as a video or audio file")
    refused(send(server, b"", "talk.mp4"), 422, "the file is empty")
    # lists that would make FFmpeg open what they name
    refused(send(server, b"ffconcat version 1.0\nfile upload\n"), 422, "has a format that is not accepted")
    playlist = f"#EXTM3U\n#EXTINF:1,\n{server.address}/health\n#EXT-X-ENDLIST\n"
    refused(send(server, playlist.encode(), "x.m3u8"), 422, "the file")
    assert server.emptied()


@pytest.mark.parametrize("name", ["../../escaped.wav", "/etc/passwd", "a\x00b", "C:\\con", "x" * 2000, "-rf ~;$(id)"])
def test_the_name_of_a_file_is_no_path(server: Server, recording: Path, name: str) -> None:
    boundary, content = b"b0undary", recording.read_bytes()
    body = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n--%s--\r\n' % (
        *(boundary, name.encode()), content, boundary,
    )  # fmt: skip
    headers = {"content-type": f"multipart/form-data; boundary={boundary.decode()}"}
    answer = httpx.post(server.address + PATH, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert server.emptied()
    assert not list(server.folder.parent.rglob("escaped*"))


# --------------------------------------------------------------------------- too much
def test_a_large_upload_is_refused_by_its_length_alone(server: Server) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000000\r\n\r\n"
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), 10) as link:
        link.sendall(head.encode())
        answer = b""
        while not answer.endswith(b"}"):
            answer += link.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than the 2 MB that this server accepts" in answer
    assert time.monotonic() - began < 2


def test_a_large_upload_that_hides_its_length_is_refused_at_the_limit(server: Server) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        while sent < 2_000_000_000:
            sent += 1 << 16
            yield bytes(1 << 16)

    began = time.monotonic()
    before, _ = server.memory()
    headers = {"content-type": "multipart/form-data; boundary=b"}
    with contextlib.suppress(httpx.TransportError):  # the client may see the connection end before it reads the answer
        refused(httpx.post(server.address + PATH, content=endless(), headers=headers, timeout=20), 413, "larger than")
    assert time.monotonic() - began < 10
    assert server.emptied()
    assert server.memory()[1] - before < 300e6


def test_a_large_upload_is_answered_while_it_is_being_sent(server: Server) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", server.port), 10) as link:
        link.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(part), part))
        for _ in range(33):
            link.sendall(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
        answer = link.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


def test_slow_clients_are_given_up(server: Server, recording: Path) -> None:
    """A head that never ends, a body that stops, a body that trickles: all at once, each answered by 408."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
    typed = head + "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    part = 'Content-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    answers: dict[str, tuple[bytes, float]] = {}

    def client(kind: str, text: str, trickle: bytes) -> None:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), 0.5) as link:
            link.sendall(text.encode())
            answer = b""
            while time.monotonic() - began < 30:
                try:
                    if trickle:
                        link.sendall(trickle)
                    answer += link.recv(4096)
                    if b"\r\n\r\n" in answer:
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
        answers[kind] = answer, time.monotonic() - began

    clients = [
        threading.Thread(target=client, args=one)
        for one in (
            ("head", head, b""),
            ("silent", "", b""),
            ("stopped", typed + "--b\r\n" + part, b""),
            ("trickling", typed + "--b\r\n" + part, b"x"),
        )
    ]
    for one in clients:
        one.start()
    assert send(server, recording).status_code == 200  # meanwhile others are served
    for one in clients:
        one.join()
    assert {kind: answer[:13] for kind, (answer, _) in answers.items()} == dict.fromkeys(answers, b"HTTP/1.1 408 ")
    assert max(seconds for _, seconds in answers.values()) < 20
    assert server.emptied()


def test_200_at_once_and_none_is_lost(server: Server, recording: Path) -> None:
    content = recording.read_bytes()
    statuses: Counter[int] = Counter()
    texts: Counter[str] = Counter()
    before, _ = server.memory()

    async def one(client: httpx.AsyncClient) -> None:
        for _ in range(200):
            answer = await client.post(PATH, files={"file": ("tone.wav", content)}, data={"format": "txt"})
            statuses[answer.status_code] += 1
            if answer.status_code != 429:
                texts[answer.text] += 1
                return
            refused(answer, 429, "try again later")
            assert int(answer.headers["retry-after"]) >= 1
            await asyncio.sleep(0.3)

    async def all_of_them() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.address, timeout=120, limits=limits) as client:
            await asyncio.gather(*(one(client) for _ in range(200)))

    asyncio.run(all_of_them())
    assert statuses[200] == 200
    assert set(statuses) == {200, 429}
    assert len(texts) == 1
    assert server.memory()[1] - before < 300e6
    assert server.emptied()
    assert httpx.get(server.address + "/health").json()["queue"] == 0


def test_a_client_that_goes_away_leaves_nothing(server: Server, clip: Path) -> None:
    for seconds in (0.05, 0.2):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.address + PATH, files={"file": clip.read_bytes()}, timeout=httpx.Timeout(5, read=seconds))
    assert server.emptied()
    assert send(server, clip).status_code == 200


def test_a_client_that_goes_away_while_it_sends_leaves_nothing(server: Server) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", server.port), 10) as link:
        link.sendall((head + part).encode())
        time.sleep(0.5)
    assert server.emptied()  # and, when it stops, no traceback in its log


# --------------------------------------------------------------------------- another server: token, time-out, one place
@pytest.fixture(scope="module")
def strict(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ("--token", "sésame", "--timeout", "0.02", "--queue", "1")
    with running(model, tmp_path_factory.mktemp("strict"), *options) as found:
        yield found


def test_token(strict: Server, recording: Path) -> None:
    assert httpx.get(strict.address + "/health").status_code == 200
    files = {"file": recording.read_bytes()}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}, {"Authorization": "Basic !"}):
        answer = httpx.post(strict.address + PATH, files=files, headers=headers)
        refused(answer, 401, "needs its token")
        assert answer.headers["www-authenticate"].startswith("Basic ")
    refused(httpx.get(strict.address + "/"), 401, "needs its token")
    refused(httpx.get(strict.address + "/config"), 401, "needs its token")
    wrong_form = {"data": {"format": "doc"}, "files": files}
    bearer = {"Authorization": "Bearer sésame".encode()}
    refused(httpx.post(strict.address + PATH, headers=bearer, **wrong_form), 400, "unknown format")
    basic = httpx.BasicAuth("anybody", "sésame")
    refused(httpx.post(strict.address + PATH, auth=basic, **wrong_form), 400, "unknown format")


def test_time_out(strict: Server, clip: Path) -> None:
    bearer = {"Authorization": "Bearer sésame".encode()}
    answer = httpx.post(strict.address + PATH, files={"file": clip.read_bytes()}, headers=bearer)
    refused(answer, 504, "no transcript within the 0.02 s")
    assert strict.emptied()


# --------------------------------------------------------------------------- the command
@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("--port", "99999"), 2, "cannot listen on 127.0.0.1:99999"),
        (("--host", "nowhere.invalid"), 2, "cannot listen on nowhere.invalid:8000"),
        (("--port", "0", "--token", ""), 2, "the token is empty"),
        (("--max-seconds", "-1"), 2, "is not a number of seconds above 0"),
        (("--max-mb", "0"), 2, "is not a number above 0"),
    ],
)
def test_wrong_options(model: Path, options: tuple[str, ...], status: int, words: str) -> None:
    command = [sys.executable, "-m", "avhubert.cli", "serve", "--model", str(model), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken(server: Server, model: Path) -> None:
    command = [sys.executable, "-m", "avhubert.cli", "serve", "--model", str(model), "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{server.port}: Address already in use; choose another" in done.stderr
    assert "choose another --host or --port" in done.stderr
