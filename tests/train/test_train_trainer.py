"""The loop: exact resume after any end, one step whatever its division, refusals, alarms."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avhubert.cli.app import main
from avhubert.cluster.labels import cluster
from avhubert.config import compose
from avhubert.data.labels import read_label_info
from avhubert.data.manifest import read_manifest, write_manifest
from avhubert.errors import AvhubertError, CheckpointError, ConfigError, DataError
from avhubert.files import lock_directory
from avhubert.train import finetune, pretrain

STEPS = 6
COMMON = (
    *("seed=7", f"train.max_steps={STEPS}", "train.frames_per_step=120", "train.frames_per_batch=80"),
    *("train.save_every=2", "train.validate_every=3", "train.log_every=1", "optimizer.warmup_steps=2"),
)


@pytest.fixture(scope="module")
def settings(data_dir: Path, labels_dir: Path, small_model: list[str]) -> list[str]:
    """Pre-training on the small data, dropouts and layer drop on."""
    return [f"data.dir={data_dir}", f"data.labels={labels_dir}", *COMMON, *small_model, "model.encoder_layerdrop=0.2"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(run: Path) -> list[dict]:
    """The log without times."""
    kept = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {key: value for key, value in row.items() if "second" not in key and key not in ("waiting", "utilisation")}
        for row in kept
    ]


def train(settings: list[str], run: Path, *more: str) -> Path:
    return pretrain.run(compose("pretrain", "tiny_iter2", [*settings, f"run_dir={run}", *more]))


@pytest.fixture(scope="module")
def undisturbed(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings, tmp_path_factory.mktemp("undisturbed") / "run")


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in this process: bits depend on the number of threads


def command(settings: list[str], run: Path) -> list[str]:
    return [
        sys.executable, "-m", "avhubert.cli", "pretrain", "--config-name", "tiny_iter2", *settings, f"run_dir={run}",
    ]  # fmt: skip


@pytest.mark.parametrize("seconds", [0.0, 0.4])
def test_sigkill_at_any_moment_changes_nothing(
    settings: list[str], undisturbed: Path, tmp_path: Path, seconds: float
) -> None:
    run = tmp_path / "run"
    log = run / "metrics.jsonl"
    process = subprocess.Popen(command(settings, run), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ONE_THREAD)
    until = time.monotonic() + 120
    while (
        process.poll() is None
        and time.monotonic() < until
        and not (log.exists() and log.read_text(encoding="utf-8").count("\n") > 2)
    ):
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.wait()
    assert (run / "state").is_dir()
    done = subprocess.run(command(settings, run), capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert same(run, undisturbed)
    assert rows(run) == rows(undisturbed)


KILLS = int(os.environ.get("AVHUBERT_KILLS", "4"))  # 50 before a release; each takes 5 s


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_many_sigkills_change_nothing(settings: list[str], tmp_path: Path, ranks: int) -> None:
    """One after the other at random moments of a run that saves after every step: many fall into a save."""
    settings = [*settings, f"train.max_steps={6 * KILLS}", "train.save_every=1", "train.validate_every=10"]
    settings += ["train.accelerator=cpu"]
    launch = [] if ranks == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]

    said = tmp_path / "said.txt"  # by the last process

    def started(run: Path) -> subprocess.Popen:
        python, *arguments = command(settings, run)
        with open(said, "w", encoding="utf-8") as output:
            return subprocess.Popen(
                [python, *launch, *arguments], stdout=output, stderr=subprocess.STDOUT, env=ONE_THREAD
            )

    undisturbed, run, rng = tmp_path / "undisturbed", tmp_path / "run", random.Random(0)
    assert started(undisturbed).wait() == 0, said.read_text(encoding="utf-8")
    inside = 0
    for _ in range(KILLS):
        process, before = started(run), newest(run)
        until = time.monotonic() + 120
        while process.poll() is None and newest(run) == before and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        assert process.poll() is None, said.read_text(encoding="utf-8")
        kill_all(f"run_dir={run}")
        process.wait()
        inside += any(run.rglob("*.part*"))
    print(f"{KILLS} kills, {inside} of them while a file was written, up to step {newest(run)}")
    assert started(run).wait() == 0, said.read_text(encoding="utf-8")
    assert same(run, undisturbed)
    assert rows(run) == rows(undisturbed)


def kill_all(argument: str) -> None:
    """SIGKILL every process started with `argument`, and wait until they are gone: torchrun's workers outlive it."""

    def started_with(path: Path) -> bool:
        with contextlib.suppress(OSError):
            return argument in path.read_bytes().decode(errors="replace").split("\0")
        return False

    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if started_with(path)]
    for path in left:
        with contextlib.suppress(OSError):
            os.kill(int(path.parent.name), signal.SIGKILL)
    while any(started_with(path) for path in left):
        time.sleep(0.01)


def newest(run: Path) -> int:
    """The last step whose state is saved."""
    return max((int(path.stem.removeprefix("step_")) for path in (run / "state").glob("step_*.pt")), default=0)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_exits_well(
    settings: list[str], undisturbed: Path, tmp_path: Path, kind: signal.Signals
) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(settings, run), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ONE_THREAD
    )
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until and not (run / "resolved.yaml").exists():
        time.sleep(0.01)
    process.send_signal(kind)
    said, _ = process.communicate()
    assert process.returncode == 0
    assert f"stopped by {kind.name} after step" in said
    train(settings, run)
    assert same(run, undisturbed)


def test_a_torn_state_is_told_and_the_one_before_taken(
    settings: list[str], undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(settings, tmp_path / "run")
    newest = run / "state" / f"step_{STEPS}.pt"
    intact = newest.read_bytes()
    newest.write_bytes(intact[:1000])
    train(settings, run)
    said = capsys.readouterr().out
    assert f"{newest} cannot be read" in said
    changed = len(intact) // 2  # one bit in the numbers of a tensor, which torch reads without a word
    newest.write_bytes(intact[:changed] + bytes([intact[changed] ^ 1]) + intact[changed + 1 :])
    torch.load(newest, weights_only=True)
    train(settings, run)
    said = capsys.readouterr().out
    assert f"{newest} is damaged: the checksum of" in said
    assert "resuming after step 4" in said
    assert same(run, undisturbed)
    assert rows(run) == rows(undisturbed)
    for path in (run / "state").glob("*.pt"):
        path.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="none of the 2 states"):
        train(settings, run)


def test_a_finished_run_says_so_and_a_longer_one_goes_on(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(settings, tmp_path / "run", "train.max_steps=2")
    train(settings, run, "train.max_steps=2")
    assert "is finished: all 2 steps are done" in capsys.readouterr().out
    train(settings, run, "train.max_steps=3")
    assert "resuming after step 2" in capsys.readouterr().out


def test_other_settings_and_a_second_process_are_refused(settings: list[str], undisturbed: Path) -> None:
    with pytest.raises(ConfigError, match=r"trained with other settings: optimizer\.lr=0\.5 \(was 0\.00"):
        train(settings, undisturbed, "optimizer.lr=0.5")
    with lock_directory(undisturbed), pytest.raises(ConfigError, match="in use"):
        train(settings, undisturbed)


def test_workers_change_nothing(settings: list[str], undisturbed: Path, tmp_path: Path) -> None:
    assert same(train(settings, tmp_path / "run", "data.workers=2"), undisturbed)


def test_a_gradient_that_is_not_finite_skips_its_step(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pretrain.Pretraining.loss
    calls = []

    def sometimes(self, prepared):
        part = real(self, prepared)
        calls.append(1)
        if len(calls) == 3:
            part.loss = part.loss * float("nan")
        return part

    monkeypatch.setattr(pretrain.Pretraining, "loss", sometimes)
    run = train(settings, tmp_path / "run")
    assert "1 steps were skipped" in capsys.readouterr().out
    assert all(tensor.isfinite().all() for tensor in weights(run).values() if tensor.is_floating_point())
    assert sum(row.get("skipped", 0) for row in rows(run) if row["step"] == STEPS and row["split"] == "train") == 1


def test_a_jump_of_the_loss_and_a_model_that_learns_nothing_are_told(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pretrain.masked_prediction
    calls = []

    def jump(*arguments):
        out = real(*arguments)
        calls.append(1)
        out.loss = out.loss * (9 if len(calls) > 8 else 1)
        out.metrics["correct_masked"] = out.metrics["correct_masked"] * 0
        out.masked_predictions = torch.full_like(out.masked_predictions, 4)
        return out

    monkeypatch.setattr(pretrain, "masked_prediction", jump)
    run = train(settings, tmp_path / "run")
    said = capsys.readouterr().out
    assert "the loss jumped to" in said
    assert "masked accuracy 0.000 is not above 0." in said
    assert "the same cluster is predicted nearly everywhere" in said
    assert all(
        0 <= row["waiting"] <= 1
        for row in map(json.loads, (run / "metrics.jsonl").open(encoding="utf-8"))
        if "waiting" in row
    )


def test_guesses_are_measured_by_the_true_phones(undisturbed: Path) -> None:
    found = [row for row in rows(undisturbed) if row["split"] == "valid"]
    assert found
    assert all(0 < row["guessed_pnmi"] < 1 and row["guessed_entropy"] > 0 for row in found)


def test_several_label_sets_are_learned_at_once(
    settings: list[str], data_dir: Path, labels_dir: Path, tmp_path: Path, undisturbed: Path
) -> None:
    cluster(data_dir, f"{undisturbed}:1", 5, tmp_path / "layer")
    run = train(settings, tmp_path / "run", f"data.labels=[{labels_dir},{tmp_path / 'layer'}]")
    told = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert told["model"]["num_classes"] == [10, 9]
    assert [labels["clusters"] for labels in told["metadata"]["labels"]] == [6, 5]
    assert weights(run)["head.class_embeddings"].shape[0] == 19
    counted = next(row for row in rows(run) if row["split"] == "valid")
    assert counted["loss_masked"] > 0


def test_sound_alone_and_video_alone_train_beside_both(
    settings: list[str],
    data_dir: Path,
    labels_dir: Path,
    undisturbed: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As u-HuBERT trains: what a clip lacks, by a length of 0 in its manifest, is not looked for."""
    mixed = Path(shutil.copytree(data_dir, tmp_path / "data"))
    for split in ("train", "valid"):
        clips = read_manifest(mixed / f"{split}.tsv")
        clips[0] = replace(clips[0], video=Path("/none"), video_frames=0)
        clips[1] = replace(clips[1], audio=Path("/none"), audio_samples=0)
        write_manifest(mixed / f"{split}.tsv", clips, mixed)
    settings = [text for text in settings if not text.startswith(("data.dir", "data.labels"))]
    # clips without audio have no MFCC: they join in when labels are made from a model
    with caplog.at_level("WARNING"):
        cluster(mixed, "mfcc", 6, tmp_path / "mfcc")
    assert "2 clips have no audio, so no MFCC and no labels" in caplog.text
    train(settings, tmp_path / "first", f"data.dir={mixed}", f"data.labels={tmp_path / 'mfcc'}")
    assert "left out, without labels" in " ".join(capsys.readouterr().out.split())
    cluster(mixed, f"{undisturbed}:1", 6, tmp_path / "labels")
    run = train(settings, tmp_path / "run", f"data.dir={mixed}", f"data.labels={tmp_path / 'labels'}")
    assert all(row.get("bad_clips", 0) == 0 for row in rows(run))
    assert not same(run, undisturbed)


def test_too_many_of_them_stop_the_run(settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pretrain.Pretraining.loss

    def never(self, prepared):
        part = real(self, prepared)
        part.loss = part.loss * float("inf")
        return part

    monkeypatch.setattr(pretrain.Pretraining, "loss", never)
    with pytest.raises(AvhubertError, match="not finite in 10 steps in a row"):
        train(settings, tmp_path / "run", "train.max_steps=12")


def test_no_labels_or_a_missing_value_leave_nothing_behind(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong, words in (("data.labels=null", "needs labels"), ("data.labels=nowhere", "nowhere"), ("data.dir=x", "x")):
        given = [*settings, f"run_dir={tmp_path / 'run'}", wrong]
        assert main(["pretrain", "--config-name", "tiny_iter2", *given]) in (1, 2)
        error = capsys.readouterr().err
        assert words in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "run").exists()


def test_an_unreadable_clip_is_named_counted_and_left_out(
    settings: list[str], data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(data_dir, tmp_path / "data"))
    for split in ("train", "valid"):
        clips = [replace(clip, video=data / clip.video.name) for clip in read_manifest(data_dir / f"{split}.tsv")]
        write_manifest(data / f"{split}.tsv", clips, data)
    (data / "train2.mp4").write_bytes(b"torn")
    (data / "valid1.mp4").write_bytes(b"torn")
    given = [*settings, f"data.dir={data}"]
    with pytest.raises(
        DataError, match=r"2 clips cannot be read, more than the 0 that data\.max_bad_share=0\.01 allows"
    ):
        train(given, tmp_path / "strict", "train.log_every=10")
    with pytest.raises(AvhubertError, match=r"clip '(train2|valid1)'"):
        train(given, tmp_path / "first", "data.max_bad_share=0")
    capsys.readouterr()
    run = train(given, tmp_path / "run", "data.max_bad_share=0.2")
    said = capsys.readouterr().out
    assert said.count("skipped from now on: clip 'train2'") == 1
    assert said.count("skipped from now on: clip 'valid1'") == 1
    assert rows(run)[-2]["bad_clips"] == 2 or rows(run)[-1].get("bad_clips") == 2
    again = train(given, tmp_path / "again", "data.max_bad_share=0.2", "data.workers=2")
    assert same(run, again)


# --------------------------------------------------------------------------- what differs: fine-tuning
@pytest.fixture(scope="module")
def tuning(data_dir: Path, undisturbed: Path) -> list[str]:
    heads = ("model.decoder.layers=1", "model.decoder.ffn_embed_dim=64", "model.decoder.attention_heads=2")
    return [f"data.dir={data_dir}", f"model.pretrained={undisturbed}", *COMMON, *heads]


def tune(tuning: list[str], run: Path, *more: str) -> Path:
    return finetune.run(compose("finetune", "tiny", [*tuning, f"run_dir={run}", *more]))


def test_fine_tuning_goes_on_exactly_and_keeps_its_best(tuning: list[str], tmp_path: Path) -> None:
    from avhubert.checkpoints.load import load_recognizer

    whole = tune(tuning, tmp_path / "whole")
    parts = tune(tuning, tmp_path / "parts")
    (parts / "state" / f"step_{STEPS}.pt").unlink()
    tune(tuning, parts)
    assert same(whole, parts)
    assert same(whole / "best", parts / "best")
    best = load_recognizer(whole / "best")
    assert best.metadata.modalities == ["av", "a", "v"]
    assert best.decode_settings.beam == 5
    assert best.tokenizer.decode(best.tokenizer.encode("ba mo")) == "ba mo"
    valid = [row for row in rows(whole) if row["split"] == "valid"]
    highest = max(valid, key=lambda row: row["accuracy"])
    assert best.metadata.step == highest["step"]


def test_frozen_steps_leave_the_encoder_as_it_was(tuning: list[str], undisturbed: Path, tmp_path: Path) -> None:
    before = weights(undisturbed)
    frozen = weights(tune(tuning, tmp_path / "frozen", f"train.freeze_encoder_steps={STEPS}"))
    kept = [name for name in before if not name.startswith(("head.", "mask_embedding"))]
    assert all(torch.equal(frozen[f"encoder.{name}"], before[name]) for name in kept)
    free = weights(tune(tuning, tmp_path / "free", "train.freeze_encoder_steps=3"))
    assert any(not torch.equal(free[f"encoder.{name}"], before[name]) for name in kept)
    drifted = weights(
        tune(tuning, tmp_path / "drift", f"train.freeze_encoder_steps={STEPS}", "train.freeze_encoder_drift=true")
    )
    moved = {name for name in kept if not torch.equal(drifted[f"encoder.{name}"], before[name])}
    assert moved
    assert all("running" in name or "num_batches" in name for name in moved)


def test_fine_tuning_from_a_recognizer_starts_from_its_encoder(
    tuning: list[str], small_scratch: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = tune(tuning, tmp_path / "first", "train.max_steps=1", *small_scratch)
    again = [f"model.pretrained={first}", "train.max_steps=1", "train.freeze_encoder_steps=1"]
    second = weights(tune(tuning, tmp_path / "second", *again))
    assert (
        f"model.pretrained={first} is a recognizer: its encoder is used, without its decoder" in capsys.readouterr().out
    )
    before = weights(first)
    assert all(torch.equal(before[name], second[name]) for name in before if name.startswith("encoder."))
    assert any(not torch.equal(before[name], second[name]) for name in before if name.startswith("decoder."))


def test_what_fine_tuning_refuses(tuning: list[str], tmp_path: Path, data_dir: Path) -> None:
    for more, kind, words in (
        (["model.pretrained=nowhere"], CheckpointError, "nowhere does not exist"),
        (["model.decoder.ctc=false"], ConfigError, r"ctc_weight=0\.3 needs a CTC head"),
        (["data.modalities=a", "data.draw_a=0"], ConfigError, r"data\.modalities=a leaves nothing of"),
        (["data.noise=nowhere"], AvhubertError, "nowhere"),
        ([f"data.dir={tmp_path}"], AvhubertError, "tokenizer"),
    ):
        with pytest.raises(kind, match=words):
            tune(tuning, tmp_path / "run", *more)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("modality", ["a", "v"])
def test_one_stream_alone(tuning: list[str], tmp_path: Path, modality: str) -> None:
    run = tune(tuning, tmp_path / "run", "train.max_steps=2", f"data.modalities={modality}", f"data.draw_{modality}=1")
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["metadata"]["modalities"] == [modality]


def test_continued_pre_training_keeps_the_heads_of_the_same_clusters_only(
    settings: list[str], data_dir: Path, labels_dir: Path, undisturbed: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    start = [*settings, f"run_dir={tmp_path}", f"model.pretrained={undisturbed}"]
    same_labels = read_label_info(labels_dir)
    cluster(data_dir, "mfcc", 6, tmp_path / "other", seed=3)
    kept = pretrain.build_model(compose("pretrain", "tiny_iter2", start), [same_labels], said.append)
    assert not said
    assert torch.equal(kept.head.class_embeddings, weights(undisturbed)["head.class_embeddings"])
    other = read_label_info(tmp_path / "other")
    anew = pretrain.build_model(compose("pretrain", "tiny_iter2", start), [other], said.append)
    assert "initialised anew" in said[0]
    assert "head.class_embeddings" in said[0]
    assert not torch.equal(anew.head.class_embeddings, kept.head.class_embeddings)
    assert torch.equal(anew.audio.weight, kept.audio.weight)
