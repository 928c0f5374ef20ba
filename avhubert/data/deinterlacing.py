"""Deinterlacing video frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import av


def progressive(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same frames; from the first interlaced frame on, FFmpeg's filter bwdif deinterlaces them."""
    graph: av.filter.Graph | None = None
    form: tuple[int, int, str] | None = None  # of the frames that the graph takes
    interlaced = False
    for frame in frames:
        interlaced = interlaced or frame.interlaced_frame
        if not interlaced:
            yield frame
            continue
        if form != (frame.width, frame.height, frame.format.name):
            yield from _rest(graph)
            graph, form = _graph(frame), (frame.width, frame.height, frame.format.name)
        assert graph is not None
        graph.push(frame)
        yield from _ready(graph)
    yield from _rest(graph)


def _graph(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _rest(graph: av.filter.Graph | None) -> Iterator[av.VideoFrame]:
    """The frames that the filter still has."""
    if graph is not None:
        graph.push(None)
        yield from _ready(graph)


def _ready(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    """The frames that the filter graph has ready."""
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
