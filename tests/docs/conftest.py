"""Runs the `sh` and `python` blocks of a document in a folder that holds the files which the documents mention.

The commands of a block are the real ones; small settings are appended to those that train, so that a block takes
seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from avhubert.cli import app as cli

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.S | re.M)
# blocks with one of these words are not run; the value is the reason
NOT_RUN = {
    "--config-dir conf/finetune": "needs a file of the published project; see test_checkpoints_published_presets.py",
    "griddata": "needs GRID; tests/prepare/test_prepare_grid.py prepares a synthetic one",
    "enactic/": "needs the Hub; test_avista.py gives a folder of that layout to the same commands",
    "push_to_hub": "needs the Hub; test_checkpoints_hub.py sends to a server of its own",
}
SMALL = (
    "model.visual_width=8 model.visual_blocks=[1,1,1,1] model.encoder_layers=12 model.encoder_embed_dim=32 "
    "model.encoder_ffn_embed_dim=64 model.encoder_attention_heads=2 model.conv_pos=4 model.conv_pos_groups=2 "
    "model.final_dim=16"
)
FEW = (
    "train.max_steps=2 train.frames_per_step=200 train.frames_per_batch=100 train.validate_every=2 train.save_every=2 "
    "data.max_frames=90 train.accelerator=cpu"
)
# programs that replace the real ones: the same command with small settings, or one without effect
PROGRAMS = {
    "avhubert": f"""
args=()
for one in "$@"; do [ "$last" = --clips ] && [ "$one" -gt 16 ] && one=16; args+=("$one"); last=$one; done
case "$1" in
  pretrain) more="{FEW} {SMALL}"; [[ "$*" == *model.pretrained=* ]] && more="{FEW}";;
  finetune) more="{FEW}";;
  pseudo-label) more="--min-confidence -99";;
  iterate) more="{FEW} {SMALL} clusters=[8,8,8,8,8]";;
esac
exec "$PYTHON" -m avhubert.cli "${{args[@]}}" $more""",
    "torchrun": f"""
while [ "$1" != -m ]; do shift; done
exec "$PYTHON" -m torch.distributed.run --standalone --nproc-per-node 2 "$@" {FEW} {SMALL}""",
    "sbatch": """
if grep -q -- --array=0-3 "$1"; then for n in 0 1 2 3; do SLURM_ARRAY_TASK_ID=$n bash -euo pipefail "$1"; done
else bash -euo pipefail "$1"; fi""",
    "srun": 'exec "$@"',
    "pip": """
[ "$1" = install ]
for one in $(tr ',' ' ' <<< "${2//[^a-z,]/ }"); do
  grep -qxF "$one" extras.txt || { echo "there is no extra $one" >&2; exit 1; }
done""",
    "make": f'exec "$MAKE" -n -C "{ROOT}" "$@"',
}  # fmt: skip


def _run(*arguments: str) -> None:
    assert cli.main(list(arguments)) == 0, arguments


def _write_two_audio_streams(source: Path, target: Path) -> None:
    """A copy of a video with its audio twice."""
    with contextlib.ExitStack() as files:
        out = files.enter_context(av.open(str(target), "w"))
        inputs = [files.enter_context(av.open(str(source))) for _ in range(3)]
        streams = [inputs[0].streams.video[0], *(file.streams.audio[0] for file in inputs[1:])]
        copies = [out.add_stream_from_template(stream) for stream in streams]
        for file, stream, copy in zip(inputs, streams, copies, strict=True):
            for packet in file.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)


def _build_world(folder: Path) -> None:
    """Everything that the documents assume, under the names that they use."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name, script in PROGRAMS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\nset -e\n{script.strip()}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    extras = importlib.metadata.metadata("avhubert").get_all("Provides-Extra") or []
    (folder / "extras.txt").write_text("\n".join(["avhubert", *extras]), encoding="utf-8")
    runs = folder / "runs"
    _run("demo", "--size", "smoke", "--out", "runs/demo")
    videos = sorted((runs / "demo" / "corpus").rglob("*.mp4"))
    shutil.copy(videos[0], folder / "talk.mp4")
    _write_two_audio_streams(videos[0], folder / "meeting.mkv")
    (folder / "recordings").mkdir()
    for number, video in enumerate(videos[:4]):
        shutil.copy(video, folder / "recordings" / f"{number}.mp4")
    shutil.copy(next((runs / "demo" / "data" / "video").rglob("*.mp4")), folder / "clip.mp4")
    shutil.copy(next((runs / "demo" / "data" / "audio").rglob("*.wav")), folder / "clip.wav")
    (folder / "corpora").mkdir()
    shutil.copytree(runs / "demo" / "corpus", folder / "corpora" / "lrs3")
    names = [f"dev/mp4/id0000{number}/abcdefghijk/00001" for number in range(4)]
    for name, video in zip(names, videos, strict=False):
        target = folder / "corpora" / "vox2" / f"{name}.mp4"
        target.parent.mkdir(parents=True)
        shutil.copy(video, target)
    (folder / "corpora" / "english.txt").write_text("\n".join(names[:3]), encoding="utf-8")
    _run("prepare", "lrs3", "corpora/lrs3", "data")
    _run("prepare", "vox2", "corpora/vox2", "data/vox", "--english-ids", "corpora/english.txt")
    labels = ("data.dir=data/433h", "data.labels=runs/demo/labels/iter1")
    _run("pretrain", "--config-name", "tiny_iter1", "run_dir=runs/iter5", *labels, *FEW.split(), *SMALL.split())
    shutil.copytree(runs / "demo" / "model", runs / "tuned")
    config = json.loads((runs / "tuned" / "config.json").read_text(encoding="utf-8"))
    # so that the transcript is never empty
    config["decode"] |= {"min_len": 4, "max_len_a": 0.0, "max_len_b": 4, "no_repeat_ngram": 1}
    (runs / "tuned" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _run("convert", "runs/demo/model", "base_vox_433h.pt", "--to-fairseq")
    _run("convert", "runs/iter5", "base_vox_iter5.pt", "--to-fairseq")
    cached = folder / "hf" / "hub" / "models--your-org--lips-tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    shutil.copytree(runs / "demo" / "model", cached / "snapshots" / ("0" * 40))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `_build_world`; all pytest-xdist workers share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "world"
    start = os.getcwd()
    with open(folder.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            os.chdir(folder)
            try:
                _build_world(folder)
            finally:
                os.chdir(start)
            (folder / "complete").touch()
    return folder


@pytest.fixture
def run_document(world: Path, tmp_path: Path) -> Callable[[str], None]:
    """Runs every block of a document, given by its path below the repository, in a copy of the world."""

    def run(document: str) -> None:
        here = tmp_path / "here"
        shutil.copytree(world, here)
        for manifest in here.rglob("*.tsv"):  # prepared data name the folder in which they were prepared
            manifest.write_text(manifest.read_text(encoding="utf-8").replace(str(world), str(here)), encoding="utf-8")
        environment = {
            **os.environ,
            "PATH": f"{here / 'bin'}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "MAKE": shutil.which("make") or "make",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HF_HOME": str(here / "hf"),
            "HF_HUB_OFFLINE": "1",
        }
        for language, block in BLOCK.findall((ROOT / document).read_text(encoding="utf-8")):
            if any(word in block for word in NOT_RUN):
                continue
            command = ["bash", "-euo", "pipefail", "-c", block] if language == "sh" else [sys.executable, "-c", block]
            done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=400)
            assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
            assert "Traceback" not in done.stderr

    return run
