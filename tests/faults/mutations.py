"""Ways to damage a file: as bytes, as text with values, and as archives and pickles that attack their reader."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]


# --------------------------------------------------------------------------- bytes
def flip(data: bytes, rng: random.Random, count: int = 1) -> bytes:
    """Flip `count` bits."""
    changed = bytearray(data or b"\0")
    for _ in range(count):
        position = rng.randrange(8 * len(changed))
        changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def flip_many(data: bytes, rng: random.Random) -> bytes:
    return flip(data, rng, rng.choice((8, 64, 512)))


def flip_head(data: bytes, rng: random.Random) -> bytes:
    """Flip bits in the first bytes, where formats have their signatures and lengths."""
    head = min(len(data), 64)
    return flip(data[:head], rng, rng.randint(1, 4)) + data[head:]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def delete(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randint(1, 200) :]


def insert(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.randint(1, 200)) + data[start:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start : start + 500] * rng.randint(2, 50) + data[start:]


def zeros(data: bytes, rng: random.Random) -> bytes:
    """A block of zeros, as a file system leaves them after a power cut."""
    start = rng.randrange(len(data) + 1)
    size = rng.choice((16, 512, 4096))
    return data[:start] + bytes(min(size, len(data) - start)) + data[start + size :]


def huge_number(data: bytes, rng: random.Random) -> bytes:
    """A length or offset becomes huge."""
    start = rng.randrange(max(1, len(data) - 8))
    value = rng.choice((2**31 - 1, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1))
    return data[:start] + struct.pack("<Q", value) + data[start + 8 :]


OTHER_FILES = (
    b"",
    b"\0" * 5000,
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 389000000\n",
    b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    b"\x1f\x8b\x08" + b"\0" * 100,
    "Text in UTF-16".encode("utf-16"),
    b"\x89PNG\r\n\x1a\n" + b"\0" * 200,
    b"MZ" + b"\0" * 200,
)


def other_file(data: bytes, rng: random.Random) -> bytes:
    """A file of another kind under this name."""
    return rng.choice((*OTHER_FILES, rng.randbytes(3000)))


BYTES: tuple[Mutation, ...] = (
    flip, flip_many, flip_head, truncate, delete, insert, repeat, zeros, huge_number, other_file,
)  # fmt: skip


# --------------------------------------------------------------------------- values in text
VALUES: tuple[Any, ...] = (
    None, True, "", [], {}, 0, -1, 1.5, 10**9, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), "nan",
    "x" * 200_000, "../../../../outside", "/outside/absolute", "a\0b", "line\nbreak", "\u202e\u0000", "\udc80",
    [[[]]] * 3, {"a": {"b": 1}},
)  # fmt: skip


def json_value(data: bytes, rng: random.Random) -> bytes:
    """One value of a JSON file becomes another one, a key disappears, or one is added."""
    try:
        root = json.loads(data)
    except ValueError:
        return flip(data, rng)
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            places.append((node, key))
            collect(value)

    collect(root)
    if not places:
        return json.dumps(rng.choice(VALUES)).encode()
    node, key = rng.choice(places)
    action = rng.random()
    if action < 0.15 and isinstance(node, dict):
        del node[key]
    elif action < 0.25 and isinstance(node, dict):
        node[rng.choice(("unknown", "", "../x", "__class__"))] = rng.choice(VALUES)
    elif action < 0.3:
        return json.dumps(rng.choice(VALUES)).encode()
    else:
        node[key] = rng.choice(VALUES)
    return json.dumps(root).encode()


def deep_json(data: bytes, rng: random.Random) -> bytes:
    """Nesting so deep that a recursive reader runs out of stack."""
    return rng.choice((b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000))


FIELDS = (
    "", "-1", "0", "99999999999999999999", "1e5", "nan", "NaN", "٣", "²", "../../../outside", "/outside/absolute",
    "a\0b", "\ufeff", "x" * 100_000, "é" * 200, "/dev/zero", "/dev/stdin", "C:\\x", "..", ".", "~", "\r", "9" * 5000,
)  # fmt: skip


def text_field(data: bytes, rng: random.Random) -> bytes:
    """One field of a line becomes another one, a line is repeated, deleted, or moved."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    number = rng.randrange(len(lines))
    action = rng.random()
    if action < 0.1:
        lines.insert(number, lines[number])
    elif action < 0.2:
        del lines[number]
    elif action < 0.25:
        rng.shuffle(lines)
    else:
        fields = re.split(r"([\t ])", lines[number])
        fields[2 * rng.randrange((len(fields) + 1) // 2)] = rng.choice(FIELDS)
        lines[number] = "".join(fields)
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def other_encoding(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return rng.choice(
        (b"\xef\xbb\xbf" + data, text.encode("utf-16"), data.replace(b"\n", b"\r\n"), data + b"\xe9\xff\n")
    )


TEXT: tuple[Mutation, ...] = (*BYTES, text_field, text_field, text_field, text_field, other_encoding)
JSON: tuple[Mutation, ...] = (*TEXT[:10], *(json_value,) * 10, deep_json, other_encoding)

YAML_ATTACKS = (
    "!!python/object/apply:os.system ['{program}']\n",
    "model: !!python/object/new:subprocess.Popen [['sh', '-c', '{program}']]\n",
    "_target_: os.system\ncommand: '{program}'\n",
    "model:\n  _target_: subprocess.call\n  args: ['{program}']\n",
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "model: ${model}\n",
    "seed: ${oc.env:HOME}\n",
    "seed: ${oc.decode:${oc.env:HOME}}\n",
    "defaults: [../../../../etc/passwd]\n",
    "defaults:\n  - /etc/passwd@_here_\n",
    "seed: 1\nseed: 2\n",
    "seed: 0x" + "f" * 5000 + "\n",
    "seed: .nan\n",
    "? [a, b]\n: 1\n",
    "hydra:\n  run:\n    dir: /outside/absolute\n",
    "{" * 3000,
    "a: |\n" + " x\n" * 100_000,
    "\t- x\n",
    "train: 5\n",
    "train:\n  max_steps: " + "9" * 400 + "\n",
    "seed: 2001-01-01\n",
    "model:\n  visual_blocks: [1, [2], {a: b}, .inf]\n",
    "--- \nseed: 1\n--- \nseed: 2\n",
)


def yaml_attack(program: str) -> Mutation:
    """A YAML file that would start `program`, expand without limit, or name files elsewhere."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        attack = rng.choice(YAML_ATTACKS).replace("{program}", program).encode()
        return attack if rng.random() < 0.5 else data + b"\n" + attack

    return mutate


# --------------------------------------------------------------------------- pickles and archives
class _Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


def attacking_pickles(program: str) -> list[bytes]:
    """Pickles that would start `program`, or take time and memory without limit."""
    python = f"__import__('os').system({program!r})"
    called = [_Call(os.system, program), _Call(eval, python), _Call(exec, python), _Call(__import__, "antigravity")]
    nested = {"model": {"weight": [called[0]]}, "cfg": [_Call(pickle.loads, pickle.dumps(called[0]))]}
    bombs = [
        b"\x80\x02]q\x00" + b"(h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00eh\x00" * 5000 + b".",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b".",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        b"\x80\x02" + b"(" * 500_000 + b"t" * 500_000 + b".",
        b"cposix\nsystem\n(S'" + program.encode() + b"'\ntR.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"}.",
        b"\x80\x02K\x01" + b"\x85" * 300_000 + b".",
        b"\x80\x02}(" + b"X\xff\xff\xff\x7f" + b"a" * 100 + b".",
        b"I" + b"9" * 200_000 + b"\n.",
    ]
    return [pickle.dumps(value, 2) for value in (*called, nested)] + bombs


def pickle_attack(program: str) -> Mutation:
    """The pickle in a zip archive of torch becomes an attack; another file becomes that pickle itself."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        attack = rng.choice(attacking_pickles(program))
        if not data.startswith(b"PK") or rng.random() < 0.2:
            return attack
        return _rewritten(data, lambda name, content: attack if name.endswith("data.pkl") else content)

    return mutate


def zip_attack(data: bytes, rng: random.Random) -> bytes:
    """Zip bombs, repeated members, members outside the folder, compressed members, missing members."""
    if not data.startswith(b"PK"):
        return flip(data, rng)
    kind = rng.randrange(6)
    if kind == 0:  # 300 MB of zeros in 300 kB
        return _rewritten(data, lambda _, content: content, zipfile.ZIP_DEFLATED, {"archive/data/0": bytes(300 << 20)})
    if kind == 1:
        return _rewritten(data, lambda _, content: content, extra={"../../outside": b"x", "/outside/absolute": b"x"})
    if kind == 2:
        return _rewritten(data, lambda name, content: b"" if "/data/" in name else content)
    if kind == 3:
        return _rewritten(data, lambda name, content: content[: len(content) // 2] if "/data/" in name else content)
    if kind == 4:
        return _rewritten(data, lambda _, content: content, extra={f"archive/data/{i}": b"" for i in range(20_000)})
    return _rewritten(data, lambda name, content: content + bytes(64) if "/data/" in name else content)


def _rewritten(
    data: bytes,
    change: Callable[[str, bytes], bytes],
    compression: int = zipfile.ZIP_STORED,
    extra: dict[str, bytes] | None = None,
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w", compression) as target:
        names = source.namelist()
        for name in names:
            target.writestr(name, change(name, source.read(name)))
        for name, content in (extra or {}).items():
            if name not in names:
                target.writestr(name, content)
    return buffer.getvalue()


def tar_attack(data: bytes, rng: random.Random) -> bytes:
    """Members that are links, devices, outside the folder, or that claim more bytes than there are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(8):
            info = tarfile.TarInfo(rng.choice((f"{number:06d}.npy", "../../outside", "/outside/absolute", "a/../../b")))
            info.type = rng.choice(
                (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.REGTYPE)
            )
            info.linkname = rng.choice(("/etc/passwd", "../../outside", "/dev/zero"))
            archive.addfile(info)
    start = rng.randrange(max(1, len(data) // 512)) * 512
    return data[:start] + buffer.getvalue() + data[start:]


def numpy_attack(program: str) -> Mutation:
    """An array file whose header claims more than there is, or that holds a pickle."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        shape, dtype = rng.choice((
            ((10**12,), "<f4"), ((-1, 3), "<f4"), ((0, 16), "<f4"), ((3,), "|O"), ((6, 26), "<f8"), ((6, 26), ">f4"),
            ((6, 26), "<U9"), ((2**62, 2**62), "<f4"), ((), "<f4"), ((6, 26), "<M8[s]"),
        ))  # fmt: skip
        header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
        body = rng.choice((data[128:], attacking_pickles(program)[0], struct.pack("<f", float("nan")) * 156))
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body

    return mutate


# --------------------------------------------------------------------------- not a regular file
def replace_by_special(path: Path, rng: random.Random) -> str:
    """The file becomes a folder, a link, a pipe or something without end; the name of what it became."""
    kind = rng.choice(
        (
            "a folder",
            "a broken link",
            "a link to itself",
            "a link to /dev/zero",
            "a pipe",
            "unreadable",
            "10 GB of zeros",
        )
    )
    if kind == "unreadable":
        path.chmod(0)
        return kind
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a broken link":
        path.symlink_to("nowhere")
    elif kind == "a link to itself":
        path.symlink_to(path.name)
    elif kind == "a link to /dev/zero":
        path.symlink_to("/dev/zero")
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        with open(path, "wb") as handle:
            handle.truncate(10 << 30)
    return kind
