"""The published recognizer: logits, attention, loss, gradients, beams, and from media files to text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from avhubert.checkpoints.fairseq.names import module_names, published_name
from avhubert.checkpoints.fairseq.read import load
from avhubert.config.schema import DataConfig, DecodeConfig, FinetuneObjectiveConfig
from avhubert.data.audio import read_audio
from avhubert.data.dataset import ClipDataset
from avhubert.data.manifest import Clip, read_manifest, write_manifest
from avhubert.data.text import normalise_text
from avhubert.data.tokenizer import Tokenizer
from avhubert.data.transcripts import read_transcripts, write_transcripts
from avhubert.data.video import read_gray
from avhubert.decode.beam_search import beam_search
from avhubert.evaluation.evaluate import evaluate
from avhubert.model.losses import recognizer_loss, shift
from avhubert.model.recognizer import Recognizer

SETS = ("rand", "train2")
MODALITIES = ("a", "v", "av")
STREAMS = {"a": ("audio",), "v": ("video",), "av": ("audio", "video")}


@pytest.fixture(scope="module")
def recognizer(golden: Callable[[str], Path]) -> Recognizer:
    model = load(golden("finetuned_ckpt.pt"))
    assert isinstance(model, Recognizer)
    return model


@pytest.fixture(scope="module")
def inputs(golden: Callable[[str], Path]) -> Callable[[str, str], dict[str, torch.Tensor]]:
    """`inputs(set, modality)` are the arguments of `encode`."""

    def read(name: str, modality: str) -> dict[str, torch.Tensor]:
        with np.load(golden("inputs.npz" if name == "rand" else "inputs_train2.npz")) as file:
            chosen = {key: torch.from_numpy(file[key]) for key in (*STREAMS[modality], "padding_mask")}
        return chosen

    return read


@pytest.fixture(scope="module")
def expected(golden: Callable[[str], Path]) -> dict[str, torch.Tensor]:
    with np.load(golden("seq2seq_teacher_forcing.npz")) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def targets(golden: Callable[[str], Path], expected: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    if name == "rand":
        return expected["rand_target"]
    with np.load(golden("inputs_train2.npz")) as file:
        return torch.from_numpy(file["target"])


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", SETS)
@torch.no_grad()
def test_encoder_logits_and_attention(
    recognizer: Recognizer,
    inputs: Callable[[str, str], dict[str, torch.Tensor]],
    expected: dict[str, torch.Tensor],
    golden: Callable[[str], Path],
    name: str,
    modality: str,
) -> None:
    given = inputs(name, modality)
    seen = shift(targets(golden, expected, name))
    encoded = recognizer.encode(**given)
    real = ~given["padding_mask"]
    assert torch.allclose(
        encoded[real], expected[f"{name}_{modality}_encoder_out_TBC"].transpose(0, 1)[real], atol=1e-4
    )
    last = recognizer.decoder.layers[-1]
    found: dict[str, torch.Tensor] = {}
    hook = last.cross_attention_norm.register_forward_hook(lambda *call: found.update(x=call[2]))  # type: ignore[union-attr,operator]
    logits = recognizer.decoder(seen, encoded, given["padding_mask"])
    hook.remove()
    written = targets(golden, expected, name) != 1
    assert torch.allclose(logits[written], expected[f"{name}_{modality}_logits"][written], atol=1e-3)
    attention = last.cross_attention
    q = attention.split(attention.q_proj(found["x"]))  # type: ignore[union-attr,operator]
    k, _ = attention.keys_values(encoded)  # type: ignore[union-attr,operator]
    weights = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).masked_fill(~real[:, None, None], float("-inf")).softmax(-1)
    assert torch.allclose(weights.mean(1)[written], expected[f"{name}_{modality}_attn"][written], atol=1e-4)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", SETS)
@torch.no_grad()
def test_label_smoothed_loss(
    recognizer: Recognizer,
    inputs: Callable[[str, str], dict[str, torch.Tensor]],
    expected: dict[str, torch.Tensor],
    golden: Callable[[str], Path],
    name: str,
    modality: str,
) -> None:
    told = json.loads(golden("seq2seq_summary.json").read_text())[f"{name}_{modality}_eval_loss"]
    loss, count, sums = _loss(recognizer, inputs(name, modality), targets(golden, expected, name))
    assert float(loss) == pytest.approx(told["loss"], abs=1e-3)
    assert float(sums["nll"]) == pytest.approx(told["nll_loss"], abs=1e-3)
    assert (count, int(sums["correct"]), int(sums["total"])) == (
        told["sample_size"],
        round(told["n_correct"]),
        round(told["total"]),
    )


def _loss(
    recognizer: Recognizer, given: dict[str, torch.Tensor], tokens: torch.Tensor
) -> tuple[torch.Tensor, int, dict[str, torch.Tensor]]:
    return recognizer_loss(
        recognizer, tokens, given.get("audio"), given.get("video"), given["padding_mask"], None, None,
        FinetuneObjectiveConfig(label_smoothing=0.1),
    )  # fmt: skip


@pytest.mark.parametrize(("updates", "multiplier"), [(0, 0.1), (0, 1.0), (99, 0.1), (100, 0.1), (100, 1.0)])
def test_gradients_and_batch_norm_of_an_update(
    inputs: Callable[[str, str], dict[str, torch.Tensor]],
    expected: dict[str, torch.Tensor],
    golden: Callable[[str], Path],
    updates: int,
    multiplier: float,
) -> None:
    """All dropouts 0, frozen for 100 updates; while frozen with the published drift."""
    summary = json.loads(golden("seq2seq_summary.json").read_text())["train_mode_nodrop_train2_v"]
    told = summary[f"num_updates={updates},feature_grad_mult={multiplier}"]
    recognizer = load(golden("finetuned_ckpt.pt"))
    assert isinstance(recognizer, Recognizer)
    for module in recognizer.modules():
        for name in ("p", "dropout", "layerdrop"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    recognizer.encoder.config.encoder_layerdrop = 0.0
    recognizer.encoder.config.feature_grad_mult = multiplier
    recognizer.freeze_encoder(updates < 100, drift=True)
    recognizer.train()
    loss, _, sums = _loss(recognizer, inputs("train2", "v"), targets(golden, expected, "train2"))
    assert float(loss.detach()) == pytest.approx(told["loss"], abs=1e-3)
    assert float(sums["nll"]) == pytest.approx(told["nll"], abs=1e-3)
    loss.backward()
    table = module_names(recognizer.encoder.config, recognizer.decoder_config)
    compared = 0
    for ours, parameter in recognizer.named_parameters():
        norm = told["grad_norm"].get(published_name(ours, table))
        if norm is None:
            assert parameter.grad is None or not parameter.grad.any(), ours
            continue
        assert parameter.grad is not None, ours
        assert float(parameter.grad.norm()) == pytest.approx(norm, rel=2e-3, abs=1e-4), ours
        compared += 1
    assert compared == len([norm for norm in told["grad_norm"].values() if norm is not None])
    stem = recognizer.encoder.visual.stem_norm.running_mean
    assert stem is not None
    assert stem[:4].tolist() == pytest.approx(told["bn_running_mean_first4"], abs=1e-5)


@torch.no_grad()
def test_every_beam_is_exact(
    recognizer: Recognizer, inputs: Callable[[str, str], dict[str, torch.Tensor]], golden: Callable[[str], Path]
) -> None:
    """Tokens equal, scores within 1e-3, at every beam, length penalty and default given."""
    told = json.loads(golden("beam_search.json").read_text())
    compared = 0
    for case, wanted in told.items():
        name, modality, tag = case.split("/")
        beam = int(tag.split("beam")[1].split("_")[0])
        lenpen = float(tag.split("lenpen")[1]) if "lenpen" in tag else 1.0
        given = inputs(name.removesuffix("_second_alone"), modality)
        if name.endswith("_second_alone"):
            given = {
                key: tensor[1:, ..., :29, :, :] if key == "video" else tensor[1:, ..., :29]
                for key, tensor in given.items()
            }
        encoded = recognizer.encode(**given)
        # the published search lets padding count towards the limit, and takes the 104 of the audio for frames
        limit = wanted.get("max_len_used", encoded.shape[1])
        search = DecodeConfig(beam=beam, lenpen=lenpen, max_len_a=0, max_len_b=limit)
        for hypotheses, expected in zip(
            beam_search(recognizer, encoded, given["padding_mask"], search), wanted["hyps"], strict=True
        ):
            for found, one in zip(hypotheses[: len(expected)], expected, strict=True):
                assert found.tokens == one["tokens"], case
                assert found.score == pytest.approx(one["score"], abs=1e-3), case
                assert found.positional_scores == pytest.approx(one["positional_scores"], abs=1e-3), case
                assert recognizer.tokenizer.decode(found.tokens) == one["text"]
                compared += 1
    assert compared == 514


@pytest.fixture(scope="module")
def media(golden: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory over the golden media: test00 … 02 have sound."""
    folder = golden("media")
    directory = tmp_path_factory.mktemp("media")
    clips = []
    for number in range(3):
        name = f"test{number:02}"
        video, audio = folder / f"{name}.mp4", folder / f"{name}.wav"
        clips.append(Clip(name, video, audio, len(read_gray(video)), len(read_audio(audio))))
    write_manifest(directory / "test.tsv", clips, folder)
    texts = (folder / "test.wrd").read_text().splitlines()
    write_transcripts(directory / "test.wrd", texts)
    return directory


def test_media_files_give_the_published_inputs(
    media: Path, golden: Callable[[str], Path], recognizer: Recognizer
) -> None:
    clips = read_manifest(media / "test.tsv")
    texts = [normalise_text(text) for text in read_transcripts(media / "test.wrd", clips)]
    tokenizer = Tokenizer(recognizer.tokenizer.serialized)
    dataset = ClipDataset(clips, DataConfig(), training=False, seed=1, texts=texts, tokenizer=tokenizer)
    with np.load(golden("dataset_items.npz")) as told:
        for index, clip in enumerate(clips):
            item = dataset.load(index)
            assert item.audio is not None
            assert item.video is not None
            assert np.abs(item.audio.numpy() - told[f"item{index}:audio_source"]).max() < 1e-4
            assert float(item.video.double().sum()) == pytest.approx(
                float(told[f"item{index}:video_source_sum"]), rel=1e-4, abs=1.0
            )
            gray = read_gray(clip.video)
            if f"{clip.id}:decoded_gray_u8" in told.files:
                assert np.abs(gray.astype(int) - told[f"{clip.id}:decoded_gray_u8"]).max() <= 1
            else:
                assert gray.mean((1, 2)) == pytest.approx(told[f"{clip.id}:decoded_frame_means"], abs=0.05)


def test_media_files_give_plausible_text(
    media: Path, golden: Callable[[str], Path], recognizer: Recognizer, tmp_path: Path
) -> None:
    result = evaluate(recognizer, media, modality="v", out=tmp_path / "out")[0]
    known = {word for line in golden("media/seen.wrd").read_text().splitlines() for word in line.split()}
    assert result.clips == 3
    for utterance in result.utterances:
        words = utterance.hypothesis.split()
        assert len(words) >= 3
        assert sum(word in known for word in words) >= 0.8 * len(words), utterance.hypothesis
