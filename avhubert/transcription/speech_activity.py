"""Speech activity: which frames of the audio have speech, by the network Silero VAD.

The network is that of https://github.com/snakers4/silero-vad (MIT licence); its weights are the file of release 6.2.3,
unchanged, with the licence beside it. Its package is not a requirement of this one: when imported, it sets PyTorch to
one thread, and it reads 32 ms of audio in a call, which takes 15 times as long as a minute in a call.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from avhubert.constants import SAMPLES_PER_FRAME
from avhubert.transcription.segmenter import VOICE_MARGIN, spans

WEIGHTS = Path(__file__).parent / "silero_vad" / "silero_vad_16k.safetensors"
STEP = 512  # samples at 16 kHz; one probability each
CONTEXT = 64  # samples before a step, which the network also reads; as many are mirrored after it
FFT, HOP = 256, 128  # samples

State = tuple[Tensor, Tensor]  # of the LSTM

# chosen with benchmarks/bench_speech_activity.py
MIN_PROBABILITY = 0.2  # of a frame with speech
MIN_EVIDENCE = 2.0  # sum of the probabilities of consecutive frames with speech; music has short peaks


class SpeechNetwork(nn.Module):
    """Silero VAD for 16 kHz: spectrum → four convolutions → LSTM → probability."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(FFT // 2 + 1, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, signal: Tensor) -> Tensor:
        """Probability of speech of each step, float [S], of a signal, float [S × STEP] from -1 to 1."""
        return self.continued(F.pad(signal, (CONTEXT, 0)), None)[0]

    def continued(self, signal: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The same of a signal that goes on, float [CONTEXT + S × STEP], and the state for its next part."""
        steps = signal.unfold(0, STEP + CONTEXT, STEP)
        pieces = F.pad(steps, (0, CONTEXT), mode="reflect").unfold(1, FFT, HOP)  # [S, 4, FFT]
        features = torch.fft.rfft(pieces * torch.hann_window(FFT)).abs().transpose(1, 2)
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            features = convolution(features).relu()
        hidden, state = self.lstm(features.squeeze(-1), state)
        return torch.sigmoid(self.final_conv(hidden.relu()[..., None])).flatten(), state


@lru_cache(maxsize=1)
def _network() -> SpeechNetwork:
    network = SpeechNetwork()
    weights = load_file(WEIGHTS)
    del weights["stft_conv.weight"]  # a short-time Fourier transform with a Hann window, written as a convolution
    renamed = {
        f"lstm.{key.removeprefix('lstm_cell.')}_l0" if key.startswith("lstm_cell.") else key: weight
        for key, weight in weights.items()
    }
    network.load_state_dict(renamed)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def speech_probability(samples: np.ndarray, frames: int) -> np.ndarray:
    """Probability of speech of each frame, float32 [frames], from int16 [N] at 16 kHz; 0 after the last sample."""
    probability = np.zeros(frames, np.float32)
    signal = torch.from_numpy(samples[: frames * SAMPLES_PER_FRAME].astype(np.float32) / 32768)
    if len(signal) == 0:
        return probability
    steps = _network()(F.pad(signal, (0, -len(signal) % STEP))).numpy()
    first = np.arange(frames) * SAMPLES_PER_FRAME
    for sample in (first, first + SAMPLES_PER_FRAME - 1):  # a frame of 640 samples touches two or three steps of 512
        step = sample // STEP
        inside = step < len(steps)
        probability[inside] = np.maximum(probability[inside], steps[step[inside]])
    return probability


class StreamingDetector:
    """`speech_probability` of audio that arrives in parts: the same values, without reading anything twice."""

    def __init__(self) -> None:
        self._state: State | None = None
        self._signal = torch.zeros(CONTEXT)  # what no step has read as its own, after the context
        self._steps = np.zeros(0, np.float32)  # probabilities from step `_first_step` on
        self._first_step = 0
        self._frames = 0

    @torch.no_grad()
    def push(self, samples: np.ndarray) -> np.ndarray:
        """Probability of speech of the frames that are complete now, float32 [n], from int16 [N] at 16 kHz."""
        more = torch.from_numpy(samples.astype(np.float32) / 32768)
        self._signal = torch.cat([self._signal, more])
        count = (len(self._signal) - CONTEXT) // STEP
        if count:
            probability, self._state = _network().continued(self._signal[: CONTEXT + count * STEP], self._state)
            self._signal = self._signal[count * STEP :].clone()
            self._steps = np.concatenate([self._steps, probability.numpy()])
        end = ((self._first_step + len(self._steps)) * STEP) // SAMPLES_PER_FRAME
        first = np.arange(self._frames, max(end, self._frames)) * SAMPLES_PER_FRAME
        steps = [(sample // STEP) - self._first_step for sample in (first, first + SAMPLES_PER_FRAME - 1)]
        result: np.ndarray = np.maximum(*(self._steps[step] for step in steps))
        self._frames += len(first)
        read = self._frames * SAMPLES_PER_FRAME // STEP - self._first_step  # no later frame touches these steps
        self._steps = self._steps[read:]
        self._first_step += read
        return result


def voiced_frames(samples: np.ndarray, frames: int) -> np.ndarray:
    """Frames with speech and their neighbours, bool [frames], from int16 [N] at 16 kHz."""
    return voiced(speech_probability(samples, frames))


def voiced(probability: np.ndarray) -> np.ndarray:
    """Frames with speech and their neighbours, bool [T], from the probability of speech of each frame."""
    frames = np.zeros(len(probability), bool)
    for start, end in spans(probability >= MIN_PROBABILITY):
        if probability[start:end].sum() >= MIN_EVIDENCE:
            frames[max(0, start - VOICE_MARGIN) : end + VOICE_MARGIN] = True
    return frames
