"""Films of a volume's slices, `.mp4` or `.gif`, written frame by frame."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import cv2
import numpy as np
from PIL import GifImagePlugin, Image

from export.predictions.writing import written
from flexseg_errors import FlexsegError

SUFFIXES = (".mp4", ".gif")

_CODEC = "mp4v"  # MPEG-4 part 2, as the old films; what every build of OpenCV with FFmpeg has
_WIDEST = {".mp4": 8190, ".gif": 65535}  # pixels of a side
_COLORS = 256  # of a GIF's frame

Add = Callable[[np.ndarray], None]


@contextlib.contextmanager
def writing(path: str, fps: float) -> Iterator[Add]:
    """Writes a film that appears under its name whole, or not at all.

    Frames of mp4 are compressed with loss and get even sides, by a black line below and to the
    right. Those of GIF are exact where they have at most 256 colours, each for itself, and shown
    for whole hundredths of a second, endlessly.

    Args:
      path: ends with `.mp4` or `.gif`; here or elsewhere.
      fps: frames a second.

    Yields:
      What adds a frame, uint8 [H, W, 3] RGB, all of one size.

    Raises:
      FlexsegError: where the suffix is another, no frame was added, frames are too large or differ
        in size, and where OpenCV cannot write mp4.
    """
    suffix = next((s for s in SUFFIXES if path.endswith(s)), None)
    if suffix is None:
        raise FlexsegError(f"{path}: a film's name ends with {' or '.join(SUFFIXES)}.")
    with written(path) as local:
        film = _Mp4(local, fps) if suffix == ".mp4" else _Gif(local, fps)
        size: tuple[int, ...] | None = None

        def add(frame: np.ndarray) -> None:
            nonlocal size
            if size is None and max(frame.shape[:2]) > _WIDEST[suffix]:
                raise FlexsegError(
                    f"{path}: frames of {frame.shape[0]}x{frame.shape[1]} are too large for "
                    f"{suffix[1:]}, which has at most {_WIDEST[suffix]} pixels a side."
                )
            if size not in (None, frame.shape):
                raise FlexsegError(f"{path}: a frame is {frame.shape}, those before it {size}.")
            size = frame.shape
            film.add(frame)

        try:
            yield add
            if size is None:
                raise FlexsegError(f"{path}: a film needs at least one frame.")
        except BaseException:
            film.close()
            raise
        film.close()
        film.check(path)


class _Mp4:
    def __init__(self, path: str, fps: float):
        self._path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._frames = 0

    def add(self, frame: np.ndarray) -> None:
        height, width = (side + side % 2 for side in frame.shape[:2])
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*_CODEC)
            self._writer = cv2.VideoWriter(
                self._path, cv2.CAP_FFMPEG, codec, self._fps, (width, height)
            )
            if not self._writer.isOpened():
                raise FlexsegError(
                    "This build of OpenCV cannot write .mp4 (it lacks FFmpeg or its codec "
                    f"{_CODEC}); use --film=gif."
                )
        even = np.zeros((height, width, 3), np.uint8)
        even[: frame.shape[0], : frame.shape[1]] = frame[..., ::-1]
        self._writer.write(even)
        self._frames += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()

    def check(self, path: str) -> None:
        """OpenCV says nothing where it could not write, for want of space, say."""
        film = cv2.VideoCapture(self._path)
        frames = int(film.get(cv2.CAP_PROP_FRAME_COUNT))
        film.release()
        if frames != self._frames:
            raise FlexsegError(
                f"{path} cannot be written: {frames} of {self._frames} frames arrived. Is the disk "
                "full?"
            )


class _Gif:
    """Pillow's own way to write several frames would hold them all, and leave out repeated ones."""

    def __init__(self, path: str, fps: float):
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115  closed by `close`
        self._milliseconds = max(1, round(100 / fps)) * 10
        self._begun = False

    def add(self, frame: np.ndarray) -> None:
        # Median cut without dithering: exact where there are no more colours than that.
        whole = Image.fromarray(np.ascontiguousarray(frame))
        picture = whole.quantize(_COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        if not self._begun:
            header = GifImagePlugin.getheader(picture, info={"loop": 0})[0]
            self._file.write(b"".join(header))
            self._begun = True
        data = GifImagePlugin.getdata(
            picture, duration=self._milliseconds, include_color_table=True
        )
        self._file.write(b"".join(data))

    def close(self) -> None:
        if self._begun:
            self._file.write(b";")
        self._file.close()

    def check(self, path: str) -> None:
        """What could not be written was told by the operating system."""
