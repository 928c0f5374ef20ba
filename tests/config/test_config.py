"""Presets against the published tables; overrides in Hydra's grammar; one sentence for every wrong key or value."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from avhubert.config import compose, presets
from avhubert.config.composition import FOLDERS, PRESETS
from avhubert.config.fields import Rule
from avhubert.config.reference import describe
from avhubert.config.schema import SCHEMAS, DecodeConfig, FinetuneConfig, OptimizerConfig, PretrainConfig
from avhubert.config.validate import flatten, from_dict, keys, require, to_dict, write_yaml
from avhubert.errors import ConfigError

pytestmark = pytest.mark.quick

FACTS = Path(__file__).resolve().parents[3] / "shared" / "design" / "reference-facts.md"
ALL = [(command, name) for command in SCHEMAS for name in presets(command)]
HOURS = ("30h", "433h")
PUBLISHED = {
    "pretrain": {
        *(f"base_{corpus}_iter{i}" for corpus in ("lrs3", "vox") for i in range(1, 6)),
        *("large_lrs3_iter5", "large_vox_iter5", "noise_base_vox_iter5", "noise_large_vox_iter5"),
    },
    "finetune": {
        *(f"{size}_{corpus}_{hours}" for size in ("base", "large") for corpus in ("lrs3", "vox") for hours in HOURS),
        *("self_large_vox_30h", "self_large_vox_433h"),
        *(f"{size}_noise_pt_noise_ft_{hours}" for size in ("base", "large") for hours in HOURS),
    },
    "decode": {"s2s_decode"},
}  # fmt: skip
OURS = {
    "pretrain": {"tiny_iter1", "tiny_iter2", "grid_iter1", "grid_iter2", "grid_tiny_iter1", "grid_tiny_iter2"},
    "finetune": {"tiny", "grid_finetune", "grid_features", "grid_finetune_tiny", "grid_features_tiny"},
    "decode": set(),
    "iterate": {"base_lrs3", "base_vox", "tiny", "grid_iterate", "grid_iterate_tiny"},
}  # fmt: skip


# --------------------------------------------------------------------------- presets
def test_the_presets_are_the_published_ones_and_the_laptop_ones() -> None:
    assert sum(len(names) for command, names in PUBLISHED.items() if command != "decode") == 28
    for command in SCHEMAS:
        assert set(presets(command)) == PUBLISHED.get(command, set()) | OURS[command]


@pytest.mark.parametrize(("command", "name"), ALL)
def test_every_preset_composes_into_its_schema(command, name) -> None:
    config = compose(command, name)
    assert type(config) is SCHEMAS[command]
    if command != "decode":
        with pytest.raises(ConfigError, match=r"give a value for run_dir=…, data\.dir=…"):
            require(config)


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_preset_holds_only_what_differs_from_its_parents(path) -> None:
    """Every value in the YAML changes something: the parents alone would give another one."""
    raw = OmegaConf.to_container(OmegaConf.load(path))
    parents = [parent for parent in raw.pop("defaults", []) if parent != "_self_"]
    command = {folder: command for command, folder in FOLDERS.items()}.get(path.parent.name, path.parent.name)
    if command == "decode" or (not parents and path.stem != "_base"):
        return  # a mixin (what it differs from is not known here), or the published decoding settings written out
    base = from_dict(SCHEMAS[command], _merged(command, parents), "parents")
    inherited = dict(flatten(base))
    for key, value in _leaves(raw):
        assert inherited[key] != value, f"{path.name}: {key}={value} is what it inherits"


def _merged(command: str, parents: list[str]) -> dict:
    merged = OmegaConf.create({})
    for parent in parents:
        raw = OmegaConf.load(PRESETS / FOLDERS.get(command, command) / f"{parent}.yaml")
        above = [name for name in raw.pop("defaults", []) if name != "_self_"]
        merged = OmegaConf.merge(merged, _merged(command, above), raw)
    return OmegaConf.to_container(merged)


def _leaves(values: dict, prefix: str = ""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_no_preset_writes_a_number_that_yaml_reads_as_text() -> None:
    for path in PRESETS.glob("*/*.yaml"):
        for key, value in _leaves(OmegaConf.to_container(OmegaConf.load(path))):
            assert not (isinstance(value, str) and re.fullmatch(r"[\d.]+e-?\d+", value)), f"{path}: {key}={value}"


# --------------------------------------------------------------------------- the published tables
@pytest.fixture(scope="module")
def facts() -> str:
    if not FACTS.exists():
        pytest.skip("the tables of reference-facts.md are not here: ../shared/design is not part of the package")
    return FACTS.read_text(encoding="utf-8")


def table(text: str, first_column: str) -> list[list[str]]:
    """Rows of the Markdown table whose header begins with `first_column`, without the header."""
    lines = text[text.index(f"| {first_column} |") :].splitlines()
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows[2:]


def number(text: str) -> int:
    value, thousand = re.fullmatch(r"([\d.]+)( k)?", text).groups()
    return round(float(value) * (1000 if thousand else 1))


def expect(config, **values) -> None:
    resolved = dict(flatten(config))
    for key, value in values.items():
        assert resolved[key.replace("__", ".")] == value, key


def pretrain_iteration(name: str) -> tuple[str, int]:
    corpus, iteration = re.fullmatch(r"(?:noise_)?(?:base|large)_(lrs3|vox)_iter(\d)", name).groups()
    return corpus, int(iteration)


@pytest.mark.parametrize("name", sorted(PUBLISHED["pretrain"]))
def test_masking_and_modality_dropout_of_the_iterations(facts, name) -> None:
    corpus, iteration = pretrain_iteration(name)
    rows = {int(i): row for row in table(facts, "iteration") for i in row[0].split(",")}
    _, _, masking, dropout, rate = rows[iteration]
    by_corpus = re.fullmatch(r"([\d.]+) \(LRS3\), ([\d.]+) \(Vox\)", dropout)
    expected = by_corpus.group({"lrs3": 1, "vox": 2}[corpus]) if by_corpus else dropout
    config = compose("pretrain", name)
    expect(config, masking__modality_dropout=float(expected), masking__audio_dropout=0.5, masking__thin=True)
    if masking.startswith("feature"):
        prob, length = re.fullmatch(r"feature ([\d.]+)/(\d+)", masking).groups()
        video = (prob, length)
    else:
        prob, length, *video = re.fullmatch(r"input: audio ([\d.]+)/(\d+), video ([\d.]+)/(\d+)", masking).groups()
    expect(
        config,
        model__masking_type=masking.split()[0].rstrip(":"),
        masking__prob_audio=float(prob),
        masking__length_audio=int(length),
        masking__prob_video=float(video[0]),
        masking__length_video=int(video[1]),
        masking__selection="same_seq",
    )
    assert rate == ("100" if iteration == 1 else "25")  # the label folder carries it; no preset does


PRETRAIN_ROWS = {
    "Base LRS3 it. 1": ["base_lrs3_iter1"],
    "Base LRS3 it. 2–5": [f"base_lrs3_iter{i}" for i in range(2, 6)],
    "Base Vox it. 1–5": [*(f"base_vox_iter{i}" for i in range(1, 6)), "noise_base_vox_iter5"],
    "Large LRS3 it. 5": ["large_lrs3_iter5"],
    "Large Vox it. 5": ["large_vox_iter5", "noise_large_vox_iter5"],
}


@pytest.mark.parametrize(("row", "name"), [(row, name) for row, names in PRETRAIN_ROWS.items() for name in names])
def test_published_pre_training(facts, row, name) -> None:
    updates, rate, warmup, devices, notes = _row(facts, row)
    vox_data = "Vox" in row or "as Base Vox" in notes
    large = row.startswith("Large")
    expect(
        compose("pretrain", name),
        train__max_steps=number(updates),
        optimizer__lr=float(rate),
        optimizer__warmup_steps=number(warmup),
        train__frames_per_step=1000 * number(devices),
        train__frames_per_batch=1000,
        optimizer__betas=[0.9, 0.98],
        optimizer__eps=1e-6,
        optimizer__weight_decay=0.01,
        optimizer__clip_norm=10.0,
        optimizer__schedule="polynomial",
        objective__masked_weight=1.0,
        objective__unmasked_weight=1.0 if large else 0.0,
        objective__features_pen_weight=10.0,
        data__pad=not vox_data,
        data__max_frames=2000 if vox_data else 500,
        data__min_frames=5,
        data__crop_frames=400 if vox_data else None,
        data__random_crop=vox_data,
        data__noise="???" if name.startswith("noise") else None,  # must be given: never silently clean
        data__noise_prob=0.25 if name.startswith("noise") else 0.0,
        data__noise_snr=[0, 0],
        model__encoder_layers=24 if large else 12,
        model__encoder_embed_dim=1024 if large else 768,
        model__encoder_ffn_embed_dim=4096 if large else 3072,
        model__encoder_attention_heads=16 if large else 12,
        model__layer_norm_first=True,
        model__encoder_layerdrop=0.05,
        model__dropout=0.1,
        model__dropout_input=0.1,
        model__attention_dropout=0.1,
        model__feature_grad_mult=0.1,
        model__final_dim=256,
        model__untie_final_proj=True,
        model__logit_temp=0.1,
        model__visual_width=64,
        model__visual_blocks=[2, 2, 2, 2],
        model__conv_pos=128,
        model__conv_pos_groups=16,
        model__modality_fuse="concat",
    )


def _row(facts: str, name: str) -> list[str]:
    line = next(line for line in facts.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


FINETUNE_ROWS = {
    "Base 30 h (LRS3)": ["base_lrs3_30h"],
    "Base 433 h (LRS3)": ["base_lrs3_433h"],
    "Base 30 h (Vox)": ["base_vox_30h"],
    "Base 433 h (Vox)": ["base_vox_433h"],
    "Large 30 h (LRS3)": ["large_lrs3_30h"],
    "Large 433 h (LRS3)": ["large_lrs3_433h"],
    "Large 30 h / 433 h (Vox)": ["large_vox_30h", "large_vox_433h"],
    "self-training Large (30 h and 433 h)": ["self_large_vox_30h", "self_large_vox_433h"],
    "AV noise Base 30 h": ["base_noise_pt_noise_ft_30h"],
    "AV noise Base 433 h": ["base_noise_pt_noise_ft_433h"],
    "AV noise Large 30 h": ["large_noise_pt_noise_ft_30h"],
    "AV noise Large 433 h": ["large_noise_pt_noise_ft_433h"],
}


def test_the_table_of_fine_tuning_is_covered(facts) -> None:
    assert [row[0] for row in table(facts, "recipe")] == list(FINETUNE_ROWS)
    assert {name for names in FINETUNE_ROWS.values() for name in names} == PUBLISHED["finetune"]


@pytest.mark.parametrize(("row", "name"), [(row, name) for row, names in FINETUNE_ROWS.items() for name in names])
def test_published_fine_tuning(facts, row, name) -> None:
    updates, stages, frozen, decoder = _row(facts, row)
    warmup, decay = (number(part.strip()) for part in stages.split("/"))
    large = "Large" in row
    sizes = next(
        cells[4] for cells in table(facts, "recipe") if cells[4][0].isdigit() and ("Large" in cells[0]) == large
    )
    layers, width, heads, ffn = re.fullmatch(r"(\d+) × (\d+), (\d+) heads, (\d+)", sizes).groups()
    assert int(width) == (1024 if large else 768)  # the decoder is as wide as the encoder
    noisy = "noise 0.25 at 0 dB" in decoder or row.startswith("AV noise")
    devices = 32 if "32 GPUs" in decoder else 8
    config = compose("finetune", name)
    audio_visual = row.startswith("AV")
    expect(
        config,
        train__max_steps=number(updates),
        optimizer__warmup_steps=warmup,
        optimizer__decay_steps=decay,
        train__freeze_encoder_steps=number(frozen),
        train__frames_per_step=1000 * devices,
        train__frames_per_batch=1000,
        optimizer__lr=1e-3,
        optimizer__betas=[0.9, 0.98],
        optimizer__eps=1e-8,
        optimizer__weight_decay=0.0,
        optimizer__clip_norm=0.0,
        optimizer__schedule="tri_stage",
        optimizer__init_lr_scale=0.01,
        optimizer__final_lr_scale=0.05,
        objective__label_smoothing=0.1,
        objective__ctc_weight=0.0,
        model__decoder__layers=int(layers),
        model__decoder__attention_heads=int(heads),
        model__decoder__ffn_embed_dim=int(ffn),
        model__decoder__dropout=0.1,
        model__decoder__activation_dropout=0.1,
        model__decoder__attention_dropout=0.0,
        model__decoder__ctc=False,
        model__dropout=0.0,
        model__attention_dropout=0.0,
        model__activation_dropout=0.1,
        model__encoder_layerdrop=0.1,
        model__dropout_input=0.0,
        model__feature_grad_mult=1.0,
        data__max_frames=500,
        data__min_frames=1,
        data__modalities="av" if audio_visual else "v",
        data__noise_prob=0.25 if noisy else 0.0,
        data__noise_snr=[0, 0],
    )
    draws = (config.data.draw_av, config.data.draw_a, config.data.draw_v)
    assert draws == ((1, 0, 0) if audio_visual else (0, 0, 1))
    assert config.data.noise == (
        "???" if noisy else None
    )  # a noisy recipe without a noise list is refused, not run clean


def test_published_decoding() -> None:
    assert compose("decode", "s2s_decode") == DecodeConfig(beam=50, lenpen=1.0, max_len_a=1.0, max_len_b=0, min_len=1)


# --------------------------------------------------------------------------- overrides
@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr", 1e-3),
        ("optimizer.lr=1", "optimizer.lr", 1.0),
        ("+train.max_steps=7", "train.max_steps", 7),
        ("++seed=3", "seed", 3),
        ("~train.max_steps", "train.max_steps", 400_000),  # back to the schema's default
        ("model.visual_blocks=[1,2,1,1]", "model.visual_blocks", [1, 2, 1, 1]),
        ("model.num_classes=[54]", "model.num_classes", [54]),
        ("optimizer={lr: 0.5, eps: 1.0e-4}", "optimizer.lr", 0.5),
        ("data.pad=false", "data.pad", False),
        ("data.crop_frames=null", "data.crop_frames", None),
        ("run_dir=a b,[c]=(d)", "run_dir", "a b,[c]=(d)"),  # paths are taken as they stand
        ("run_dir='quoted x'", "run_dir", "quoted x"),
        ("run_dir=runs/${seed}", "run_dir", "runs/1337"),
        ("data.labels=null", "data.labels", None),
        ("run_dir=12", "run_dir", "12"),
    ],
)
def test_overrides(override, key, value) -> None:
    assert dict(flatten(compose("pretrain", "tiny_iter1", [override])))[key] == value


def test_the_last_override_wins() -> None:
    assert compose("pretrain", "tiny_iter1", ["seed=1", "seed=2"]).seed == 2


WRONG = [
    ("optimzer.lr=1", "unknown key 'optimzer.lr' (did you mean 'optimizer.lr'?); known keys: run_dir, seed, data.dir"),
    ("+optimzer.lr=1", "unknown key 'optimzer.lr'"),
    ("optimizer.lrr=1", "(did you mean 'optimizer.lr'?); known keys: optimizer.lr, optimizer.betas"),
    ("~optimizer.momentum", "unknown key 'optimizer.momentum'"),
    ("seed.x=1", "unknown key 'seed.x'"),
    ("hydra.verbose=true", "unknown key 'hydra.verbose'"),
    ("optimizer.lr=fast", "optimizer.lr=fast must be a number"),
    ("optimizer.lr=", "optimizer.lr= must be a number"),
    ("optimizer.lr=nan", "optimizer.lr=nan must be finite"),
    ("optimizer.lr=-1", "optimizer.lr=-1 must be greater than 0"),
    ("optimizer.warmup_steps=-1", "optimizer.warmup_steps=-1 must be at least 0"),
    ("optimizer.betas=[0.9,1]", "optimizer.betas=[0.9, 1.0] must be two numbers"),
    ("optimizer=sgd", "optimizer=sgd cannot be set as a whole; set one of its keys: optimizer.lr"),
    ("optimizer={lrr: 1}", "unknown key 'optimizer.lrr'"),
    ("seed=-1", "seed=-1 must be at least 0"),
    ("seed=true", "seed=True must be a whole number"),
    ("seed=null", "seed=None must be a whole number"),
    ("train.max_steps=1.5", "train.max_steps=1.5 must be a whole number"),
    ("train.precision=fp8", "train.precision=fp8 is not one of: auto, 32-true, bf16-mixed, 16-mixed"),
    ("data.modalities=x", "data.modalities=x is not one of: av, a, v"),
    ("data.noise_prob=1.5", "data.noise_prob=1.5 must be between 0 and 1"),
    ("data.noise_snr=[5,0]", "data.noise_snr=[5, 0] must be [lowest,highest]"),
    ("data.pad=maybe", "data.pad=maybe must be true or false"),
    ("data.min_frames=600", "data.min_frames=600 is greater than data.max_frames=500"),
    ("model.visual_blocks=3", "model.visual_blocks=3 must be a list"),
    ("model.visual_blocks=[1,0,1,1]", "model.visual_blocks=[1, 0, 1, 1] must each be at least 1"),
    ("model.visual_blocks=[1,1]", "model.visual_blocks=[1, 1] must be four numbers"),
    ("model.encoder_embed_dim=190", "must be a multiple of model.encoder_attention_heads=4"),
    ("run_dir=${nowhere}", "Interpolation key 'nowhere' not found"),
    ("seed", "'seed' is not of the form key=value"),
    ("=3", "unknown key ''"),
    ("seed=1,2", "'seed=1,2' gives several values"),
]


@pytest.mark.parametrize(("override", "words"), WRONG, ids=[override for override, _ in WRONG])
def test_a_wrong_override_is_one_sentence(override, words) -> None:
    with pytest.raises(ConfigError) as error:
        compose("pretrain", "tiny_iter1", [override])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("draws", [("0", "0", "0")])
def test_a_modality_must_be_drawn(draws) -> None:
    with pytest.raises(ConfigError, match="all 0"):
        compose("finetune", "tiny", [f"data.draw_{m}={w}" for m, w in zip(("av", "a", "v"), draws, strict=True)])


@pytest.mark.parametrize("command", SCHEMAS)
def test_an_unknown_preset_lists_the_known_ones(command) -> None:
    with pytest.raises(ConfigError) as error:
        compose(command, "nonsense")
    assert f"unknown {command} preset 'nonsense'; known: " in str(error.value)
    assert all(name in str(error.value) for name in presets(command))
    assert " _" not in str(error.value)


def test_audio_visual_presets_belong_to_finetune() -> None:
    with pytest.raises(ConfigError, match="base_noise_pt_noise_ft_30h"):
        compose("finetune", "nonsense")
    name = "base_noise_pt_noise_ft_30h"
    assert compose("av-finetune", name) == compose("finetune", name)  # the command of their former folder
    assert presets("av-finetune") == presets("finetune")


def test_an_unknown_command_lists_the_known_ones() -> None:
    for function in (lambda: compose("fine-tune", "tiny"), lambda: describe("fine-tune")):
        with pytest.raises(
            ConfigError, match="unknown command 'fine-tune'; known: decode, finetune, iterate, pretrain"
        ):
            function()


# --------------------------------------------------------------------------- a user's own presets
def test_a_users_preset_builds_on_ours_and_chooses_config_groups(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "slow.yaml").write_text("lr: 1.0e-5\n", encoding="utf-8")
    (tmp_path / "optimizer" / "fast.yaml").write_text("lr: 0.1\n", encoding="utf-8")
    (tmp_path / "mine.yaml").write_text("defaults: [tiny_iter1, optimizer: slow, _self_]\nseed: 5\n", encoding="utf-8")
    config = compose("pretrain", "mine", [], tmp_path)
    assert (config.seed, config.optimizer.lr, config.model.encoder_layers) == (5, 1e-5, 4)
    assert compose("pretrain", "mine", ["optimizer=fast", "seed=6"], tmp_path).optimizer.lr == 0.1
    with pytest.raises(ConfigError, match="slow"):
        compose("pretrain", "mine", ["optimizer=nonsense"], tmp_path)
    with pytest.raises(ConfigError, match="unknown pretrain preset 'yours'; known: mine"):
        compose("pretrain", "yours", [], tmp_path)


ALIASES_OF_ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in itertools.pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: [1\n", "cannot be read"),
        ("defaults: [nonsense]\n", "nonsense"),
        ("optimzer: {lr: 1}\n", "unknown key 'optimzer'"),
        ("data:\n", "'data' must hold keys"),
        ("optimizer: 3\n", "'optimizer' must hold keys"),
        ("model: {dropout: 2}\n", "model.dropout=2 must be between 0 and 1"),
        ("optimizer: {lr: " + 400 * "9" + "}\n", "must be a number"),
        (ALIASES_OF_ALIASES, "expand to more than 100000 values; write fewer aliases"),
        ("seed: &a [*a]\n", "expand to more than 100000 values"),
    ],
)
def test_a_users_wrong_preset_is_one_sentence(tmp_path: Path, text, words) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        compose("pretrain", "mine", [], tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_no_folder_of_presets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        compose("pretrain", "mine", [], tmp_path / "nowhere")


def test_presets_are_found_from_a_folder_with_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "it's a=b, [odd] name"
    folder.mkdir()
    (folder / "mine.yaml").write_text("defaults: [tiny_iter2, _self_]\n", encoding="utf-8")
    assert compose("pretrain", "mine", [], folder) == compose("pretrain", "tiny_iter2")


# --------------------------------------------------------------------------- the schema
def test_flatten_keys_and_round_trip(tmp_path: Path) -> None:
    for schema in (PretrainConfig, FinetuneConfig):
        assert [key for key, _ in flatten(schema())] == keys(schema)
    config = compose("finetune", "tiny", ["run_dir=r", "data.dir=d", "model.pretrained=none"])
    require(config)
    assert from_dict(FinetuneConfig, to_dict(config), "x") == config
    write_yaml(config, tmp_path / "resolved.yaml")
    assert from_dict(FinetuneConfig, OmegaConf.to_container(OmegaConf.load(tmp_path / "resolved.yaml")), "x") == config


def test_require_names_an_empty_value_too() -> None:
    with pytest.raises(ConfigError, match=r"^give a value for run_dir=…$"):
        require(compose("pretrain", "tiny_iter1", ["run_dir=", "data.dir=d"]))


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_key_is_described(command: str) -> None:
    """Each key has a meaning, and each number has bounds, except decibels, which may be negative."""
    groups = describe(command)
    described = [key for group in groups for key in group.keys]
    assert [key.key for key in described] == sorted(keys(SCHEMAS[command]), key=[key.key for key in described].index)
    assert len(described) == len(keys(SCHEMAS[command]))
    for group in groups:
        assert group.help.endswith("."), group.prefix
    for key in described:
        assert key.help.endswith("."), key.key
        if ("int" in key.type or "float" in key.type) and key.unit != "dB":
            assert key.allowed, key.key


def test_a_description_of_a_key() -> None:
    described = {key.key: key for group in describe("finetune") for key in group.keys}
    schedule = described["optimizer.schedule"]
    assert (schedule.type, schedule.default) == ("str", "polynomial")
    assert schedule.allowed == "one of: polynomial, tri_stage"
    assert described["optimizer.layer_decay"].allowed == "greater than 0 and at most 1"
    assert described["data.noise_snr"].default == "[0, 0]"
    assert described["data.labels"].type == "str or list of str or null"
    assert described["model.pretrained"].default == "required"
    assert (described["optimizer.lr"].default, described["data.pad"].default) == ("0.0005", "true")
    assert described["data.noise_prob"].default == "0.0"
    assert (described["data.max_frames"].unit, described["data.max_frames"].allowed) == ("frames", "greater than 0")


@pytest.mark.parametrize(
    ("rule", "value", "violation"),
    [
        (Rule("", lowest=0, highest=1), 1.5, "must be between 0 and 1"),
        (Rule("", lowest=0), [1, -1], "must each be at least 0"),
        (Rule("", above=0), 0, "must be greater than 0"),
        (Rule("", above=0, highest=100), 101.0, "must be greater than 0 and at most 100"),
        (Rule("", choices=("a", "b")), ["a", "c"], "is not one of: a, b"),
        (Rule(""), float("nan"), "must be finite"),
        (Rule(""), 10**400, "must not be beyond 4.61169e+18"),
        (Rule("", above=0, highest=100), 100.0, None),
        (Rule("", lowest=0, highest=1), [0, 1], None),
        (Rule("", choices=("a", "b")), ["a"], None),
    ],
)
def test_rules(rule: Rule, value: object, violation: str | None) -> None:
    assert rule.violation(value) == violation


VALUES = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2))


@given(st.dictionaries(st.sampled_from([*vars(OptimizerConfig()), "x"]), VALUES, max_size=3))
def test_any_values_give_a_config_or_one_sentence(values) -> None:
    try:
        built = from_dict(PretrainConfig, {"optimizer": values}, "here")
    except ConfigError as error:
        sentence = str(error)
    else:
        assert isinstance(built.optimizer, OptimizerConfig)
        return
    assert sentence.startswith("here: ")
