"""Makes the sample clip of `avhubert transcribe --sample`: avhubert/builtin/sample.mp4, and its sentence in sample.txt.

The speaker is synthetic. The same releases of the encoders and of espeak-ng make the same bytes. Needs the extra
`synth`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from avhubert.checkpoints.builtin import SAMPLE
from avhubert.corpora.synthetic.writer import make_corpus

CLIPS, SPEAKERS, SEED = 4, 4, 21
CLIP = "test/speaker003/00003"  # of the corpus; not a speaker that the model was trained on
MAX_BYTES = 100_000


def main() -> None:
    """Write both files."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        make_corpus(corpus, CLIPS, SPEAKERS, seed=SEED, workers=1)
        clip = corpus / f"{CLIP}.mp4"
        size = clip.stat().st_size
        if size > MAX_BYTES:
            sys.exit(f"the clip has {size} bytes, and at most {MAX_BYTES} are allowed; choose another seed")
        text = clip.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[0]
        shutil.copyfile(clip, SAMPLE)
        SAMPLE.with_suffix(".txt").write_text(
            text.removeprefix("Text:").strip().lower() + "\n", encoding="utf-8", newline="\n"
        )


if __name__ == "__main__":
    main()
