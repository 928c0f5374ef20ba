"""Writes a video with captions and the bounding box of the mouth drawn into its frames."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.data.media import AUTOMATIC, StreamChoice
from avhubert.errors import MediaError
from avhubert.transcription.captions import Caption, captions
from avhubert.transcription.fonts import caption_font, font_warnings
from avhubert.transcription.reader import MouthRegions
from avhubert.transcription.transcript import Transcript

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

BOX_COLOUR = (255, 200, 0)
TEXT_COLOUR, OUTLINE_COLOUR = (255, 255, 255), (0, 0, 0)
TEXT_SHARE = 0.05  # text size relative to the height of a frame
LINE_SHARE = 0.94  # longest line relative to the width of a frame


def burn_in(
    video: str | Path,
    transcript: Transcript,
    mouths: Sequence[MouthRegions],
    out: str | Path,
    streams: StreamChoice = AUTOMATIC,
) -> list[str]:
    """Writes `out`, an mp4 at 25 fps: the video with captions and, where a mouth was read, its bounding box.

    Returns:
        Warnings about characters that cannot be drawn.

    Raises:
        MediaError: The file has no video.
    """
    from avhubert.data.audio import read_audio
    from avhubert.data.video import probe, write_video

    media = probe(video, streams)
    if not media.has_video:
        raise MediaError(f"{video} has no video to draw captions into", path=video)
    samples = read_audio(video, streams=streams) if media.has_audio else None
    lines = captions(transcript.segments)
    write_video(out, _captioned_frames(video, lines, mouths, streams), audio=samples)
    return [f"{out}: {warning}" for warning in font_warnings(line.text for line in lines)]


def _captioned_frames(
    video: str | Path, lines: Sequence[Caption], mouths: Sequence[MouthRegions], streams: StreamChoice
) -> Iterator[np.ndarray]:
    from PIL import Image, ImageDraw

    from avhubert.data.video import read_frames

    for index, frame in enumerate(read_frames(video, streams=streams)):
        height, width = (side // 2 * 2 for side in frame.shape[:2])  # H.264 with subsampled chroma needs even sides
        image = Image.fromarray(frame[:height, :width])
        draw = ImageDraw.Draw(image)
        _draw_box(draw, index, mouths, height)
        text = next((line.text for line in lines if line.start <= index / FRAME_RATE < line.end), "")
        if text:
            _draw_text(draw, text, height, width)
        yield np.asarray(image)


def _draw_box(draw: ImageDraw, index: int, mouths: Sequence[MouthRegions], height: int) -> None:
    mouth = next((mouth for mouth in mouths if mouth.start <= index < mouth.start + len(mouth.corners)), None)
    if mouth is not None:
        corners = [(float(x), float(y)) for x, y in mouth.corners[index - mouth.start]]
        draw.line([*corners, corners[0]], fill=BOX_COLOUR, width=max(2, height // 240))


def _draw_text(draw: ImageDraw, text: str, height: int, width: int) -> None:
    font = _font(_caption_font(text), max(10, round(TEXT_SHARE * height)))
    draw.multiline_text(
        (width / 2, 0.97 * height), _lines(text, font, LINE_SHARE * width), TEXT_COLOUR, font, "md", align="center",
        stroke_width=max(1, height // 180), stroke_fill=OUTLINE_COLOUR,
    )  # fmt: skip


@lru_cache(maxsize=8)
def _font(path: Path, size: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(path), size)


_caption_font = lru_cache(maxsize=8)(caption_font)  # asked for each frame


def _lines(text: str, font: FreeTypeFont, width: float) -> str:
    """The text with line breaks so that lines fit into `width` pixels; a word that does not fit is divided."""
    lines = [""]
    for word in text.split():
        for part in _parts(word, font, width):
            longer = f"{lines[-1]} {part}".strip()
            if lines[-1] and font.getlength(longer) > width:
                lines.append(part)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def _parts(word: str, font: FreeTypeFont, width: float) -> list[str]:
    """A word that is wider than `width` pixels, divided between characters, as in text without spaces."""
    if font.getlength(word) <= width:
        return [word]
    parts = [""]
    for character in word:
        mark = unicodedata.category(character).startswith("M")  # belongs to the character before it
        if parts[-1] and not mark and font.getlength(parts[-1] + character) > width:
            parts.append("")
        parts[-1] += character
    return parts
