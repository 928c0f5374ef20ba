"""A video with its captions and the mouth's box drawn into the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.errors import MediaError
from avhubert.transcription.pipeline import Mouth
from avhubert.transcription.transcript import Caption, Transcript, captions

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

BOX_COLOUR = (255, 200, 0)
TEXT_SHARE = 0.05  # of the picture's height: size of the letters


def burn_in(video: str | Path, transcript: Transcript, mouths: Sequence[Mouth], out: str | Path) -> None:
    """Write `out`, an mp4 at 25 fps: the video with captions below and, where a mouth was read, its box.

    Raises:
        MediaError: the file has no picture.
    """
    from avhubert.data.audio import read_audio
    from avhubert.data.video import probe, write_video

    media = probe(video)
    if not media.has_video:
        raise MediaError(f"{video} has no picture to draw captions into")
    samples = read_audio(video) if media.has_audio else None
    write_video(out, _pictures(video, captions(transcript.segments), mouths), audio=samples)


def _pictures(video: str | Path, shown: Sequence[Caption], mouths: Sequence[Mouth]) -> Iterator[np.ndarray]:
    from PIL import Image, ImageDraw

    from avhubert.data.video import read_frames

    for index, frame in enumerate(read_frames(video)):
        height, width = (side // 2 * 2 for side in frame.shape[:2])  # H.264's colours need even sides
        picture = Image.fromarray(frame[:height, :width])
        draw = ImageDraw.Draw(picture)
        for mouth in mouths:
            if mouth.start <= index < mouth.start + len(mouth.corners):
                corners = [(float(x), float(y)) for x, y in mouth.corners[index - mouth.start]]
                draw.line([*corners, corners[0]], fill=BOX_COLOUR, width=max(2, height // 240))
                break
        text = next((one.text for one in shown if one.start <= index / FRAME_RATE < one.end), "")
        if text:
            font = _font(max(10, round(TEXT_SHARE * height)))
            lines = _lines(text, font, 0.94 * width)
            draw.multiline_text(
                (width / 2, 0.97 * height), lines, (255, 255, 255), font, "md", align="center",
                stroke_width=max(1, height // 180), stroke_fill=(0, 0, 0),
            )  # fmt: skip
        yield np.asarray(picture)


@lru_cache(maxsize=8)
def _font(size: int) -> FreeTypeFont:
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf", size)


def _lines(text: str, font: FreeTypeFont, width: float) -> str:
    """The text in lines that fit `width` pixels; a word alone may be wider."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
