"""Several images at a time on this machine: one is read or written while another is segmented.

What is written is the same as one after the other. Images that are worked on together have no more
pixels than one image that is segmented as a whole may have; so memory is bounded as before.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from export.predictions.huge_image import LIMIT_PIXELS
from export.predictions.items import VOLUME, Item
from export.predictions.outputs import Outputs
from export.predictions.report import Report
from export.predictions.segment_file import segment_file
from flexseg_console import detail, progress

if TYPE_CHECKING:
    from export.predictions.predictors import Predictor

AT_A_TIME = 3  # one is read, one is segmented, one is written


class Room:
    """Lets in what fits together; what is larger than all the room, alone."""

    def __init__(self, pixels: int = LIMIT_PIXELS):
        """Room for that many pixels."""
        self._room = pixels
        self._taken: list[int] = []
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for an image of that many pixels, and holds it."""
        with self._changed:
            self._changed.wait_for(lambda: self.fits(pixels))
            self._taken.append(pixels)
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(pixels)
                self._changed.notify_all()

    def fits(self, pixels: int) -> bool:
        """Whether an image of that many pixels would be let in now."""
        return not self._taken or sum(self._taken) + pixels <= self._room


def segment_items(items: Sequence[Item], predictor: Predictor, outputs: Outputs) -> list[Report]:
    """Segments items, images up to `AT_A_TIME` of them together, volumes one by one.

    Args:
      items: what to segment.
      predictor: the model, which all threads share.
      outputs: what is written.

    Returns:
      Their reports, in their order.
    """
    images = [item for item in items if item.kind != VOLUME]
    threads = min(AT_A_TIME, len(images))
    room = Room()
    reports: dict[str, Report] = {}

    def one(item: Item) -> Report:
        return segment_file(item, predictor, outputs, room)

    with progress(total=len(items), unit="item") as bar:

        def done(item: Item, report: Report) -> None:
            reports[item.stem] = report
            bar.update()
            detail(f"{item.path}: {report.error or 'segmented'}")

        if threads > 1:
            # Where one ends in an error, or somebody presses Ctrl-C, map drops what was not begun.
            with ThreadPoolExecutor(threads, "segment") as pool:
                for item, report in zip(images, pool.map(one, images), strict=True):
                    done(item, report)
        for item in items:
            if item.stem not in reports:
                done(item, segment_file(item, predictor, outputs))
    return [reports[item.stem] for item in items]
