"""Default values that the command line and the library share; each `--help` shows them."""

from __future__ import annotations

# avhubert prepare, shards, synth
VOCAB_SIZE = 1000  # symbols of the tokenizer
MAX_REJECTED = 0.5  # share of the inputs; more means that the corpus or the way it is read is wrong
MAX_CLIP_SECONDS = 120.0
SHARD_MB = 1000
SPEAKERS = 4

# avhubert pseudo-label, lm
MAX_PSEUDO_LABEL_FRAMES = 500
NGRAM_ORDER = 4

# avhubert serve
MAX_UPLOAD_MB = 100.0  # 10⁶ bytes
MAX_RECORDING_SECONDS = 300.0
MAX_QUEUE = 16  # waiting requests
RESPONSE_TIMEOUT = 300.0  # seconds
