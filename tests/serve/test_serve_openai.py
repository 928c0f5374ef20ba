"""The unmodified `openai` client against a running server: the calls that its users make, and its errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from avhubert.checkpoints.load import load_recognizer
from avhubert.transcription.pipeline import transcribe
from avhubert.transcription.transcript import render
from tests.serve.conftest import Server, running

pytestmark = pytest.mark.slow
openai = pytest.importorskip("openai", reason="openai is not installed (pip install openai)")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with running(model, folder, "--max-mb", "2", "--max-seconds", "20", "--token", "secret") as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server):
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key="secret", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def said(model: Path, clip: Path):
    return transcribe(clip, load_recognizer(model))


def test_models(client, server: Server) -> None:
    assert [found.id for found in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "avhubert"
    with pytest.raises(openai.NotFoundError, match="the model 'gpt-9' is not here; this server has 'tiny'"):
        client.models.retrieve("gpt-9")


def test_every_format(client, clip: Path, said) -> None:
    def create(**options: object):
        with open(clip, "rb") as file:
            return client.audio.transcriptions.create(model="whisper-1", file=file, **options)

    assert create().text == said.text
    assert create(response_format="json", language="en", prompt="x", temperature=0).text == said.text
    assert create(response_format="text") == render(said, "txt")
    assert create(response_format="srt") == render(said, "srt")
    assert create(response_format="vtt") == render(said, "vtt")
    found = create(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert found.text == said.text
    assert [(word.word, word.start, word.end) for word in found.words] == [
        (word.text, word.start, word.end) for word in said.words
    ]
    assert [(one.id, one.start, one.end, one.text) for one in found.segments] == [
        (number, one.start, one.end, one.text) for number, one in enumerate(said.segments)
    ]
    assert create(response_format="verbose_json").words is None
    assert create(extra_body={"modality": "v"}).text


def test_a_stream_of_text(client, clip: Path, said, server: Server) -> None:
    with open(clip, "rb") as file:
        events = list(client.audio.transcriptions.create(model="tiny", file=file, stream=True))
    assert [event.type for event in events][-1] == "transcript.text.done"
    assert events[-1].text == said.text
    assert "".join(event.delta for event in events[:-1]) == said.text
    assert server.emptied()


def test_errors_are_the_sentences_of_the_server(client, clip: Path, server: Server) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="the file cannot be read as a video or audio file"):
        client.audio.transcriptions.create(model="tiny", file=("a.mp4", b"rubbish" * 99))
    with pytest.raises(openai.UnprocessableEntityError, match="the file cannot be read"):
        client.audio.transcriptions.create(model="tiny", file=("a.mp4", b"rubbish" * 99), stream=True)
    with pytest.raises(openai.NotFoundError, match="the model 'gpt-9' is not here"):
        client.audio.transcriptions.create(model="gpt-9", file=clip)
    with pytest.raises(openai.BadRequestError, match="unknown response_format 'pdf'; known: json, srt"):
        client.audio.transcriptions.create(model="tiny", file=clip, response_format="pdf")
    with pytest.raises(openai.BadRequestError, match="timestamp_granularities needs response_format=verbose_json"):
        client.audio.transcriptions.create(model="tiny", file=clip, timestamp_granularities=["word"])
    with pytest.raises(openai.APIStatusError, match="the upload is larger than the 2 MB") as error:
        client.audio.transcriptions.create(model="tiny", file=("a.wav", bytes(3_000_000)))
    assert error.value.status_code == 413
    other = openai.OpenAI(base_url=f"{server.address}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="this server needs its token"):
        other.models.list()
    assert server.emptied()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stream": "perhaps"}, "stream is 'perhaps'; it must be true or false"),
        ({"modality": "x"}, "unknown modality 'x'"),
        (
            {"response_format": "verbose_json", "timestamp_granularities[]": "letter"},
            "unknown timestamp granularity 'letter'",
        ),
    ],
)
def test_wrong_fields_have_errors_in_the_form_of_the_api(server: Server, fields: dict, message: str) -> None:
    answer = httpx.post(
        f"{server.address}/v1/audio/transcriptions",
        files={"file": ("a.wav", b"x")},
        data=fields,
        headers={"Authorization": "Bearer secret"},
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


def test_a_request_without_a_file(server: Server) -> None:
    answer = httpx.post(
        f"{server.address}/v1/audio/transcriptions",
        data={"model": "tiny"},
        headers={"Authorization": "Bearer secret"},
    )
    assert answer.status_code == 400
    assert "there is no file in the multipart field 'file'" in answer.json()["error"]["message"]
