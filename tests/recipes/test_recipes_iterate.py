"""All iterations of a recipe, restarted, begun in the middle, and refused where parts do not belong together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from avhubert.cli.app import main
from avhubert.cluster.label_model import read_label_model
from avhubert.errors import ConfigError
from avhubert.files import sha256
from avhubert.recipes.iterate import run

SHORT = (
    *("clusters=[6,5,7]", "teacher_layers=[1,2]", "train.max_steps=3", "train.frames_per_step=80"),
    *(
        "train.frames_per_batch=80",
        "train.save_every=2",
        "train.validate_every=3",
        "optimizer.warmup_steps=1",
        "seed=3",
    ),
)


@pytest.fixture(scope="module")
def settings(data_dir: Path, small_model: list[str]) -> list[str]:
    return [f"data.dir={data_dir}", *SHORT, *small_model]


@pytest.fixture(scope="module")
def done(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run("tiny", [*settings, f"run_dir={tmp_path_factory.mktemp('recipe') / 'run'}"])


def test_every_iteration_learns_the_clusters_of_the_one_before(done: Path) -> None:
    rows = json.loads((done / "iterations.json").read_text(encoding="utf-8"))
    assert [row["clusters"] for row in rows] == [6, 5, 7]
    assert all(0 <= row["pnmi"] <= 1 and 0 <= row["masked_accuracy"] <= 1 and row["steps"] == 3 for row in rows)
    assert rows[0]["source"] == "mfcc"
    for number, layer in ((2, 1), (3, 2)):
        labels = read_label_model(done / f"iter{number}" / "labels")
        teacher = done / f"iter{number - 1}" / "model"
        assert (labels.info.layer, labels.info.rate) == (layer, 25)
        assert labels.model_sha256 == sha256(teacher / "model.safetensors")
        told = json.loads((done / f"iter{number}" / "model" / "config.json").read_text(encoding="utf-8"))
        assert told["metadata"]["labels"][0]["centroids"] == labels.info.centroids
    page = (done / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2


def test_again_does_nothing_again_and_a_lost_iteration_is_made_alike(done: Path, settings: list[str]) -> None:
    own = [*settings, f"run_dir={done}"]
    with pytest.raises(ConfigError, match=r"trained with other settings: optimizer\.lr=1"):
        run("tiny", [*own, "optimizer.lr=1"])
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.suffix in (".safetensors", ".km")}
    weights = done / "iter3" / "model" / "model.safetensors"
    wanted = weights.read_bytes()
    run("tiny", own)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    shutil.rmtree(weights.parent)
    run("tiny", own, from_iteration=3)
    assert weights.read_bytes() == wanted


def test_parts_that_do_not_belong_together_are_refused(settings: list[str], tmp_path: Path) -> None:
    own = [*settings, "presets=[tiny_iter1,tiny_iter2]", "clusters=[6,5]", "teacher_layers=[1]", f"run_dir={tmp_path}"]
    with pytest.raises(ConfigError, match="iteration 1 is not finished"):
        run("tiny", own, from_iteration=2)
    run("tiny", own)
    with pytest.raises(ConfigError, match="made with another clusters than iteration 2"):
        run("tiny", [*own, "clusters=[6,9]"])
    first, second = (tmp_path / f"iter{number}" / "model" / "model.safetensors" for number in (1, 2))
    shutil.copy(second, first)
    with pytest.raises(ConfigError, match="made with another model_sha256 than iteration 2"):
        run("tiny", own)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("clusters=[6,5]", "3 presets, 2 clusters and 2 teacher_layers do not fit"),
        ("clusters=[6,1,7]", "must each be at least 2"),
        ("teacher_layers=[1,-2]", "must each be at least 0"),
        ("presets=[tiny_iter1,tinny,tiny_iter2]", "unknown pretrain preset 'tinny'"),
        ("percent=0", "must be greater than 0"),
        ("optimiser.lr=1", "unknown key 'optimiser.lr'"),
    ],
)
def test_wrong_recipes(
    override: str, words: str, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*settings, f"run_dir={tmp_path / 'run'}", override]
    assert main(["iterate", "--config-name", "tiny", *given]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


@pytest.mark.quick
def test_an_iteration_that_the_recipe_does_not_have(settings: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--from-iteration 4 is not one of this recipe's iterations, 1 to 3"):
        run("tiny", [*settings, f"run_dir={tmp_path / 'run'}"], from_iteration=4)
