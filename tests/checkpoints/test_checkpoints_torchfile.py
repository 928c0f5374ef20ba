"""Hostile and broken files: each is refused in one sentence that names it, runs nothing and takes little memory.

All are read in one process of their own, whose memory is limited, so that a hole cannot take the machine with it.
"""

from __future__ import annotations

import builtins
import io
import json
import operator
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from avhubert.checkpoints.torchfile import TorchFile
from avhubert.errors import CheckpointError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
MEMORY = 2 << 30

READER = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
import torch
from avhubert.checkpoints.fairseq import read as fairseq
from avhubert.checkpoints.pickles import TensorRecord
from avhubert.checkpoints.torchfile import TorchFile
torch.set_num_threads(1)


def read_tensors(path):
    file = TorchFile(path)
    model = file.content.get("model") if isinstance(file.content, dict) else None
    if isinstance(model, dict) and len(model) < 9:
        for record in model.values():
            if isinstance(record, TensorRecord):
                file.tensor(record)


for line in sys.stdin:
    told = {"name": Path(line.strip()).name}
    for how, read in (("file", TorchFile), ("tensors", read_tensors), ("load", fairseq.load)):
        try:
            read(line.strip())
            told["load"] = ["", "it was read"]
        except BaseException as error:
            told |= {"load": [type(error).__name__, str(error)], "refused by": how}
            break
    told["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps(told), flush=True)
"""


# --------------------------------------------------------------------------- writing files by hand
def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def call(module: str, name: str, arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + arguments + b"R"


def items(*pairs: bytes) -> bytes:
    """A dict of keys and values that are given as opcodes."""
    return b"}(" + b"".join(pairs) + b"u"


def whole(opcodes: bytes) -> bytes:
    return b"\x80\x02" + opcodes + b"."


def tensor(
    count: int = 4,
    offset: int = 0,
    size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    key: str = "0",
    view: bytes = b"",
) -> bytes:
    """Opcodes of a tensor as torch writes it; the legacy layout has a `view`, always None."""
    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + integer(count) + view + b"tQ"
    )
    shape, step = (b"(" + b"".join(map(integer, numbers)) + b"t" for numbers in (size, stride))
    arguments = b"(" + storage + integer(offset) + shape + step + b"\x89" + call("collections", "OrderedDict", b")")
    return call("torch._utils", "_rebuild_tensor_v2", arguments + b"t")


def zipped(opcodes: bytes, data: bytes = bytes(16), compression: int = zipfile.ZIP_STORED) -> bytes:
    """The zip layout."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", opcodes)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", data)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def legacy(opcodes: bytes, data: bytes = bytes(16), keys: tuple[str, ...] = ("0",)) -> bytes:
    """The layout before torch 1.6."""
    head = b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, SYSTEM))
    storages = struct.pack("<q", len(data) // 4) + data if keys else b""
    return head + opcodes + pickle.dumps(list(keys), 2) + storages


class Reduced:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.parts


def touching(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()"


# --------------------------------------------------------------------------- payloads that would make the marker
def nested_in_tensors(marker: Path) -> bytes:
    inside = b"(" + text(touching(marker)) + b"t"
    return whole(items(text("model"), items(text("good"), tensor(), text("bad"), call("builtins", "exec", inside))))


def getattr_chain(marker: Path) -> bytes:
    module = call("importlib", "import_module", text("os") + b"\x85")
    function = call("builtins", "getattr", module + text("system") + b"\x86")
    return whole(function + text(f"touch {marker}") + b"\x85R")


def stack_global(marker: Path) -> bytes:
    """`avhubert.checkpoints.torchfile`'s own import of io, reached by a dotted name."""
    name = text("avhubert.checkpoints.torchfile") + text("io.open")
    return b"\x80\x04" + name + b"\x93" + text(str(marker)) + text("w") + b"\x86R."


def hidden_in_torch_load(marker: Path) -> bytes:
    inner = io.BytesIO(zipped(pickle.dumps(Reduced(os.system, f"touch {marker}"), 2)))
    return pickle.dumps(Reduced(torch.load, inner), 4)


def calling(function: Callable, argument: Callable[[Path], Any], protocol: int = 2) -> Callable[[Path], bytes]:
    return lambda marker: pickle.dumps({"model": {}, "cfg": Reduced(function, argument(marker))}, protocol)


CALLS: dict[str, Callable[[Path], bytes]] = {
    "os.system": calling(os.system, lambda marker: f"touch {marker}"),
    "os.system, protocol 4": calling(os.system, lambda marker: f"touch {marker}", 4),
    "builtins.eval": calling(builtins.eval, touching),
    "builtins.exec": calling(builtins.exec, touching),
    "subprocess.Popen": calling(subprocess.Popen, lambda marker: ["touch", str(marker)]),
    "importlib.import_module": lambda marker: whole(call("importlib", "import_module", text("marking") + b"\x85")),
    "operator.methodcaller": calling(operator.methodcaller("touch"), lambda marker: marker),
    "nested in the tensors": nested_in_tensors,
    "getattr chain": getattr_chain,
    "STACK_GLOBAL with a dotted name": stack_global,
    "torch.load in a REDUCE": hidden_in_torch_load,
}


# --------------------------------------------------------------------------- broken, and made to eat memory or time
GOOD = whole(items(text("model"), items(text("a"), tensor())))


def in_cfg(opcodes: bytes) -> bytes:
    return whole(items(text("model"), items(text("a"), tensor()), text("cfg"), opcodes))


def alone(**changes: Any) -> bytes:
    return whole(items(text("model"), items(text("a"), tensor(**changes))))


def laughs(levels: int) -> bytes:
    """A list of two of the list before, and so on: 2 ** levels leaves in a few bytes."""
    opcodes = b"]" + text("ha") + b"aq\x00"
    for _ in range(levels):
        opcodes += b"0](h\x00h\x00eq\x00"
    return opcodes


def shared_numbers() -> bytes:
    """2000 tensors of the same 4 MB."""
    names = b"".join(text(f"a{number}") + tensor(1 << 20, 0, (1 << 20,)) for number in range(2000))
    return zipped(whole(items(text("model"), items(names))), bytes(4 << 20))


def copies(named: bytes, again: bytes) -> bytes:
    """A memoized object, and 5000 calls that copy it."""
    return in_cfg(named + b"q\x010](" + again * 5000 + b"e")


def moved_member() -> bytes:
    """The numbers begin behind the end of the file, as the header says that it was told to use."""
    raw = bytearray(zipped(GOOD))
    entry = raw.rfind(b"archive/data/0") - 46
    assert raw[entry : entry + 4] == b"PK\x01\x02"
    local = raw.find(b"archive/version") - 30  # a whole header, and behind it less than is claimed
    raw[entry + 42 : entry + 46] = struct.pack("<I", local)
    raw[local + 28 : local + 30] = b"\xff\xff"
    return bytes(raw)


def beyond_64_bits() -> bytes:
    """A zip64 offset that no file has."""
    raw = zipped(GOOD)
    entry = raw.rfind(b"archive/data/0") - 46
    name = raw[entry + 46 : entry + 60]
    extra = struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    fixed = bytearray(raw[entry : entry + 46])
    fixed[30:32] = struct.pack("<H", len(extra))
    fixed[42:46] = b"\xff" * 4
    end = bytearray(raw[-22:])
    end[12:16] = struct.pack("<I", struct.unpack("<I", end[12:16])[0] + len(extra))
    return raw[:entry] + bytes(fixed) + name + extra + raw[entry + 60 : -22] + bytes(end)


def zip_of_zeros() -> bytes:
    """A pickle that unpacks to 3 GB of zeros from 3 MB: the same megabyte again and again, as deflate allows."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = megabyte * 3072 + b"\x03\x00"
    raw = bytearray(zipped(packed))
    for start, method, size in ((0, 8, 22), (raw.rfind(b"archive/data.pkl") - 46, 10, 24)):
        raw[start + method : start + method + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        raw[start + size : start + size + 4] = struct.pack("<I", 3 << 30)
    return bytes(raw)


FILES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"epoch 12 accuracy 0.93\n" * 40,
    "truncated zip": lambda: zipped(GOOD)[:-90],
    "truncated legacy": lambda: legacy(GOOD)[:-4],
    "truncated pickle": lambda: zipped(GOOD[:-9]),
    "zip of zeros": zip_of_zeros,
    "compressed": lambda: zipped(GOOD, compression=zipfile.ZIP_DEFLATED),
    "no data.pkl": lambda: zipped(GOOD).replace(b"data.pkl", b"data.pkx"),
    "header beyond the end": moved_member,
    "offset beyond 64 bits": beyond_64_bits,
    "big-endian": lambda: zipped(GOOD).replace(b"little", b"biggie"),
    "1e12 elements": lambda: zipped(alone(size=(10**12,))),
    "1e12 elements, legacy": lambda: legacy(alone(size=(10**12,))),
    "1e12 elements of one number": lambda: zipped(alone(size=(10**12,), stride=(0,))),
    "storage of 1e12": lambda: zipped(alone(count=10**12, size=(10**12,))),
    "storage of 1e12, legacy": lambda: legacy(alone(count=10**12, size=(10**12,))),
    "no numbers of an impossible shape": lambda: zipped(alone(size=(0, 1 << 61, 1 << 61), stride=(1, 1, 1))),
    "negative offset": lambda: zipped(alone(offset=-1)),
    "negative stride": lambda: zipped(alone(stride=(-1,))),
    "negative size": lambda: zipped(alone(size=(-4,))),
    "more strides than sizes": lambda: zipped(alone(stride=(1, 1))),
    "offset behind the end": lambda: zipped(alone(offset=2)),
    "unknown storage": lambda: zipped(alone(key="7")),
    "tensors share numbers": shared_numbers,
    "a dict that contains itself": lambda: zipped(in_cfg(b"}q\x00" + text("me") + b"h\x00s")),
    "a dict that contains itself, legacy": lambda: legacy(in_cfg(b"}q\x00" + text("me") + b"h\x00s")),
    "deep nesting": lambda: zipped(in_cfg(b"]" * 100_000 + b"a" * 99_999)),
    "deep nesting of tuples": lambda: zipped(in_cfg(b")" + b"\x85" * 100_000)),
    "billion laughs": lambda: zipped(in_cfg(laughs(60))),
    "billion laughs as symbols": lambda: zipped(
        whole(
            items(text("model"), items(text("a"), tensor()), text("task_state"), items(text("dictionaries"), b"](" + (
                b"cfairseq.data.dictionary\nDictionary\n)\x81" + items(text("symbols"), laughs(60)) + b"b"
            ) + b"e"))
        )
    ),
    "copies of bytes": lambda: zipped(
        copies(text("x" * (1 << 20)), b"c_codecs\nencode\nh\x01" + text("latin1") + b"\x86R")
    ),
    "copies of a dict": lambda: zipped(
        copies(items(*(integer(number) + b"N" for number in range(20_000))), b"cbuiltins\ndict\nh\x01\x85R")
    ),
    "copies of a list": lambda: zipped(copies(b"](" + b"N" * 300_000 + b"e", b"cbuiltins\nlist\nh\x01\x85R")),
    "too many steps in two pickles": lambda: legacy(whole(b"N0" * 1_500_000 + b"N") * 2),
    "a number of 5000 digits": lambda: zipped(
        whole(items(text("model"), items(b"\x8b" + struct.pack("<I", 5000) + b"\x01" * 5000, tensor())))
    ),
    "unknown persistent id": lambda: zipped(whole(items(text("model"), text("module") + b"Q"))),
    "persistent id of another kind": lambda: zipped(
        whole(b"(" + text("module") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + integer(4) + b"tQ")
    ),
    "persistent id as text": lambda: zipped(whole(b"P0\n")),
    "unknown name of a known module": lambda: zipped(whole(call("collections", "Counter", b")"))),
    "extension registry": lambda: zipped(whole(b"\x82\x01")),
    "extension registry, long": lambda: legacy(whole(b"\x84\x01\x00\x00\x00")),
    "INST": lambda: zipped(whole(b"(ios\nsystem\n")),
    "OBJ": lambda: zipped(whole(b"(ccollections\nOrderedDict\no")),
    "a name of two lines": lambda: zipped(b"\x80\x04" + text("os\nsystem") + text("x\x1b[2J\r") + b"\x93."),
    "tensors of two lines": lambda: zipped(whole(items(text("model"), items(text("a\nb"), b"N")))),
    "a call of what is no name": lambda: zipped(whole(text("os.system") + text("ls") + b"\x85R")),
    "a key that is a list": lambda: zipped(whole(b"}])s")),
    "no state dict": lambda: zipped(whole(b"}")),
    "not a dict": lambda: legacy(whole(b"K\x01"), keys=()),
}  # fmt: skip

REFUSED_LATER = {  # harmless as such: who reads the tensors or makes a model of it refuses it, and says why
    "a dict that contains itself": ("load", "nested without end"),
    "a dict that contains itself, legacy": ("load", "nested without end"),
    "deep nesting": ("load", "nested without end"),
    "deep nesting of tuples": ("load", "nested without end"),
    "billion laughs": ("load", "nested without end"),
    "billion laughs as symbols": ("load", "a symbol that is not text"),
    "tensors share numbers": ("load", "its tensors share their numbers"),
    "no state dict": ("load", "no state dict under 'model'"),
    "not a dict": ("load", "no state dict under 'model'"),
    "a number of 5000 digits": ("load", "not a tensor: a key of type int"),
    "tensors of two lines": ("load", "not a tensor: a?b"),
    "1e12 elements": ("tensors", "a tensor [1000000000000] lies outside"),
    "1e12 elements, legacy": ("tensors", "a tensor [1000000000000] lies outside"),
    "1e12 elements of one number": ("tensors", "a tensor [1000000000000] lies outside"),
    "storage of 1e12": ("tensors", "a tensor [1000000000000] lies outside"),
    "offset behind the end": ("tensors", "a tensor [4] lies outside"),
    "unknown storage": ("tensors", "a tensor [4] lies outside"),
}
NAMES = [*(f"{name}, {kind}" for name in CALLS for kind in ("zip", "legacy")), *FILES, "a folder"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def marker(folder: Path) -> Path:
    """The file that a payload makes if it is run; `import marking` makes it too."""
    (folder / "marking.py").write_text(touching(folder / "marker"), encoding="utf-8")
    return folder / "marker"


@pytest.fixture(scope="module")
def told(folder: Path, marker: Path) -> dict[str, dict[str, Any]]:
    """What became of each file, by name; one that is not there took the process with it."""
    contents = {f"{name}, zip": zipped(make(marker)) for name, make in CALLS.items()}
    contents |= {f"{name}, legacy": legacy(make(marker)) for name, make in CALLS.items()}
    contents |= {name: make() for name, make in FILES.items()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "a folder").mkdir()
    asked = "".join(f"{folder / name}\n" for name in NAMES)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", READER], input=asked, env=environment, capture_output=True, text=True, timeout=300
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found, done.stderr
    return {one["name"]: one for one in found}


@pytest.mark.parametrize("name", NAMES)
def test_hostile_and_broken_files_are_refused(name: str, told: dict, folder: Path, marker: Path) -> None:
    assert name in told, "the process that read it died"
    kind, sentence = told[name]["load"]
    assert kind == "CheckpointError", sentence[:300]
    assert str(folder / name) in sentence
    assert sentence.isprintable(), ascii(sentence)
    assert len(sentence) < len(str(folder / name)) + 300
    refused_by, why = REFUSED_LATER.get(name, ("file", ""))
    assert told[name]["refused by"] == refused_by
    assert why in sentence
    assert not marker.exists()
    assert told[name]["peak"] < MEMORY


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("name", CALLS)
def test_what_is_refused_is_what_would_be_called(name: str, kind: str, told: dict) -> None:
    called = {
        "nested in the tensors": "builtins.exec",
        "getattr chain": "builtins.getattr",
        "STACK_GLOBAL with a dotted name": "avhubert.checkpoints.torchfile.io.open",
        "torch.load in a REDUCE": "torch.serialization.load",
        "os.system": "posix.system",
        "subprocess.Popen": "commands.Popen",  # as protocol 2 writes it
        "os.system, protocol 4": "posix.system",
    }.get(name, name)
    assert f"'{called}'" in told[f"{name}, {kind}"]["load"][1].replace("__builtin__", "builtins")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CALLS)
def test_the_payloads_are_live(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above would pass with payloads that do nothing."""
    (tmp_path / "marking.py").write_text(touching(tmp_path / "marker"), encoding="utf-8")
    raw = CALLS[name](tmp_path / "marker")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.syspath_prepend(tmp_path)

    class Loader(pickle.Unpickler):
        def persistent_load(self, identifier: Any) -> Any:
            return torch.FloatStorage(4)

    made = Loader(io.BytesIO(raw)).load()
    sys.modules.pop("marking", None)
    if isinstance(made, dict) and isinstance(made.get("cfg"), subprocess.Popen):
        made["cfg"].wait()
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(("layout", "view"), [(zipped, b""), (legacy, b"N")])
def test_the_handwritten_layouts_are_read(layout: Callable[..., bytes], view: bytes, tmp_path: Path) -> None:
    """Else the files above would be refused for how they are written; torch itself reads these too."""
    numbers = torch.arange(6.0)
    opcodes = whole(items(text("model"), items(text("a"), tensor(6, 1, (2, 2), (1, 3), view=view))))
    (tmp_path / "good.pt").write_bytes(layout(opcodes, numbers.numpy().tobytes()))
    file = TorchFile(tmp_path / "good.pt")
    expected = torch.load(tmp_path / "good.pt", weights_only=True)["model"]["a"]
    assert torch.equal(expected, torch.tensor([[1.0, 4.0], [2.0, 5.0]]))
    read = file.tensor(file.content["model"]["a"])
    assert torch.equal(read, expected)
    assert read.is_contiguous()


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_what_torch_writes_is_read(layout: str, tmp_path: Path) -> None:
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    tensors = {str(kind): torch.arange(24).reshape(2, 3, 4).to(kind) for kind in (*kinds, torch.int8, torch.uint8)}
    tensors |= {"bool": torch.tensor([True, False]), "scalar": torch.tensor(2.5), "none": torch.empty(0, 3)}
    tensors |= {"turned": torch.arange(6.0).reshape(2, 3).T, "part": torch.arange(9.0)[2:8:3]}
    tensors |= {"parameter": torch.nn.Parameter(torch.ones(2)), "spread": torch.ones(1).expand(5)}
    torch.save({"model": tensors, "size": torch.Size([1, 2])}, tmp_path / "a.pt",
               _use_new_zipfile_serialization=layout == "zip")  # fmt: skip
    file = TorchFile(tmp_path / "a.pt")
    assert file.content["size"] == (1, 2)
    assert file.content["model"].keys() == tensors.keys()
    for name, expected in tensors.items():
        if name != "spread":  # more of it than numbers in the file: only a hostile file has that
            read = file.tensor(file.content["model"][name])
            assert read.dtype == expected.dtype
            assert torch.equal(read, expected)
    with pytest.raises(CheckpointError, match=r"a\.pt is damaged: a tensor \[5\] lies outside"):
        file.tensor(file.content["model"]["spread"])


def test_a_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(legacy(GOOD))
    file = TorchFile(tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(legacy(GOOD)[:-6])
    with pytest.raises(CheckpointError, match=r"a\.pt is damaged: it ends too early"):
        file.tensor(file.content["model"]["a"])
    (tmp_path / "a.pt").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*a\.pt: No such file"):
        file.tensor(file.content["model"]["a"])


def test_one_flipped_bit_is_detected_by_the_archive_s_checksum(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": {"weight": torch.arange(1000.0)}}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # torch does not notice
    with pytest.raises(CheckpointError, match=r"the checksum of model/data/0 differs; get the file again"):
        TorchFile(path)
