"""Models of AVista's layout in transformers: Auto classes, saving, outputs, generation, training, refusals."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

pytest.importorskip("transformers")

from transformers import AutoConfig, AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor, AutoTokenizer

import avhubert
import avhubert.hf as hf
from avhubert.checkpoints.avista.config import Settings
from avhubert.checkpoints.avista.names import DIRECTION, EMBEDDING, ENCODER, GAIN, OUTPUT, module_names
from avhubert.checkpoints.avista.tokenizer import read_tokenizer
from avhubert.checkpoints.avista.weights import read_weights, weights_file
from avhubert.checkpoints.fairseq.names import published_name
from avhubert.decode.beam_search import beam_search
from avhubert.errors import CheckpointError, DataError
from avhubert.hf import requirement
from avhubert.model.inputs import ModelInputs
from avhubert.model.recognizer import Recognizer
from tests.avista_folder import TEXTS, write_pretrained, write_recognizer

SIZES: dict[str, Any] = {"visual_width": 4, "visual_blocks": [1, 1, 1, 1]}  # which published models do not name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_recognizer(tmp_path_factory.mktemp("models") / "avista")
    code = f"open({str(folder / 'executed')!r}, 'w')\n"
    for name in ("modeling_avhubert", "configuration_avhubert", "processing_avhubert"):
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["auto_map"]["AutoConfig"] = "configuration_avhubert.AVHubertConfig"
    path.write_text(json.dumps(config), encoding="utf-8")
    special = {f"{name}_token": text for name, text in (("bos", "<s>"), ("eos", "</s>"), ("pad", "<pad>"))}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", **special}), encoding="utf-8"
    )
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "AVHubertProcessor", "auto_map": {"AutoProcessor": "processing_avhubert.P"}}),
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    model, report = AutoModelForSpeechSeq2Seq.from_pretrained(folder, output_loading_info=True, **SIZES)
    assert not any(report.values()), report
    return model


def batch(rows: int = 3, frames: int = 9) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "input_values": torch.randn(rows, frames, 104, generator=generator),
        "pixel_values": torch.randn(rows, frames, 1, 88, 88, generator=generator),
    }


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in memory of their own: those of a `pytorch_model.bin` are read from the file when they are used."""
    return {name: tensor.clone() for name, tensor in state.items()}


# --------------------------------------------------------------------------- loading and saving
def test_auto_classes_know_the_models_and_run_no_code_of_the_folder(folder: Path, tmp_path: Path) -> None:
    assert isinstance(AutoConfig.from_pretrained(folder), hf.AVHubertConfig)
    assert isinstance(AutoModelForSpeechSeq2Seq.from_pretrained(folder, **SIZES), hf.AVHubertForConditionalGeneration)
    assert isinstance(AutoModel.from_pretrained(write_pretrained(tmp_path / "p"), **SIZES), hf.AVHubertModel)
    processor = AutoProcessor.from_pretrained(folder)
    assert isinstance(processor, hf.AVHubertProcessor)
    assert isinstance(processor.feature_extractor, hf.AVHubertFeatureExtractor)
    assert AutoTokenizer.from_pretrained(folder).eos_token == "</s>"
    assert not (folder / "executed").exists()


@pytest.mark.parametrize("shared", [True, False])
def test_saved_tensors_have_the_names_and_numbers_of_the_original(tmp_path: Path, shared: bool) -> None:
    original = write_recognizer(tmp_path / "avista", shared, safetensors=not shared)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(original, **SIZES)
    model.save_pretrained(tmp_path / "saved")
    saved, before = load_file(tmp_path / "saved" / "model.safetensors"), read_weights(weights_file(original))
    before.pop("decoder.pos_embed.position_embeddings")
    if shared:
        before.pop(OUTPUT)
    assert equal(before, saved)
    again = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "saved")  # the sizes are saved
    assert equal(model.state_dict(), again.state_dict())
    (tmp_path / "saved" / "tokenizer.json").write_bytes((original / "tokenizer.json").read_bytes())
    assert equal(avhubert.load(original).state_dict(), avhubert.load(tmp_path / "saved").state_dict())


def test_model_of_a_configuration_is_saved_with_the_names_of_the_table(tmp_path: Path) -> None:
    config = hf.AVHubertConfig(
        **SIZES,
        **dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads"), 2),
        **dict.fromkeys(("encoder_embed_dim", "decoder_embed_dim", "encoder_ffn_embed_dim"), 16),
        conv_pos=4,
        conv_pos_groups=2,
        do_stable_layer_norm=True,
        vocab_size=20,
        bos_token_id=17,
        eos_token_id=18,
        pad_token_id=19,
    )
    hf.AVHubertForConditionalGeneration(config).save_pretrained(tmp_path)
    encoder, decoder = config.encoder_config(), config.decoder_config()
    table = module_names(encoder, decoder)
    expected = {str(published_name(ours, table)) for ours in Recognizer.from_config(encoder, decoder).state_dict()}
    assert load_file(tmp_path / "model.safetensors").keys() == expected
    hf.AVHubertModel(config).save_pretrained(tmp_path / "encoder")
    saved = load_file(tmp_path / "encoder" / "model.safetensors").keys()
    assert saved == {name.removeprefix(ENCODER) for name in expected if name.startswith(ENCODER)}


def test_older_names_of_the_position_convolution_are_read(tmp_path: Path) -> None:
    original = write_recognizer(tmp_path / "avista")
    before = copied(AutoModelForSpeechSeq2Seq.from_pretrained(original, **SIZES).state_dict())
    state = dict(torch.load(original / "pytorch_model.bin"))
    base = ENCODER + "encoder.pos_conv_embed.conv"
    state[f"{base}.weight_g"], state[f"{base}.weight_v"] = state.pop(ENCODER + GAIN), state.pop(ENCODER + DIRECTION)
    torch.save(state, original / "pytorch_model.bin")
    model, report = AutoModelForSpeechSeq2Seq.from_pretrained(original, output_loading_info=True, **SIZES)
    assert not any(report.values())
    assert equal(before, model.state_dict())


def test_missing_tensor_is_reported_and_gets_new_numbers(tmp_path: Path) -> None:
    original = write_recognizer(tmp_path / "avista")
    state = dict(torch.load(original / "pytorch_model.bin"))
    names = {ENCODER + GAIN, ENCODER + "feature_extractor_video.resnet.frontend3D.2.weight"}
    torch.save({name: tensor for name, tensor in state.items() if name not in names}, original / "pytorch_model.bin")
    model, report = AutoModelForSpeechSeq2Seq.from_pretrained(original, output_loading_info=True, **SIZES)
    assert report["missing_keys"] == {
        "avhubert.model.encoder.position.gain",
        "avhubert.model.visual.stem_activation.weight",
    }
    convolution = model.avhubert.model.encoder.position
    assert torch.allclose(convolution.gain, convolution.direction.norm(dim=(0, 1), keepdim=True))


def test_encoder_of_a_recognizer_can_be_loaded_alone(folder: Path, model: Any) -> None:
    encoder = hf.AVHubertModel.from_pretrained(folder, **SIZES)
    with torch.no_grad():
        assert torch.equal(encoder(**batch())[0], model.get_encoder()(**batch())[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(folder: Path, model: Any, dtype: torch.dtype) -> None:
    half = AutoModelForSpeechSeq2Seq.from_pretrained(folder, dtype=dtype, **SIZES)
    tokens = torch.tensor([[model.config.bos_token_id, 5, 6]] * 3)
    with torch.no_grad():
        found = half(**{name: x.to(dtype) for name, x in batch().items()}, decoder_input_ids=tokens).logits
        expected = model(**batch(), decoder_input_ids=tokens).logits
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


# --------------------------------------------------------------------------- outputs
def test_logits_are_those_of_avhubert(folder: Path, model: Any) -> None:
    ours, order = reference(folder)
    tokens = torch.randint(4, 20, (3, 6), generator=torch.Generator().manual_seed(2))
    inputs = ModelInputs(*(x.transpose(1, 2) for x in batch().values()))
    with torch.no_grad():
        expected = ours(tokens, inputs)
        found = model(**batch(), decoder_input_ids=order[tokens]).logits[..., order]
    assert (found - expected).abs().max() < 1e-5


def test_hidden_states_and_attentions(model: Any) -> None:
    tokens = torch.full((3, 4), 5)
    with torch.no_grad():
        plain = model(**batch(), decoder_input_ids=tokens)
        output = model(**batch(), decoder_input_ids=tokens, output_attentions=True, output_hidden_states=True)
    assert plain.encoder_attentions is plain.decoder_hidden_states is None
    assert (plain.logits - output.logits).abs().max() < 1e-5
    shapes = {
        "encoder_hidden_states": (2, (3, 9, 16)),
        "encoder_attentions": (1, (3, 2, 9, 9)),
        "decoder_hidden_states": (2, (3, 4, 16)),
        "decoder_attentions": (1, (3, 2, 4, 4)),
        "cross_attentions": (1, (3, 2, 4, 9)),
    }
    for name, (count, shape) in shapes.items():
        assert [tuple(x.shape) for x in output[name]] == [shape] * count, name
        if name.endswith("attentions"):
            assert torch.allclose(output[name][0].sum(-1), torch.ones(shape[:-1]))
    assert output.decoder_attentions[0][0, 0].triu(1).abs().max() == 0
    assert isinstance(model(**batch(), decoder_input_ids=tokens, return_dict=False), tuple)


def test_gradients_reach_every_parameter_and_recorded_state(model: Any) -> None:
    model.zero_grad()
    labels = torch.tensor([[5, 6, model.config.eos_token_id], [5, model.config.eos_token_id, -100]])
    output = model(**batch(2), labels=labels, output_attentions=True, output_hidden_states=True)
    recorded = [output.encoder_hidden_states[0], output.encoder_attentions[0], output.cross_attentions[0]]
    for tensor in recorded:
        tensor.retain_grad()
    output.loss.backward()
    assert all(tensor.grad is not None for tensor in recorded)
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert torch.isfinite(output.loss)
    model.zero_grad()


def test_loss_ignores_padding_and_training_lowers_it(folder: Path) -> None:
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, **SIZES)
    labels = torch.tensor([[5, 6, model.config.eos_token_id]])
    padded = torch.tensor([[5, 6, model.config.eos_token_id, -100, -100]])
    assert torch.allclose(model(**batch(1), labels=labels).loss, model(**batch(1), labels=padded).loss)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(8):
        loss = model(**batch(1), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_an_utterance_alone_and_in_a_batch_give_the_same(model: Any) -> None:
    lengths = [9, 6, 4]
    mask = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad():
        together = model.get_encoder()(**batch(), attention_mask=mask)[0]
        opposite = model.get_encoder()(**batch(), padding_mask=1 - mask)[0]
        assert torch.equal(together, opposite)
        for row, length in enumerate(lengths):
            alone = model.get_encoder()(**{name: x[row : row + 1, :length] for name, x in batch().items()})[0]
            assert (together[row, :length] - alone[0]).abs().max() < 1e-5


def test_embeddings_can_be_resized_and_stay_shared(folder: Path) -> None:
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, **SIZES)
    size = model.config.vocab_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.resize_token_embeddings(size + 3)
    assert model(**batch(), decoder_input_ids=torch.full((3, 2), size + 2)).logits.shape == (3, 2, size + 3)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.vocab_size == size + 3


# --------------------------------------------------------------------------- generation
def reference(folder: Path) -> tuple[Recognizer, Tensor]:
    """The recognizer of `avhubert.load`, and the folder's id of each of our ids."""
    ours = avhubert.load(folder)
    assert isinstance(ours, Recognizer)
    settings = Settings(folder / "config.json", read_weights(weights_file(folder)))
    size = ours.decoder_config.vocab_size
    return ours, torch.tensor(read_tokenizer(folder / "tokenizer.json", settings.special_tokens(), size).order)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
def test_generation_finds_all_hypotheses_of_our_search(tmp_path: Path, seed: int) -> None:
    """Also texts with <pad>, which random numbers like."""
    folder = write_recognizer(tmp_path / "avista", shared=False)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, **SIZES)
    ours, order = reference(folder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.normal_(std=0.5, generator=generator)
    state = dict(model.decoder.state_dict())
    ours.decoder.load_state_dict(state | {name: state[name][order] for name in ("embedding.weight", "output.weight")})
    audio = torch.randn(3, 9, 104, generator=generator)
    found = model.generate(
        audio, max_new_tokens=12, num_return_sequences=5, output_scores=True, return_dict_in_generate=True
    )
    with torch.inference_mode():
        encoded = ours.encode(ModelInputs(audio.transpose(1, 2)))
        expected = beam_search(ours, encoded, None, replace(ours.decode_settings, max_len_b=11))
    end, texts = model.config.eos_token_id, []
    for row in found.sequences[:, 1:].tolist():
        texts.append(order.argsort()[torch.tensor(row[: row.index(end) + 1] if end in row else row)].tolist())
    assert texts == [hypothesis.tokens for hypotheses in expected for hypothesis in hypotheses]
    scores = torch.tensor([hypothesis.score for hypotheses in expected for hypothesis in hypotheses])
    assert (found.sequences_scores - scores).abs().max() < 1e-5


@pytest.mark.parametrize("streams", [("input_values",), ("pixel_values",), ("input_values", "pixel_values")])
@pytest.mark.parametrize("beams", [1, 4])
def test_cache_does_not_change_a_text(model: Any, streams: tuple[str, ...], beams: int) -> None:
    inputs = {name: batch()[name] for name in streams}
    settings = {"max_new_tokens": 7, "num_beams": beams}
    cached, plain = (model.generate(**inputs, use_cache=use, **settings) for use in (True, False))
    assert torch.equal(cached, plain)
    assert torch.equal(model.generate(**inputs, **settings), cached)


def test_default_search_is_that_of_the_cards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, **SIZES)
    with torch.no_grad():
        model.decoder.embedding.weight[model.config.eos_token_id] = -100 * model.decoder.norm.bias.sign()
    seen = {}
    search = type(model)._beam_search

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen["beams"] = kwargs["generation_config"].num_beams
        return search(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "_beam_search", watched)
    assert model.generate(batch(1)["input_values"]).shape[1] <= model.config.max_target_positions
    assert seen == {"beams": 5}
    assert model.generate(batch(1)["input_values"], max_new_tokens=3, num_beams=1).shape[1] <= 4
    sampled = model.generate(batch(1)["input_values"], do_sample=True, max_new_tokens=3, num_return_sequences=2)
    assert len(sampled) == 2


# --------------------------------------------------------------------------- refusals
def test_wrong_inputs_get_a_sentence(model: Any) -> None:
    encoder = model.get_encoder()
    with pytest.raises(DataError, match="neither audio nor video was given"):
        encoder()
    with pytest.raises(DataError, match="input_values must have 3 dimensions"):
        encoder(torch.zeros(9, 104))
    with pytest.raises(DataError, match=r"audio must have the shape \[batch, 104, frames\]"):
        encoder(torch.zeros(1, 9, 26))
    with pytest.raises(DataError, match="padding must be at the end"):
        encoder(batch(1)["input_values"], attention_mask=torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1, 1]]))
    with pytest.raises(DataError, match="say the same"):
        encoder(batch(1)["input_values"], attention_mask=torch.ones(1, 9), padding_mask=torch.zeros(1, 9))
    with pytest.raises(DataError, match="neither decoder_input_ids nor labels"):
        model(**batch())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"activation_fn": "relu"}, "activation_fn=relu is not supported"),
        ({"do_stable_layer_norm": False}, "layer norms after its blocks"),
        ({"decoder_learned_pos": True}, "decoder_learned_pos=true is not supported"),
        ({"decoder_embed_dim": 8}, "has to be equal"),
        ({"encoder_layers": "2"}, "must have the type int"),
        ({"encoder_attention_heads": 3}, "multiple"),
    ],
)
def test_wrong_configuration_gets_a_sentence(folder: Path, values: dict[str, Any], message: str) -> None:
    config = AutoConfig.from_pretrained(folder, **(SIZES | values))
    with pytest.raises((CheckpointError, avhubert.ConfigError), match=message):
        hf.AVHubertForConditionalGeneration(config)


def test_gradient_checkpointing_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=r"does not support (activation|gradient) checkpointing"):
        model.gradient_checkpointing_enable()


def test_transformers_that_is_missing_or_too_old_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirement.metadata, "version", lambda _: "5.7.1")
    with pytest.raises(ImportError, match=r"needs transformers 5.8 or newer, and 5.7.1 is installed: pip install"):
        requirement.require_transformers()

    def missing(name: str) -> str:
        raise requirement.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(requirement.metadata, "version", missing)
    with pytest.raises(ImportError, match=r"needs transformers: pip install 'avhubert\[hf\]'"):
        requirement.require_transformers()


def test_texts_become_labels_and_come_back(folder: Path, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    labels = processor(text=list(TEXTS)).labels
    end = processor.tokenizer.eos_token_id
    assert all(row[row != -100][-1] == end for row in labels)
    assert processor.batch_decode(labels.masked_fill(labels == -100, end)) == list(TEXTS)
    processor.save_pretrained(tmp_path)
    for file in tmp_path.iterdir():
        assert "auto_map" not in file.read_text(encoding="utf-8"), file
    again = AutoProcessor.from_pretrained(tmp_path)
    assert torch.equal(again(text=list(TEXTS)).labels, labels)


def test_embedding_in_the_file_is_in_the_order_of_the_folder(folder: Path, model: Any) -> None:
    stored = torch.load(folder / "pytorch_model.bin")[EMBEDDING]
    assert torch.equal(stored, model.get_input_embeddings().weight)


class Calls:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_pickle_that_calls_is_not_executed(tmp_path: Path) -> None:
    folder = write_recognizer(tmp_path / "avista")
    torch.save({EMBEDDING: Calls(f"touch {folder / 'executed'}")}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights.only|unpickl"):
        AutoModelForSpeechSeq2Seq.from_pretrained(folder, **SIZES)
    assert not (folder / "executed").exists()
