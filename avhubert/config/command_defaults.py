"""Defaults of command-line options that the library shares; those of training are in `config.schema`."""

from __future__ import annotations

# avhubert transcribe, serve
BUILTIN_MODEL = "builtin"  # name of the model inside the package, wherever a model is asked for

# avhubert prepare, shards, synth
VOCAB_SIZE = 1000  # symbols of the tokenizer
MAX_REJECTED = 0.5  # share of the inputs; more means that the corpus or the way it is read is wrong
MAX_CLIP_SECONDS = 120.0
STALL_SECONDS = 120.0  # without a decoded frame: then a decoder hangs; network file systems can pause for a minute
SHARD_MB = 1000
SPEAKERS = 4

# avhubert evaluate
NORMALISER = "basic"  # of references and hypotheses before WER is computed; a name in data.text.NORMALISERS

# avhubert pseudo-label, lm
MAX_PSEUDO_LABEL_FRAMES = 500
NGRAM_ORDER = 4
