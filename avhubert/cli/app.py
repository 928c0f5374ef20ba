"""The `avhubert` command: one thin function per subcommand; work happens in the rooms, imported when needed.

Exit codes: 0 the work is done, 1 it failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from avhubert.errors import AvhubertError, ConfigError

MODALITY_CHOICES = ("av", "a", "v")


# --------------------------------------------------------------------------- commands
def demo(options: argparse.Namespace) -> None:
    from avhubert.recipes.demo import run

    run(options.out, options.size, seed=options.seed)


def synth(options: argparse.Namespace) -> None:
    from avhubert.corpora.synthetic.writer import make_corpus

    summary = make_corpus(
        options.dir, options.clips, options.speakers, seed=options.seed, text=options.text, workers=options.workers,
        language=options.language, extra=options.extra,
    )  # fmt: skip
    say(summary)


def prepare(options: argparse.Namespace) -> None:
    from avhubert.prepare.pipeline import prepare as run

    summary = run(
        options.corpus,
        options.src,
        options.dst,
        workers=options.workers,
        shard=parse_shard(options.shard),
        seed=options.seed,
        vocab_size=options.vocab_size,
        max_rejected=options.max_rejected,
        max_seconds=options.max_seconds,
        valid_list=options.valid_list,
        english_ids=options.english_ids,
        landmarks=options.landmarks,
        executor=options.executor,
    )
    say(summary)


def shards(options: argparse.Namespace) -> None:
    from avhubert.data.shards import make_shards

    say(make_shards(options.data, options.out, options.shard_mb))


def noise(options: argparse.Namespace) -> None:
    from avhubert.corpora.noise import make_noise

    say(make_noise(options.kind, options.src, options.dst, seed=options.seed))


def cluster(options: argparse.Namespace) -> None:
    from avhubert.cluster.labels import apply
    from avhubert.cluster.labels import cluster as run

    if options.like is not None:
        quality = apply(options.data, options.features, options.like, options.out)
    else:
        quality = run(
            options.data, options.features, options.clusters, options.out, seed=options.seed, percent=options.percent
        )
    say_figures(quality)
    say(f"labels in {options.out}; open {Path(options.out) / 'report.html'}")


def pretrain(options: argparse.Namespace) -> None:
    from avhubert.checkpoints.fairseq.presets import compose_any
    from avhubert.train.pretrain import run

    run(compose_any("pretrain", options.config_name, options.overrides, options.config_dir, warn))


def iterate(options: argparse.Namespace) -> None:
    from avhubert.recipes.iterate import run

    directory = run(options.config_name, options.overrides, options.config_dir, options.from_iteration)
    say(f"open {directory / 'report.html'}")


def finetune(options: argparse.Namespace) -> None:
    from avhubert.checkpoints.fairseq.presets import compose_any
    from avhubert.config.compose import preset_command
    from avhubert.train.finetune import run

    command = preset_command(options.config_name, options.config_dir)
    run(compose_any(command, options.config_name, options.overrides, options.config_dir, warn))


def pseudo_label(options: argparse.Namespace) -> None:
    from avhubert.evaluation.pseudo_label import pseudo_label as run

    summary = run(
        options.model, options.data, options.out, options.min_confidence, labelled=options.labelled,
        split=options.split, modality=options.modality, beam=options.beam, max_frames=options.max_frames,
    )  # fmt: skip
    say(summary)


def average(options: argparse.Namespace) -> None:
    from avhubert.train.average import average as run

    steps = run(options.run_dir, options.out, options.last)
    say(f"{options.out}: the mean of {len(steps)} states, of the steps {', '.join(map(str, steps))}")


def evaluate(options: argparse.Namespace) -> None:
    from avhubert.evaluation.evaluate import evaluate as run

    if options.snr and not options.noise:
        raise ConfigError("--snr needs --noise: a noise list or the folder that `avhubert noise` wrote")
    if options.noise and not options.snr:
        raise ConfigError("--noise needs at least one --snr, in dB, such as --snr 0")
    pairs = [(name, path) if equals else ("", name) for name, equals, path in (n.partition("=") for n in options.noise)]
    if len(pairs) > 1 and not all(name and path for name, path in pairs):
        raise ConfigError("several --noise need a name each, as in --noise babble=noise --noise music=music.tsv")
    settings = ("beam", "lenpen", "ctc_weight", "lm", "lm_weight", "nbest")
    run(
        options.model,
        options.data,
        split=options.split,
        modality=options.modality or "av",
        noise=dict(pairs) if pairs and pairs[0][0] else pairs[0][1] if pairs else None,
        snrs=[None if snr == "clean" else snr for snr in options.snr or ["clean"]],
        faults=options.fault,
        out=options.out,
        normalise=options.normalise,
        decode={name: value for name in settings if (value := getattr(options, name)) is not None},
    )


def compare(options: argparse.Namespace) -> None:
    from avhubert.evaluation.metrics import compare as run
    from avhubert.evaluation.metrics import read_hypotheses

    found = run(read_hypotheses(options.first), read_hypotheses(options.second))
    low, high = found.interval
    say(f"first   WER {found.first:.1f} %")
    say(f"second  WER {found.second:.1f} %")
    interval = f"{found.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
    say(f"second − first: {interval}, p = {found.p:.3f}, {found.utterances} clips")


def transcribe(options: argparse.Namespace) -> None:
    from avhubert.transcription.command import transcribe_files

    if options.out is None and (options.burn_in or options.skip_existing):
        raise ConfigError("--burn-in and --skip-existing need --out, the folder for what is written")
    if options.people:
        if options.burn_in:
            raise ConfigError("--burn-in shows one person's captions; leave it or --people out")
        if options.out is None and options.format != "txt":
            raise ConfigError(
                f"--people writes one {options.format} file for each person; give --out, the folder for them"
            )
    transcribe_files(
        options.files, options.model, options.modality, options.format, options.out, captioned=options.burn_in,
        keep=options.skip_existing, people=options.people,
    )  # fmt: skip


def serve(options: argparse.Namespace) -> None:
    try:
        from avhubert.serve.api import serve as run
        from avhubert.serve.limits import Limits
    except ImportError as error:
        raise ConfigError(f"`avhubert serve` needs {error.name}: pip install 'avhubert[serve]'") from error
    run(
        options.model, options.host, options.port, options.token,
        Limits(options.max_mb, options.max_seconds, options.queue, options.timeout),
    )  # fmt: skip


def lm(options: argparse.Namespace) -> None:
    from avhubert.decode.lm import train_ngram

    say_figures(train_ngram(options.data, options.out, order=options.order))


def features(options: argparse.Namespace) -> None:
    from avhubert.features.extract import extract_features

    written = extract_features(
        options.source, options.model, layer=options.layer, out=options.out, split=options.split,
        modality=options.modality, units=options.units,
    )  # fmt: skip
    say(f"{len(written)} files in {options.out}")


def convert(options: argparse.Namespace) -> None:
    from avhubert.checkpoints.fairseq.read import convert as from_fairseq
    from avhubert.checkpoints.fairseq.write import to_fairseq

    work = to_fairseq if options.to_fairseq else from_fairseq
    for note in work(options.source, options.out):
        say(note)
    say(f"wrote {options.out}")


def export(options: argparse.Namespace) -> None:
    from avhubert.checkpoints.load import load
    from avhubert.checkpoints.onnx import export as run

    for name, difference in run(load(options.model), options.out, options.modality).items():
        say(f"{name}.onnx  at most {difference:.1e} from the model")
    say(f"wrote {options.out}; what goes in and out is in {options.out / 'README.md'}")


def models(options: argparse.Namespace) -> None:
    from avhubert.prepare.detectors.models import fetch

    for name, path in fetch().items():
        say(f"{name}: {path}")


def doctor(options: argparse.Namespace) -> None:
    from avhubert.tools import doctor as examination

    checks = examination.examine()
    if options.json:
        say(json.dumps(examination.as_json(checks), indent=1))
    else:
        examination.show(checks)
    wrong = examination.verdict(checks)
    if wrong is not None:
        raise AvhubertError(wrong)


def info(options: argparse.Namespace) -> None:
    from avhubert.tools.info import describe

    say_figures(describe(options.path))


# --------------------------------------------------------------------------- helpers
def say(what: object) -> None:
    print(what, flush=True)


def warn(what: object) -> None:
    print(f"avhubert: {what}", file=sys.stderr, flush=True)


def say_figures(figures: dict) -> None:
    width = max(len(str(name)) for name in figures)
    for name, value in figures.items():
        say(f"{name!s:<{width}}  {value:.4g}" if isinstance(value, float) else f"{name!s:<{width}}  {value}")


def parse_shard(text: str) -> tuple[int, int]:
    """'I/N' → (I, N), 0 ≤ I < N."""
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        index, count = 0, 0
    if not 0 <= index < count:
        raise ConfigError(f"--shard {text} is not of the form I/N with 0 ≤ I < N, such as 0/4")
    return index, count


def snr(text: str) -> int | str:
    return text if text == "clean" else int(text)


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share between 0 and 1")
    return value


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return value


def above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


# --------------------------------------------------------------------------- the parser
class Parser(argparse.ArgumentParser):
    """A usage error is one sentence and exit code 2, which tells what a misspelt word may have meant."""

    given: Sequence[str] = ()

    def parse_known_args(self, args=None, namespace=None):
        self.given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        self.exit(2, f"avhubert: {self._misspelt(self.given) or f'{message} (see `{self.prog} --help`)'}\n")

    def _misspelt(self, words: Sequence[str]) -> str:
        """argparse tells first of what is missing, which is often there under a wrong name."""
        if self._subparsers is not None and words and not words[0].startswith("-"):
            (action,) = self._subparsers._group_actions
            known = dict(action.choices or ())
            if words[0] in known:
                return known[words[0]]._misspelt(words[1:])
            return (
                f"there is no command '{words[0]}'{_meant(words[0], list(known)) or ': ' + ', '.join(known)} "
                f"(see `{self.prog} --help`)"
            )
        options = list(self._option_string_actions)
        for word in words:
            name = word.partition("=")[0]
            if name.startswith("--") and not any(one.startswith(name) for one in options):
                return f"there is no option {name}{_meant(name, options)} (see `{self.prog} --help`)"
        return ""


def _meant(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def parser() -> argparse.ArgumentParser:
    main_parser = Parser(
        prog="avhubert",
        description="Audio-visual speech: videos to mouth clips, to a model, to text.",
        epilog="Begin with: avhubert demo",
    )
    main_parser.add_argument("--version", action="store_true", help="print the version")
    commands = main_parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)

    def command(name: str, run: Callable, help: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.epilog = f"Example: {example}"
        sub.set_defaults(run=run)
        return sub

    def add_seed(sub: argparse.ArgumentParser, default: int = 0) -> None:
        sub.add_argument("--seed", type=int, default=default, metavar="K", help=f"random seed (default {default})")

    def add_workers(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--workers", type=positive, metavar="N", help="processes (default: one per core)")

    sub = command(
        "demo",
        demo,
        "the whole loop on a corpus made here: videos to text, and a report page",
        "avhubert demo --size quick --out runs/demo",
    )
    sub.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="default runs/demo")
    sub.add_argument(
        "--size", choices=("smoke", "quick", "full"), default="quick", help="about 2 min, 15 min or 2 h on 2 cores"
    )
    add_seed(sub, 1)

    sub = command(
        "synth",
        synth,
        "write a corpus of drawn talking faces in LRS3's folder shape",
        "avhubert synth corpus --clips 40 --speakers 8 --seed 7",
    )
    sub.add_argument("dir", type=Path, metavar="DIR")
    sub.add_argument("--clips", type=positive, required=True, metavar="N", help="how many clips in all")
    sub.add_argument("--speakers", type=positive, default=4, metavar="S", help="default 4")
    add_seed(sub)
    sub.add_argument(
        "--text", default="grid", metavar="KIND", help="grid: six-slot commands, 51 words; sentences: over 1000 words"
    )
    sub.add_argument("--language", default="en", metavar="L", help="en, or ru (grid only)")
    sub.add_argument(
        "--extra", nargs="+", default=[], metavar="X", help="glasses, beard, light (moving), hands, faces (a listener)"
    )
    add_workers(sub)

    sub = command(
        "prepare",
        prepare,
        "turn a corpus of videos into mouth clips, manifests, transcripts and a tokenizer",
        "avhubert prepare lrs3 /corpora/lrs3 data --workers 8",
    )
    sub.add_argument("corpus", choices=("lrs3", "vox2", "folder"))
    sub.add_argument("src", type=Path, metavar="SRC", help="the corpus, or any folder of videos")
    sub.add_argument("dst", type=Path, metavar="DST", help="lrs3: DST/30h, DST/433h; vox2: DST/en, DST/all")
    add_workers(sub)
    sub.add_argument("--shard", default="0/1", metavar="I/N", help="do the I-th of N parts (job arrays)")
    sub.add_argument("--executor", choices=("local", "ray"), default="local", help="processes here, or a Ray cluster")
    add_seed(sub)
    sub.add_argument("--vocab-size", type=positive, default=1000, metavar="V", help="tokenizer size (default 1000)")
    sub.add_argument(
        "--max-rejected",
        type=share,
        default=0.5,
        metavar="SHARE",
        help="fail when more than this share of the inputs, 0 to 1, cannot be used (default 0.5)",
    )
    sub.add_argument(
        "--max-seconds", type=seconds, default=120.0, metavar="S", help="leave out longer clips (default 120)"
    )
    sub.add_argument("--valid-list", type=Path, metavar="FILE", help="lrs3: ids of the validation clips, one a line")
    sub.add_argument("--english-ids", type=Path, metavar="FILE", help="vox2: ids of the English clips, one a line")
    sub.add_argument(
        "--landmarks", metavar="DIR", help="68 points a frame, DIR/ID.pkl or .npz; or dlib:DIR with dlib's model files"
    )

    sub = command(
        "shards",
        shards,
        "a data directory as a few large tars, for training on a cluster",
        "avhubert shards data/433h /lustre/433h --shard-mb 1000",
    )
    sub.add_argument("data", type=Path, metavar="DATA", help="data directory")
    sub.add_argument("out", type=Path, metavar="OUT", help="the data directory of shards")
    sub.add_argument("--shard-mb", type=positive, default=1000, metavar="N", help="size of a tar (default 1000)")

    sub = command(
        "noise",
        noise,
        "make noise clips and their train, valid and test lists",
        "avhubert noise babble data/433h noise",
    )
    sub.add_argument("kind", choices=("musan", "babble", "speech"))
    sub.add_argument("src", type=Path, metavar="SRC", help="MUSAN, or a data directory to take speech from")
    sub.add_argument("dst", type=Path, metavar="DST")
    add_seed(sub)

    sub = command(
        "cluster",
        cluster,
        "cluster features into frame labels for pre-training",
        "avhubert cluster data/433h --features mfcc --clusters 100 --out labels/iter1",
    )
    sub.add_argument("data", type=Path, metavar="DATA", help="data directory")
    sub.add_argument("--features", required=True, metavar="mfcc|MODEL:LAYER", help="what is clustered")
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("--clusters", type=positive, metavar="K", help="learn K clusters")
    which.add_argument("--like", type=Path, metavar="LABELS", help="those of another corpus's labels, learning nothing")
    sub.add_argument("--out", type=Path, required=True, metavar="LABELS", help="folder for {split}.km and labels.json")
    add_seed(sub)
    sub.add_argument("--percent", type=float, default=100.0, metavar="P", help="share of clips k-means learns from")

    for name, run, help in (
        ("pretrain", pretrain, "masked cluster prediction; goes on by itself in the same run_dir"),
        ("finetune", finetune, "train a recognizer from a pre-trained model; goes on by itself"),
    ):
        extra = "data.labels=labels/iter1" if name == "pretrain" else "model.pretrained=runs/iter2"
        preset = "tiny_iter1" if name == "pretrain" else "tiny"
        sub = command(
            name,
            run,
            help,
            f"avhubert {name} --config-name {preset} run_dir=runs/x data.dir=data/433h {extra} train.max_steps=100",
        )
        sub.add_argument("--config-name", required=True, metavar="NAME", help="a preset")
        sub.add_argument(
            "--config-dir", type=Path, metavar="D", help="your own folder of presets, or the published project's"
        )
        sub.add_argument("overrides", nargs="*", metavar="key=value", help="anything in the preset")

    sub = command(
        "iterate",
        iterate,
        "cluster and pre-train for all iterations of a recipe; goes on by itself",
        "avhubert iterate --config-name base_lrs3 run_dir=runs/lrs3 data.dir=data/433h",
    )
    sub.add_argument("--config-name", required=True, metavar="NAME", help="a recipe")
    sub.add_argument("--config-dir", type=Path, metavar="D", help="your own folder of recipes")
    sub.add_argument("--from-iteration", type=positive, default=1, metavar="N", help="take those before as they are")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="of the recipe, or of every iteration's preset")

    sub = command(
        "pseudo-label",
        pseudo_label,
        "self-training: transcribe clips without text, and mix what is sure into labelled data",
        "avhubert pseudo-label runs/tuned data/vox/en data/mixed --labelled data/433h --min-confidence -0.2",
    )
    sub.add_argument("model", type=Path, metavar="MODEL", help="a recognizer")
    sub.add_argument("data", type=Path, metavar="DATA", help="data directory; it needs no transcripts")
    sub.add_argument("out", type=Path, metavar="OUT", help="the data directory to fine-tune on")
    sub.add_argument(
        "--min-confidence", type=float, required=True, metavar="X", help="mean log-probability of a clip's tokens"
    )
    sub.add_argument("--labelled", type=Path, metavar="DATA", help="mixed in; also gives validation and tokenizer")
    sub.add_argument("--split", default="train", help="of DATA; default train")
    sub.add_argument("--modality", choices=MODALITY_CHOICES, default="av", help="default av")
    sub.add_argument("--beam", type=positive, metavar="N", help="default: the model's own")
    sub.add_argument("--max-frames", type=positive, default=500, metavar="T", help="longer clips are left out")

    sub = command(
        "average",
        average,
        "a model directory with the mean weights of a run's last states",
        "avhubert average runs/tuned runs/tuned-mean --last 5",
    )
    sub.add_argument("run_dir", type=Path, metavar="RUN", help="run_dir of pretrain or finetune")
    sub.add_argument("out", type=Path, metavar="OUT")
    sub.add_argument("--last", type=positive, metavar="N", help="default: all states that the run kept")

    sub = command(
        "evaluate",
        evaluate,
        "word error rate of a recognizer on a data directory, clean or in noise",
        "avhubert evaluate runs/demo/model data/30h --modality v --out eval",
    )
    sub.add_argument("model", metavar="MODEL", help="model directory or published checkpoint")
    sub.add_argument("data", type=Path, metavar="DATA", help="data directory")
    sub.add_argument("--split", default="test", help="default test")
    sub.add_argument(
        "--modality", choices=MODALITY_CHOICES, action="append", help="default av; as the next three, may come again"
    )
    sub.add_argument(
        "--noise", action="append", default=[], metavar="[NAME=]LIST", help="noise list, or folder of `avhubert noise`"
    )
    sub.add_argument("--snr", type=snr, action="append", metavar="dB", help="of the noise; `clean` for none")
    sub.add_argument(
        "--fault", action="append", default=[], metavar="F", help="blur, freeze, occlusion, drop, offset:N"
    )
    sub.add_argument("--beam", type=positive, metavar="N", help="this and those below: default the model's own")
    sub.add_argument("--lenpen", type=float, metavar="X", help="length penalty")
    sub.add_argument("--ctc-weight", type=share, metavar="W", help="share of CTC in the score, 0 to 1")
    sub.add_argument("--lm", metavar="LM", help="language model: `avhubert lm`'s file, a Hugging Face model")
    sub.add_argument("--lm-weight", type=float, metavar="W")
    sub.add_argument("--nbest", type=positive, metavar="N", help="hypotheses written of each clip (default 1)")
    sub.add_argument(
        "--normalise",
        choices=("basic", "plain", "english"),
        default="basic",
        help="of both texts: basic (lower case; default), plain (no punctuation), english (Whisper's)",
    )
    sub.add_argument("--out", type=Path, metavar="DIR", help="hypotheses, results.json and report.html")

    sub = command(
        "compare",
        compare,
        "whether two results on the same clips differ: paired bootstrap over utterances",
        "avhubert compare eval1/hypotheses-v-clean.json eval2/hypotheses-v-clean.json",
    )
    sub.add_argument("first", type=Path, metavar="A.json", help="a hypotheses-….json of `avhubert evaluate`")
    sub.add_argument("second", type=Path, metavar="B.json")

    sub = command(
        "transcribe",
        transcribe,
        "video or sound files of any length and kind to text",
        "avhubert transcribe talk.mp4 --model runs/demo/model --format srt",
    )
    sub.add_argument("files", nargs="+", metavar="FILE", help="file, folder or pattern such as 'talks/*.mp4'")
    sub.add_argument("--model", required=True, metavar="MODEL", help="model directory or published checkpoint")
    sub.add_argument(
        "--modality", choices=("auto", *MODALITY_CHOICES), default="auto", help="default: what is there and good enough"
    )
    sub.add_argument("--format", choices=("txt", "srt", "vtt", "json"), default="txt", help="default txt")
    sub.add_argument("--out", type=Path, metavar="DIR", help="write FILE's name there instead of printing")
    sub.add_argument("--burn-in", action="store_true", help="also the video with captions and the mouth's box")
    sub.add_argument("--skip-existing", action="store_true", help="leave files whose transcript is in DIR already")
    sub.add_argument("--people", action="store_true", help="one transcript for each person who is seen, by their lips")

    sub = command(
        "serve",
        serve,
        "a web page and an HTTP API that transcribe what is sent to them",
        "avhubert serve --model runs/demo/model --port 8000",
    )
    sub.add_argument("--model", required=True, metavar="MODEL")
    sub.add_argument("--host", default="127.0.0.1", metavar="H", help="default 127.0.0.1: this machine alone")
    sub.add_argument("--port", type=int, default=8000, metavar="P", help="default 8000; 0: any that is free")
    sub.add_argument(
        "--token", default=os.environ.get("AVHUBERT_TOKEN") or None, metavar="T",
        help="ask every client for it; default $AVHUBERT_TOKEN, else none",
    )  # fmt: skip
    sub.add_argument("--max-mb", type=above_zero, default=100.0, metavar="N", help="largest upload (default 100)")
    sub.add_argument("--max-seconds", type=seconds, default=300.0, metavar="S", help="longest recording (default 300)")
    sub.add_argument("--queue", type=positive, default=16, metavar="N", help="requests that may wait (default 16)")
    sub.add_argument("--timeout", type=seconds, default=300.0, metavar="S", help="for an answer (default 300)")

    sub = command(
        "lm",
        lm,
        "make an n-gram language model of a data directory's training transcripts, in its tokenizer's symbols",
        "avhubert lm data/433h lm.arpa --order 4",
    )
    sub.add_argument("data", type=Path, metavar="DATA", help="data directory")
    sub.add_argument("out", type=Path, metavar="OUT", help="ARPA file, for decode.lm=OUT")
    sub.add_argument("--order", type=positive, default=4, metavar="N", help="longest n-gram (default 4)")

    sub = command(
        "features",
        features,
        "features of one layer, [T, D] .npy per clip at 25 Hz",
        "avhubert features data/433h --model runs/iter1 --layer 4 --out features",
    )
    sub.add_argument("source", metavar="DATA_OR_FILE", help="data directory, or one video")
    sub.add_argument("--model", required=True, metavar="MODEL")
    sub.add_argument("--layer", type=int, metavar="L", help="0 = before the encoder; default: the encoder's output")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR")
    sub.add_argument("--split", metavar="S", help="default: every split of the data directory")
    sub.add_argument("--modality", choices=MODALITY_CHOICES, default="av", help="default av")
    sub.add_argument("--units", type=Path, metavar="LABELS", help="also write cluster ids by this label model")

    sub = command(
        "convert",
        convert,
        "published checkpoint to a model directory, and back",
        "avhubert convert base_vox_iter5.pt base_vox_iter5",
    )
    sub.add_argument("source", type=Path, metavar="CKPT.pt", help="or a model directory, with --to-fairseq")
    sub.add_argument("out", type=Path, metavar="OUT")
    sub.add_argument("--to-fairseq", action="store_true", help="write the published format")

    sub = command("export", export, "model to ONNX, checked with ONNX Runtime", "avhubert export runs/ft/best onnx")
    sub.add_argument("model", metavar="MODEL", help="model directory, published checkpoint or name on the Hub")
    sub.add_argument("out", type=Path, metavar="OUT", help="folder that is made")
    sub.add_argument("--modality", choices=MODALITY_CHOICES, help="what the encoder takes (default: as it was tuned)")

    sub = command("doctor", doctor, "what this machine has and lacks, and what mends it", "avhubert doctor --json")
    sub.add_argument("--json", action="store_true", help="for programs")

    sub = command("info", info, "what a model, run, data, label folder or video is", "avhubert info runs/demo/model")
    sub.add_argument("path", metavar="PATH", help="one of these, a published checkpoint, or a name on the Hub")

    sub = command("models", models, "fetch the face models ahead of time", "avhubert models fetch")
    sub.add_argument("action", choices=("fetch",))
    return main_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; an error that a user can cause becomes one sentence on stderr and an exit code."""
    options = parser().parse_args(arguments)
    if options.version:
        from avhubert import __version__

        print(__version__)
        return 0
    if not hasattr(options, "run"):
        parser().print_help()
        return 2
    try:
        options.run(options)
    except AvhubertError as error:
        print(f"avhubert: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        return 1
    except OSError as error:  # a full disk, a lost mount: the system's own words are the clearest
        print(f"avhubert: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("avhubert: interrupted; start it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
