"""Part `serve`: a server at its queue's limit, with malformed, slow and cancelled requests; a case is two seconds.

No answer is lost: every whole request gets a transcript or a status that says why not. Memory grows by at most 1 %
after the first minutes.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

from avhubert.data.audio import wav_bytes
from tests.faults.outcome import ACCEPTED, SKIPPED, Outcome
from tests.faults.part import Case, Part, random_of
from tests.faults.world import make_world

CASE_SECONDS = 2.0
WARM_UP_CASES = 90  # caches and allocators fill up in the first three minutes
MORE_MEMORY = 0.01
CLIENTS = 6  # with a queue of QUEUE, some are always refused
QUEUE = 3
KNOWN = {200, 400, 408, 413, 415, 422, 429, 503, 504}
PATH = "/v1/transcriptions"


class Server:
    """`avhubert serve` in a process, and what its clients got."""

    def __init__(self, world: Path, folder: Path) -> None:
        self.scratch = folder / "server"
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        self.log = folder / "server.log"
        environment = {**os.environ, "TMPDIR": str(self.scratch), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        options = ["--port", "0", "--queue", str(QUEUE), "--max-seconds", "20", "--device", "cpu"]
        command = [sys.executable, "-m", "avhubert.cli", "serve", "--model", str(world / "recognizer"), *options]
        with open(self.log, "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, start_new_session=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("page: "), line + self.log.read_text(encoding="utf-8")
        self.address = line.split()[1].rstrip("/")
        self.port = int(self.address.rpartition(":")[2])
        self.first_memory = 0

    def memory(self) -> int:
        """Bytes in memory of the server and its workers."""
        total = 0
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                session = int((path / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[3])
                if session == self.process.pid:
                    found = re.search(r"VmRSS:\s+(\d+) kB", (path / "status").read_text(encoding="utf-8"))
                    total += int(found[1]) * 1024 if found else 0
        return total

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _recording(rng: random.Random) -> bytes:
    time_axis = np.arange(rng.choice((4000, 16_000, 48_000))) / 16_000
    return wav_bytes((8000 * np.sin(2 * np.pi * 300 * time_axis) * np.sin(9 * time_axis)).astype(np.int16))


def _body(content: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return head + content + b"\r\n--b--\r\n"


def _malformed(rng: random.Random) -> bytes:
    """A multipart body that is cut, has a wrong boundary, endless headers, or a file name that leads elsewhere."""
    whole = _body(_recording(rng)[:3000])
    return rng.choice((
        whole[: rng.randrange(len(whole))], whole.replace(b"--b", b"--c"), b"--b\r\n" * 2000, rng.randbytes(500), b"",
        whole.replace(b"a.wav", b"../../../outside"), whole.replace(b"a.wav", b"a\0b"), whole.replace(b"\r\n", b"\n"),
        b"--b\r\nX: " + b"x" * 100_000, whole.replace(b'name="file"', b'name="' + b"n" * 9000 + b'"'),
    ))  # fmt: skip


def _request(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    kind = "Content-Type: multipart/form-data; boundary=b"
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{kind}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def _status(sock: socket.socket) -> int:
    answer = b""
    while b"\r\n" not in answer and (part := sock.recv(4096)):
        answer += part
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0


class Clients:
    """Clients that send whole, malformed, slow and cancelled requests for a while."""

    def __init__(self, server: Server, seconds: float) -> None:
        self.server, self.end = server, time.monotonic() + seconds
        self.got: Counter[str] = Counter()
        self.lost: list[str] = []

    def whole(self, rng: random.Random) -> None:
        """Every whole request must get an answer with a known status."""
        while time.monotonic() < self.end:
            try:
                answer = httpx.post(self.server.address + PATH, files={"file": ("a.wav", _recording(rng))}, timeout=120)
                self.got[str(answer.status_code)] += 1
                if answer.status_code not in KNOWN:
                    self.lost.append(f"status {answer.status_code}: {answer.text[:200]}")
                if answer.status_code in (429, 503):
                    time.sleep(0.1)
            except httpx.HTTPError as error:
                self.lost.append(repr(error))

    def hostile(self, rng: random.Random) -> None:
        while time.monotonic() < self.end:
            kind = rng.choice(("malformed", "cancelled", "slow writer", "slow reader"))
            self.got[kind] += 1
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server.port), 30) as sock:
                sock.settimeout(30)
                if kind == "malformed":
                    sock.sendall(_request(_malformed(rng)))
                    status = _status(sock)
                    if status not in KNOWN:
                        self.lost.append(f"malformed request: status {status}")
                elif kind == "cancelled":
                    body = _request(_body(_recording(rng)))
                    sock.sendall(body[: rng.randrange(1, len(body) + 1)])
                elif kind == "slow writer":
                    for byte in _request(_body(_recording(rng)))[:20]:
                        sock.sendall(bytes([byte]))
                        time.sleep(0.02)
                else:
                    sock.sendall(_request(_body(_recording(rng))))
                    time.sleep(rng.uniform(0, 1))


def make(folder: Path, seed: int) -> Case:
    if not Path("/proc/self/status").exists():
        return lambda number: Outcome(f"{number}", SKIPPED, "memory is read in /proc")
    server = Server(make_world(folder / "world"), folder)
    cases_done = 0

    def case(number: int) -> Outcome:
        nonlocal cases_done
        clients = Clients(server, CASE_SECONDS)
        threads = [
            threading.Thread(target=send, args=(random_of(seed, f"serve {n}", number),))
            for n, send in enumerate([clients.whole] * CLIENTS + [clients.hostile] * 2)
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cases_done += 1
        memory = server.memory()
        if cases_done == WARM_UP_CASES:
            server.first_memory = memory
        grown = memory / server.first_memory - 1 if server.first_memory else 0.0
        name = f"{number}: " + ", ".join(f"{count} × {what}" for what, count in sorted(clients.got.items()))
        if server.process.poll() is not None:
            return Outcome(name, "crash", server.log.read_text(encoding="utf-8")[-500:], CASE_SECONDS, memory / 2**20)
        if "Traceback" in server.log.read_text(encoding="utf-8"):
            return Outcome(
                name, "traceback", server.log.read_text(encoding="utf-8")[-500:], CASE_SECONDS, memory / 2**20
            )
        if clients.lost:
            return Outcome(name, "lost", "; ".join(clients.lost[:5]), CASE_SECONDS, memory / 2**20)
        if grown > MORE_MEMORY:
            return Outcome(
                name, "memory grows", f"{grown:.1%} since case {WARM_UP_CASES}", CASE_SECONDS, memory / 2**20
            )
        return Outcome(name, ACCEPTED, f"memory {grown:+.1%}", CASE_SECONDS, memory / 2**20)

    case.close = server.stop  # type: ignore[attr-defined]
    return case


PART = Part(
    "serve",
    "a server at the limit of its queue, with malformed, slow and cancelled requests, for an hour: every whole request "
    "gets an answer, no traceback, memory grows by at most 1 % after three minutes",
    round(3600 / CASE_SECONDS),
    make,
)
