"""Live streams over a WebSocket: the text, wrong messages, the token, limits, several clients, lost ones."""

from __future__ import annotations

import concurrent.futures
import io
import json
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from avhubert.checkpoints.builtin import SAMPLE
from avhubert.data.audio import read_audio
from avhubert.data.video import read_frames
from avhubert.serve.limits import LIVE_STREAMS
from tests.serve.conftest import Server, running

pytest.importorskip("websockets", reason="websockets is not installed (pip install 'avhubert[serve]')")

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from avhubert.serve.listen import is_ticket, ticket

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(Path("builtin"), tmp_path_factory.mktemp("server"), "--token", "secret") as found:
        yield found


def jpeg(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=92)
    return content.getvalue()


@pytest.fixture(scope="module")
def messages() -> list[bytes]:
    """The clip inside the package as a client sends it."""
    audio, result = read_audio(SAMPLE), []
    for k, image in enumerate(read_frames(SAMPLE)):
        result.append(struct.pack("<Bd", 1, k / 25) + jpeg(image))
        result.append(struct.pack("<Bd", 2, k / 25) + audio[640 * k : 640 * k + 640].astype("<i2").tobytes())
    return result


def open_stream(server: Server, **start: object) -> ClientConnection:
    socket = connect(server.address.replace("http", "ws") + "/v1/listen", open_timeout=60)
    socket.send(json.dumps({"type": "start", "token": "secret", **start}))
    return socket


def answers(socket: ClientConnection) -> list[dict]:
    """All messages until the server closes the connection."""
    found = []
    try:
        while True:
            found.append(json.loads(socket.recv(timeout=120)))
    except ConnectionClosed:
        return found


def stream(server: Server, messages: list[bytes], **start: object) -> list[dict]:
    with open_stream(server, **start) as socket:
        for message in messages:
            socket.send(message)
        socket.send('{"type": "stop"}')
        return answers(socket)


def final(found: list[dict]) -> str:
    return " ".join(event["text"] for event in found if event["type"] == "final")


def test_a_stream_becomes_text(server: Server, messages: list[bytes]) -> None:
    found = stream(server, messages)
    assert found[0] == {"type": "ready"}
    assert found[-1] == {"type": "end"}
    assert final(found).startswith("bin green at")
    word = next(event for event in found if event["type"] == "final")["words"][0]
    assert set(word) == {"text", "start", "end", "confidence"}


def test_audio_at_another_rate(server: Server) -> None:
    audio = np.repeat(read_audio(SAMPLE), 3)  # 48 kHz
    blocks = [struct.pack("<Bd", 2, k / 25) + audio[1920 * k : 1920 * k + 1920].tobytes() for k in range(56)]
    found = stream(server, blocks, sample_rate=48_000, modality="a")
    assert final(found).startswith("bin green")
    assert {event["modality"] for event in found if event["type"] == "final"} == {"a"}


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"token": "wrong"}, "this server needs its token: send it in the start message"),
        ({"type": "begin"}, 'the first message must be {"type": "start"}, as JSON'),
        ({"sample_rate": "fast"}, "sample_rate must be a whole number from 8000 to 192000"),
        ({"modality": "x"}, "unknown modality 'x'; known: a, auto, av, v"),
    ],
)
def test_a_wrong_start_is_one_sentence(server: Server, start: dict, message: str) -> None:
    with open_stream(server, **start) as socket:
        assert answers(socket) == [{"type": "error", "message": message}]
        assert socket.close_code in (1007, 1008)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"rubbish", "a binary message must begin with 1 (JPEG) or 2 (samples) and the time as float64"),
        (struct.pack("<Bd", 7, 0.0) + b"x", "a binary message must begin with 1 (JPEG) or 2 (samples)"),
        (struct.pack("<Bd", 1, 0.0) + b"rubbish", "a frame is not a JPEG image"),
        (struct.pack("<Bd", 2, 0.0) + b"abc", "samples must be int16: an even number of bytes"),
        (struct.pack("<Bd", 2, float("nan")) + b"ab", "the time of a message must be a finite number of seconds"),
        (
            struct.pack("<Bd", 1, 0.0) + jpeg(np.zeros((2000, 2000, 3), np.uint8)),
            "a frame has more than 2073600 pixels",
        ),
        ("rubbish", 'the only text message in a stream is {"type": "stop"}'),
    ],
)
def test_rubbish_ends_only_its_own_stream(server: Server, content: bytes | str, message: str) -> None:
    with open_stream(server) as socket:
        socket.send(content)
        found = answers(socket)
    assert found[-1]["type"] == "error"
    assert message in found[-1]["message"]
    assert httpx.get(server.address + "/health", timeout=60).json()["status"] == "ok"


def test_a_message_that_is_too_large_closes_the_connection(server: Server) -> None:
    with open_stream(server) as socket:
        socket.send(bytes(3_000_000))
        assert answers(socket) in ([{"type": "ready"}], [])
        assert socket.close_code == 1009


def test_several_clients_at_once_and_no_more_than_allowed(server: Server, messages: list[bytes]) -> None:
    with concurrent.futures.ThreadPoolExecutor(LIVE_STREAMS) as pool:
        texts = list(pool.map(lambda _: final(stream(server, messages)), range(LIVE_STREAMS)))
    assert all(text.startswith("bin green at") for text in texts), texts
    sockets = [open_stream(server) for _ in range(LIVE_STREAMS)]
    try:
        assert [json.loads(socket.recv(timeout=60)) for socket in sockets] == [{"type": "ready"}] * LIVE_STREAMS
        with open_stream(server) as more:
            assert answers(more)[0]["message"] == "8 live streams are open, no more are allowed; try again later"
    finally:
        for socket in sockets:
            socket.close()
    time.sleep(1)
    assert stream(server, messages[:20])[-1] == {"type": "end"}


def test_a_client_that_goes_away_frees_its_place(server: Server, messages: list[bytes]) -> None:
    for _ in range(LIVE_STREAMS + 2):
        socket = open_stream(server)
        socket.send(messages[0])
        socket.socket.close()  # without a word
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if stream(server, [])[-1] == {"type": "end"}:
            return
        time.sleep(1)
    pytest.fail("the places of clients that went away stay taken")


def test_a_page_opens_streams_with_its_ticket(server: Server, messages: list[bytes]) -> None:
    assert httpx.get(server.address + "/live", timeout=60).status_code == 401
    page = httpx.get(server.address + "/live", auth=("any", "secret"), timeout=60).text
    value = re.search(r'TICKET = "([^"]+)"', page)[1]
    assert "secret" not in page
    assert final(stream(server, messages, token=value)).startswith("bin green at")


def test_tickets_expire_and_cannot_be_forged() -> None:
    value = ticket("secret", 1000.0)
    assert is_ticket(value, "secret", 1000.0 + 11 * 3600)
    assert not is_ticket(value, "secret", 1000.0 + 13 * 3600)
    assert not is_ticket(value, "other", 1000.0)
    assert not is_ticket("9" + value, "secret", 1000.0)
    assert not is_ticket("", "secret", 1000.0)
