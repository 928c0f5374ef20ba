"""The documents: every command and example in them runs, every link leads somewhere, every quoted sentence is real."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from avhubert.cli import app as cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.S | re.M)
# what is not run, by a word in it: why
NOT_RUN = {
    "--config-dir conf/finetune": "needs a file of the published project; see test_checkpoints_published_presets.py",
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
# the commands with what makes them small here, or harmless
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


def blocks(path: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(path.read_text())


WITH_BLOCKS = [path for path in DOCUMENTS if blocks(path)]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents take for granted, under the names that they use."""
    folder = tmp_path_factory.mktemp("world")
    programs = folder / "bin"
    programs.mkdir()
    for name, script in PROGRAMS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\nset -e\n{script.strip()}\n")
        (programs / name).chmod(0o755)
    extras = importlib.metadata.metadata("avhubert").get_all("Provides-Extra") or []
    (folder / "extras.txt").write_text("\n".join(["avhubert", *extras]))

    def done(*arguments: str) -> None:
        assert cli.main(list(arguments)) == 0, arguments

    runs = folder / "runs"
    here = os.getcwd()
    os.chdir(folder)
    try:
        done("demo", "--size", "smoke", "--out", "runs/demo")
        videos = sorted((runs / "demo" / "corpus").rglob("*.mp4"))
        shutil.copy(videos[0], folder / "talk.mp4")
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
        (folder / "corpora" / "english.txt").write_text("\n".join(names[:3]))
        done("prepare", "lrs3", "corpora/lrs3", "data")
        done("prepare", "vox2", "corpora/vox2", "data/vox", "--english-ids", "corpora/english.txt")
        labels = ("data.dir=data/433h", "data.labels=runs/demo/labels/iter1")
        done("pretrain", "--config-name", "tiny_iter1", "run_dir=runs/iter5", *labels, *FEW.split(), *SMALL.split())
        shutil.copytree(runs / "demo" / "model", runs / "tuned")
        config = json.loads((runs / "tuned" / "config.json").read_text())
        config["decode"] |= {
            "min_len": 4,
            "max_len_a": 0.0,
            "max_len_b": 4,
            "no_repeat_ngram": 1,
        }  # it always says something
        (runs / "tuned" / "config.json").write_text(json.dumps(config))
        done("convert", "runs/demo/model", "base_vox_433h.pt", "--to-fairseq")
        done("convert", "runs/iter5", "base_vox_iter5.pt", "--to-fairseq")
    finally:
        os.chdir(here)
    kept = folder / "hf" / "hub" / "models--your-org--lips-tiny"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    shutil.copytree(runs / "demo" / "model", kept / "snapshots" / ("0" * 40))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("document", WITH_BLOCKS, ids=lambda path: path.stem)
def test_every_command_and_example_runs(document: Path, world: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    shutil.copytree(world, here)
    # the prepared data name where they were prepared
    for listed in here.rglob("*.tsv"):
        listed.write_text(listed.read_text().replace(str(world), str(here)))
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
    if document.stem == "serve" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    for language, block in blocks(document):
        if any(word in block for word in NOT_RUN):
            continue
        command = ["bash", "-euo", "pipefail", "-c", block] if language == "sh" else [sys.executable, "-c", block]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr


def test_what_is_not_run_is_there() -> None:
    everything = "".join(block for path in DOCUMENTS for _, block in blocks(path))
    assert all(word in everything for word in NOT_RUN)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    text = BLOCK.sub("", document.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#", "mailto:")):
            assert (document.parent / target.partition("#")[0]).exists(), target


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    missing = [path.name for path in DOCUMENTS[1:] if path.name != "README.md" and f"({path.name})" not in index]
    assert not missing


def commands() -> dict[str, str]:
    """Every sub-command with its help."""
    parser = cli.parser()
    (action,) = [one for one in parser._actions if hasattr(one, "choices") and isinstance(one.choices, dict)]
    return {name: sub.format_help() for name, sub in action.choices.items()}


def test_every_command_is_documented_and_every_option_exists() -> None:
    everything = "\n".join(path.read_text() for path in DOCUMENTS)
    known = commands()
    assert [name for name in known if f"avhubert {name}" not in everything] == []
    used = re.findall(r"^(?:\$ )?avhubert ([a-z-]+)((?:.*\\\n)*.*)$", everything, re.M)
    assert len(used) > 40
    for name, rest in used:
        for option in re.findall(r"(?<=\s)--[a-z-]+", rest.partition(" #")[0]):
            assert option in known[name], f"avhubert {name} has no {option}"


def sentences() -> Iterator[str]:
    """Every string in the package, f-strings with their expressions in braces."""
    for path in (ROOT / "avhubert").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
                    for part in node.values
                )  # fmt: skip


def test_quoted_errors_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (`.+`) \| .+ \|$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    assert len(rows) > 25
    known = "\n".join(sentences())
    assert [quoted for row in rows for quoted in re.findall(r"`([^`]+)`", row) if quoted not in known] == []


def loaded(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_api_reference_is_that_of_the_docstrings() -> None:
    assert (ROOT / "docs" / "api.md").read_text() == loaded(ROOT / "docs" / "api.py").page(), "run: python docs/api.py"


def test_the_pictures_are_drawn_by_the_code(tmp_path: Path) -> None:
    loaded(ROOT / "docs" / "pictures" / "draw.py").main(tmp_path)
    shown = set(re.findall(r"pictures/([a-z-]+\.png)", (ROOT / "docs" / "how-it-works.md").read_text()))
    assert shown == {path.name for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        drawn, kept = (matplotlib.image.imread(one) for one in (path, ROOT / "docs" / "pictures" / path.name))
        assert abs(drawn.shape[0] - kept.shape[0]) < 20
        assert np.std(drawn[..., :3]) > 0.05
        assert path.stat().st_size < 200_000
