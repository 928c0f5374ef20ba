"""Numbers that the whole package agrees on; each is defined here and nowhere else.

The first group fixes the model's inputs: every checkpoint was trained with them.
"""

from __future__ import annotations

FRAME_RATE = 25  # video frames per second
SAMPLE_RATE = 16_000  # audio samples per second, mono
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
FILTERS = 26  # log mel filterbank values per 10 ms
STACKED_FRAMES = 4  # filterbank frames per video frame
AUDIO_DIM = FILTERS * STACKED_FRAMES  # audio values per video frame
MOUTH_SIZE = 96  # height and width of a mouth clip, pixels
CROP_SIZE = 88  # height and width of the crop that the model sees, pixels
GRAY_MEAN, GRAY_STD = 0.421, 0.165  # of the gray levels / 255, as published

MODALITIES = {"av": ("audio", "video"), "a": ("audio",), "v": ("video",)}  # the streams of each
SPLITS = ("train", "valid", "test")  # of a data directory
LRS3_SPLITS = ("pretrain", "trainval", "test")  # of a corpus in LRS3's folders

# symbols of the tokenizer and of the cluster dictionaries
BOS, PAD, EOS, UNK = range(4)
SPECIAL_SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>")
NUM_SPECIALS = len(SPECIAL_SYMBOLS)  # the class of a cluster is its line in the dictionary + 4
CTC_BLANK = BOS
NO_LABEL = -1  # a frame without a target

LOG_ZERO = float("-inf")  # log-probability of what cannot be
NAMES_SHOWN = 3  # names listed in a message before "and N more"
