"""A server in a process of its own, with a recognizer of random weights, and clips to send to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="FastAPI is not installed (pip install 'avhubert[serve]')")

from avhubert.checkpoints.directory import save_model
from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import write_wav
from avhubert.data.tokenizer import train_tokenizer
from avhubert.model.recognizer import Recognizer


@dataclass(frozen=True)
class Server:
    """A running `avhubert serve`: its address, process and temporary folder."""

    address: str
    process: subprocess.Popen
    folder: Path

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def kept(self) -> list[Path]:
        """Files that requests have left behind."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def emptied(self, seconds: float = 10.0) -> bool:
        """Whether all files go within a while: a job that was given up ends when it next looks."""
        end = time.monotonic() + seconds
        while self.kept() and time.monotonic() < end:
            time.sleep(0.05)
        return not self.kept()

    def memory(self) -> tuple[int, int]:
        """Bytes in memory now and at most so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        now, most = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, most


@contextmanager
def running(model: Path, folder: Path, *options: str) -> Iterator[Server]:
    """`avhubert serve` on a free port until the block ends; then Ctrl-C, after which nothing may be left."""
    environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "avhubert.cli", "serve", "--model", str(model), "--port", "0", *options]
    log = folder.with_suffix(".log")
    with open(log, "w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    try:
        line = process.stdout.readline()
        assert line.startswith("page: "), line + log.read_text(encoding="utf-8")
        yield Server(line.split()[1].rstrip("/"), process, folder)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, log.read_text(encoding="utf-8")
        assert process.stdout.read() == "stopped\n"
        assert "Traceback" not in log.read_text(encoding="utf-8"), log.read_text(encoding="utf-8")
        assert not list(folder.iterdir())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory; what it says is random, but the same for the same input."""
    torch.manual_seed(3)
    config = ModelConfig(
        visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=1, encoder_embed_dim=16, encoder_ffn_embed_dim=32,
        encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2,
    )  # fmt: skip
    tokenizer = train_tokenizer(["a b", "ab ba", "b a b", "aa bb", "abba", "b", "a", "ab ab a"], 7).serialized
    recognizer = Recognizer.from_config(
        config, DecoderConfig(layers=1, ffn_embed_dim=32, attention_heads=2, vocab_size=7, ctc=True)
    ).eval()
    recognizer.decode_settings = DecodeConfig(beam=1, min_len=6, max_len_a=0.0, max_len_b=6, no_repeat_ngram=1)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_model(folder, recognizer, tokenizer)
    return folder


# one for each file of tests: what the page keeps for ten minutes is not left by requests to the API
@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(model, tmp_path_factory.mktemp("server"), "--max-mb", "2", "--max-seconds", "20") as found:
        yield found


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn person who says a sentence."""
    root = tmp_path_factory.mktemp("clip")
    make_corpus(root, 4, speakers=2, seed=9)
    return min(root.rglob("*.mp4"))


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of a wavering tone."""
    path = tmp_path_factory.mktemp("audio") / "tone.wav"
    time = np.arange(16_000) / 16_000
    write_wav(path, (8000 * np.sin(2 * np.pi * 300 * time) * np.sin(9 * time)).astype(np.int16))
    return path
