"""Models on the Hugging Face Hub: the real client, a cache laid out here, a small server of its protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch

import avhubert
from avhubert.checkpoints.config_file import read_config
from avhubert.checkpoints.hub import fetch, is_name, push_to_hub
from avhubert.cli.app import main, parser
from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.data.tokenizer import train_tokenizer
from avhubert.errors import CheckpointError, ConfigError, DataError
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer
from tests.avista_folder import write_recognizer

constants = pytest.importorskip("huggingface_hub.constants")

MODEL = ModelConfig(
    visual_width=4, visual_blocks=[1, 1, 1, 1], encoder_layers=1, encoder_embed_dim=16, encoder_ffn_embed_dim=16,
    encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2,
)  # fmt: skip
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "hub.md"
COMMIT, OLDER = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    tokenizer = train_tokenizer(["the quick brown fox jumps over the lazy dog", "a wizard's job is to vex"], 40)
    decoder = DecoderConfig(layers=1, ffn_embed_dim=16, attention_heads=2, ctc=True, vocab_size=tokenizer.vocab_size)
    model = Recognizer.from_config(MODEL, decoder).eval()
    model.tokenizer = tokenizer
    model.decode_settings = DecodeConfig(beam=3)
    model.metadata = ModelMetadata(stage="fine-tuning", step=7, pretrained="/home/someone/runs/iter5", data="/d/lrs3")
    return model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub's client, which may not go online."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hf" / "hub"


def lay_out(cache: Path, name: str, directory: Path, commit: str = COMMIT, revision: str = "main") -> Path:
    """What the client leaves of a repository that it fetched."""
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / revision).write_text(commit, encoding="utf-8")
    return Path(shutil.copytree(directory, home / "snapshots" / commit))


def test_what_is_a_name() -> None:
    for name in ("org/name", "org/name@v1.0", "Org-1/na.me_x@refs/pr/3", f"org/name@{COMMIT}"):
        assert is_name(name), name
    for path in ("name", "a/b/c", "./runs/x", "../x", "/runs/x", "org/name.pt", "org/", "org/name@", "o rg/name"):
        assert not is_name(path), path


def test_a_saved_model_comes_back(recognizer: Recognizer, tmp_path: Path) -> None:
    recognizer.save_pretrained(tmp_path / "saved")
    loaded = avhubert.load(tmp_path / "saved")
    assert isinstance(loaded, Recognizer)
    assert loaded.metadata == recognizer.metadata
    assert loaded.tokenizer.serialized == recognizer.tokenizer.serialized
    assert loaded.decode_settings == recognizer.decode_settings
    for name, tensor in recognizer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    encoder = AVHubert(MODEL)
    encoder.metadata = ModelMetadata(step=3)
    encoder.save_pretrained(tmp_path / "encoder")
    assert avhubert.load(tmp_path / "encoder").metadata == ModelMetadata(step=3)


def test_a_recognizer_without_tokenizer_is_not_saved(tmp_path: Path) -> None:
    model = Recognizer.from_config(MODEL, DecoderConfig(layers=1, attention_heads=2, vocab_size=5))
    with pytest.raises(ConfigError, match=r"no tokenizer: set model\.tokenizer before it is saved"):
        model.save_pretrained(tmp_path / "x")
    with pytest.raises(ConfigError, match=r"no tokenizer: set model\.tokenizer before it is pushed"):
        push_to_hub(model, "org/name")
    assert not (tmp_path / "x").exists()


def test_offline_from_the_cache(recognizer: Recognizer, cache: Path, tmp_path: Path) -> None:
    recognizer.save_pretrained(tmp_path / "saved")
    lay_out(cache, "lips/tiny", tmp_path / "saved")
    older = lay_out(cache, "lips/tiny", tmp_path / "saved", OLDER, "v1")
    content = json.loads((older / "config.json").read_text(encoding="utf-8"))
    content["metadata"]["step"] = 1
    (older / "config.json").write_text(json.dumps(content), encoding="utf-8")
    loaded = avhubert.load("lips/tiny")
    assert isinstance(loaded, Recognizer)
    assert loaded.metadata.step == 7
    assert loaded.tokenizer.serialized == recognizer.tokenizer.serialized
    assert avhubert.load("lips/tiny@v1").metadata.step == 1
    assert avhubert.load(f"lips/tiny@{OLDER}").metadata.step == 1


def test_avista_model_of_the_cache_keeps_its_name_commit_and_licence(cache: Path, tmp_path: Path) -> None:
    lay_out(cache, "someone/lips", write_recognizer(tmp_path / "avista"))
    loaded = avhubert.load("someone/lips")
    assert isinstance(loaded, Recognizer)
    assert (loaded.metadata.source, loaded.metadata.commit) == ("someone/lips", COMMIT)
    assert loaded.metadata.license == "apache-2.0"
    assert main(["convert", "someone/lips", str(tmp_path / "ours")]) == 0
    card = (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")
    assert "someone/lips" in card
    assert COMMIT in card


def test_a_folder_here_comes_before_the_hub(recognizer: Recognizer, cache: Path, tmp_path: Path) -> None:
    recognizer.save_pretrained(tmp_path / "lips" / "tiny")  # and the cache is empty
    assert isinstance(avhubert.load("lips/tiny"), Recognizer)


def test_offline_and_not_in_the_cache(cache: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'lips/tiny' is not a folder here, not in the .* cache.*HF_HUB_OFFLINE"):
        avhubert.load("lips/tiny")


def test_a_model_of_another_kind_is_named_before_its_weights_are_asked_for(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    lay_out(cache, "some/bert", tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"some/bert on the .* is not a model that this version reads") as raised:
        avhubert.load("some/bert")
    assert "\n" not in str(raised.value)


def test_the_environment_is_obeyed_and_the_command_line_takes_names(recognizer: Recognizer, tmp_path: Path) -> None:
    """As a user sets it: HF_HOME and HF_HUB_OFFLINE, in a process of its own."""
    recognizer.save_pretrained(tmp_path / "saved")
    lay_out(tmp_path / "hf" / "hub", "lips/tiny", tmp_path / "saved")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE"))}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    code = (
        "import sys; from avhubert.cli import main; assert main(['info', 'lips/tiny']) == 0;"
        " sys.exit(main(['info', 'lips/other']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert "recognizer" in done.stdout
    assert done.returncode == 1
    assert "'lips/other' is not a folder here" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_the_client(cache: Path, monkeypatch: pytest.MonkeyPatch, recognizer: Recognizer) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # what an import finds where it is not installed
    with pytest.raises(CheckpointError, match=r"pip install 'avhubert\[hub\]'"):
        avhubert.load("lips/tiny")
    with pytest.raises(ConfigError, match=r"pip install 'avhubert\[hub\]'"):
        push_to_hub(recognizer, "lips/tiny")


class Hub(ThreadingHTTPServer):
    """As much of the Hub's protocol as fetching and pushing a small model takes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, dict[str, bytes]] = {}  # of each repository
        self.created: list[dict] = []
        self.commits: list[tuple[str, list[dict]]] = []
        self.refuses: tuple[int, str] | None = None  # status and the Hub's own code

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def reply(self, content: object = None, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer(self) -> None:
        hub = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlparse(self.path).path.strip("/")
        if hub.refuses is not None:
            status, code = hub.refuses
            self.reply({"error": "no"}, status, **({"X-Error-Code": code} if code else {}))
        elif path == "api/repos/create":
            asked = json.loads(body)
            hub.created.append(asked)
            name = f"{asked['organization']}/{asked['name']}"
            hub.files.setdefault(name, {})
            self.reply({"url": f"{hub.address}/{name}", "name": name})
        elif path == "api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif path.startswith("api/models/"):
            self.about(path.removeprefix("api/models/"), body)
        else:
            self.file(*path.split("/resolve/"))

    def about(self, path: str, body: bytes) -> None:
        hub = self.server
        name = "/".join(path.split("/")[:2])
        what = path.removeprefix(name).strip("/").split("/")[0]
        if name not in hub.files:
            self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        elif what == "preupload":
            files = json.loads(body)["files"]  # "regular": in the commit itself, as the Hub has small files
            self.reply({"files": [one | {"uploadMode": "regular", "shouldIgnore": False} for one in files]})
        elif what == "commit":
            lines = [json.loads(line) for line in body.decode().splitlines() if line]
            hub.commits.append((path, lines))
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    hub.files[name][value["path"]] = base64.b64decode(value["content"])
            self.reply({"commitUrl": f"{hub.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
        elif what == "revision" and not path.endswith(("/main", COMMIT)):
            self.reply({"error": "Revision not found"}, 404, X_Error_Code="RevisionNotFound")
        elif what == "branch":
            self.reply({})
        elif what == "tree":
            self.reply(
                [{"type": "file", "path": p, "size": len(b), "oid": "0" * 40} for p, b in hub.files[name].items()]
            )
        else:
            siblings = [{"rfilename": path} for path in hub.files[name]]
            self.reply({"id": name, "modelId": name, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []})

    def file(self, name: str, place: str = "") -> None:
        revision, _, path = place.partition("/")
        files = self.server.files.get(name)
        if files is None:
            self.reply(b"", 401, X_Error_Code="RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.reply(b"", 404, X_Error_Code="RevisionNotFound")
        elif path not in files:
            self.reply(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        else:
            digest = hashlib.sha1(files[path]).hexdigest()
            self.reply(files[path], ETag=f'"{digest}"', X_Repo_Commit=COMMIT)

    do_GET = do_HEAD = do_POST = do_PUT = answer


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local Hub that the client talks to, with an empty cache."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    point_at(server.address, monkeypatch)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does in a new process."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")


def test_pushed_and_fetched_again(hub: Hub, recognizer: Recognizer, tmp_path: Path) -> None:
    row = {"modality": "v", "snr": None, "wer": 42.28, "interval": [37.6, 46.6], "clips": 54, "seconds": 1.0}
    (tmp_path / "results.json").write_text(
        json.dumps({"results": [row], "data": "/d/433h", "split": "test"}), encoding="utf-8"
    )
    address = push_to_hub(
        recognizer, "lips/tiny", license="cc-by-4.0", results=tmp_path / "results.json", private=True, message="First"
    )
    assert address == f"{hub.address}/lips/tiny/commit/{COMMIT}"
    assert hub.created[0]["visibility"] == "private"
    [(path, lines)] = hub.commits
    assert path == "lips/tiny/commit/main"
    assert lines[0] == {"key": "header", "value": {"summary": "First", "description": ""}}
    files = hub.files["lips/tiny"]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors", "tokenizer.model"]
    card = files["README.md"].decode()
    assert card.startswith('---\nlicense: "cc-by-4.0"\nlibrary_name: avhubert\n')
    for said in ("| 433h, test | v | clean | 42.3 | 37.6 to 46.6 | 54 |", "beam 3", '`avhubert.load("lips/tiny")`'):
        assert said in card
    assert "/home/someone" not in card + files["config.json"].decode()  # folders of this machine stay here
    assert recognizer.metadata.pretrained == "/home/someone/runs/iter5"

    loaded = avhubert.load("lips/tiny")
    assert isinstance(loaded, Recognizer)
    assert loaded.metadata.pretrained == "iter5"
    for name, tensor in recognizer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


@pytest.mark.parametrize("safetensors", [True, False])
def test_avista_model_is_fetched_without_its_code(hub: Hub, cache: Path, tmp_path: Path, safetensors: bool) -> None:
    folder = write_recognizer(tmp_path / "avista", safetensors=safetensors)
    hub.files["someone/lips"] = {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.files["someone/lips"]["modeling_avhubert.py"] = b"raise SystemExit"
    if safetensors:
        hub.files["someone/lips"]["pytorch_model.bin"] = b"not needed"
    assert isinstance(avhubert.load("someone/lips"), Recognizer)
    fetched = {file.name for file in (cache / "models--someone--lips" / "snapshots" / COMMIT).iterdir()}
    assert fetched == {file.name for file in folder.iterdir()}


def test_the_documents_example(hub: Hub, recognizer: Recognizer, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    recognizer.save_pretrained(tmp_path / "runs" / "demo" / "model")
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "results.json").write_text('{"results": [{"modality": "v", "wer": 40.0}]}', encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(DOCUMENT), "exec"), {})
    assert capsys.readouterr().out.strip().endswith(COMMIT)
    assert isinstance(avhubert.load(tmp_path / "copy"), Recognizer)
    assert main(["info", "your-org/lips-tiny@main"]) == 0
    for line in re.findall(r"^avhubert .*", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE):
        assert "your-org/lips-tiny" in str(vars(parser().parse_args(shlex.split(line)[1:])))


def test_a_branch_and_an_encoder(hub: Hub) -> None:
    push_to_hub(AVHubert(MODEL), "lips/base@wip")
    assert hub.commits[0][0] == "lips/base/commit/wip"
    assert sorted(hub.files["lips/base"]) == ["README.md", "config.json", "model.safetensors"]


def test_only_what_belongs_to_a_model_is_fetched(hub: Hub, recognizer: Recognizer) -> None:
    push_to_hub(recognizer, "lips/tiny")
    hub.files["lips/tiny"] |= {"optimizer.bin": b"x" * 100, "run.py": b"print()"}
    directory = fetch("lips/tiny")
    assert sorted(path.name for path in directory.iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "tokenizer.model")
    ]
    assert read_config(directory).decode.beam == 3


def test_answers_of_the_hub_as_one_sentence(hub: Hub, recognizer: Recognizer, tmp_path: Path) -> None:
    hub.files["lips/empty"] = {"README.md": b""}
    for name, sentence in (
        ("lips/none", "'lips/none' is neither a folder here nor a model that the Hugging Face Hub shows you"),
        ("lips/empty", "lips/empty on the Hugging Face Hub is not a model that this version reads"),
        ("lips/empty@v9", "lips/empty on the Hugging Face Hub has no revision 'v9'"),
    ):
        refused(name, sentence)
    hub.refuses = (403, "GatedRepo")
    refused("lips/gated", "lips/gated is gated on the Hugging Face Hub: accept its terms")
    hub.refuses = (403, "")
    with pytest.raises(CheckpointError, match="does not let you do this to lips/tiny: log in"):
        push_to_hub(recognizer, "lips/tiny")
    hub.refuses = (400, "")
    with pytest.raises(CheckpointError, match="the Hugging Face Hub answered 400 for lips/tiny: no"):
        push_to_hub(recognizer, "lips/tiny")
    assert not hub.commits


def refused(name: str, sentence: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        avhubert.load(name)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_connection(cache: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        point_at(f"http://127.0.0.1:{taken.getsockname()[1]}", monkeypatch)
        refused(
            "lips/tiny", "'lips/tiny' is not a folder here, not in the Hugging Face Hub's cache, and the Hub cannot"
        )
        with pytest.raises(CheckpointError, match="the Hugging Face Hub cannot be reached for lips/tiny: "):
            push_to_hub(recognizer, "lips/tiny")


def test_what_cannot_be_pushed(recognizer: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'\./here' is not a name on the Hugging Face Hub: give org/name"):
        push_to_hub(recognizer, "./here")
    (tmp_path / "r.json").write_text('{"figures": 1}', encoding="utf-8")
    with pytest.raises(DataError, match=r"has no word error rates: give the results\.json"):
        push_to_hub(recognizer, "lips/tiny", results=tmp_path / "r.json")


def test_a_wrong_name_on_the_command_line(cache: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["info", "lips/none"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("avhubert: 'lips/none' is not a folder here")
    assert len(error.splitlines()) == 1
