"""A film shows every frame for its time, appears whole or not at all, and is read by others."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from export.volumes import films
from flexseg_errors import FlexsegError

FPS = 5.0


def scene(index, size=(48, 64)):
    """A disc that wanders over a slope of grays, its colour another in each frame, RGB."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    frame = np.repeat((columns * 3 % 256)[..., None], 3, -1).astype(np.uint8)
    inside = (rows - size[0] / 2) ** 2 + (columns - 10 - 5 * index) ** 2 < 80
    frame[inside] = [(255, 0, 0), (0, 255, 0), (0, 0, 255)][index % 3]
    return frame


def write(path, frames, fps=FPS):
    with films.writing(str(path), fps) as add:
        for frame in frames:
            add(frame)


def decode(path):
    """All frames, RGB, by FFmpeg."""
    film, frames = cv2.VideoCapture(str(path)), []
    while True:
        found, frame = film.read()
        if not found:
            return frames, film.get(cv2.CAP_PROP_FPS)
        frames.append(frame[..., ::-1])


def decode_gif(path):
    """All frames, RGB, and how long each is shown, in milliseconds, by Pillow."""
    frames, times = [], []
    with Image.open(path) as film:
        for index in range(film.n_frames):
            film.seek(index)
            frames.append(np.array(film.convert("RGB")))
            times.append(film.info["duration"])
        return frames, times, film.info["loop"]


@pytest.mark.parametrize("suffix", films.SUFFIXES)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_frames_come_back_in_their_order_and_colours(tmp_path, suffix, count):
    frames = [scene(i) for i in range(count)]
    write(tmp_path / f"a{suffix}", frames)
    found, fps = decode(tmp_path / f"a{suffix}")
    assert len(found) == count
    if suffix == ".mp4":  # of a GIF, FFmpeg guesses
        assert fps == FPS
    for ours, theirs in zip(frames, found, strict=True):
        assert np.abs(ours.astype(int) - theirs).mean() < 8
    order = [
        int(np.argmin([np.abs(ours.astype(int) - theirs).mean() for ours in frames]))
        for theirs in found
    ]
    assert order == list(range(count))


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1), (3, 200)])
def test_mp4_has_even_sides_by_a_black_line(tmp_path, size):
    frames = [np.full((*size, 3), 200, np.uint8)] * 3
    write(tmp_path / "a.mp4", frames)
    found, _ = decode(tmp_path / "a.mp4")
    height, width = size
    assert [f.shape for f in found] == [(height + height % 2, width + width % 2, 3)] * 3
    np.testing.assert_allclose(found[0][:height, :width].mean(), 200, atol=60)
    if width > 60 and width % 2:
        assert found[0][:, -1].mean() < 80 < found[0][:, : width - 8].mean()


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1), (3, 200)])
def test_gif_is_exact_up_to_256_colours_a_frame(tmp_path, size):
    rng = np.random.default_rng(0)
    frames = []
    for count in (256, 2, 1, 100):  # each frame has colours of its own
        colors = rng.integers(0, 256, (count, 3), dtype=np.uint8)
        frames.append(colors[rng.integers(0, count, size)])
    write(tmp_path / "a.gif", frames)
    found, times, loop = decode_gif(tmp_path / "a.gif")
    assert len(found) == len(frames)
    for ours, theirs in zip(frames, found, strict=True):
        assert (ours == theirs).all()
    assert times == [200] * 4
    assert loop == 0  # endless


def test_gif_of_more_colours_is_near(tmp_path):
    rows, columns = np.mgrid[:64, :80]
    frame = np.stack([rows * 4, columns * 3, (rows + columns) % 256], -1).astype(np.uint8)
    write(tmp_path / "a.gif", [frame, frame[::-1]])
    found = decode_gif(tmp_path / "a.gif")[0]
    assert np.abs(found[0].astype(int) - frame).mean() < 12
    assert np.abs(found[1].astype(int) - frame[::-1]).mean() < 12


def test_frames_that_repeat_are_frames_all_the_same(tmp_path):
    write(tmp_path / "a.gif", [scene(0)] * 4 + [scene(1)] * 2)
    assert len(decode_gif(tmp_path / "a.gif")[0]) == 6
    assert len(decode(tmp_path / "a.gif")[0]) == 6


@pytest.mark.parametrize(
    ("fps", "expected"), [(2, 500), (10, 100), (30, 30), (100, 10), (0.5, 2000)]
)
def test_gif_shows_frames_for_whole_hundredths_of_a_second(tmp_path, fps, expected):
    write(tmp_path / "a.gif", [scene(0), scene(1)], fps)
    assert decode_gif(tmp_path / "a.gif")[1] == [expected] * 2


def broken(error):
    yield scene(1)
    yield scene(2)
    raise error


@pytest.mark.parametrize("suffix", films.SUFFIXES)
def test_a_film_that_breaks_off_leaves_what_was_there(tmp_path, suffix):
    path = tmp_path / "deep" / f"a{suffix}"
    with pytest.raises(KeyboardInterrupt):
        write(path, broken(KeyboardInterrupt))
    assert os.listdir(path.parent) == []
    write(path, [scene(0)])
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        write(path, broken(ZeroDivisionError))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("suffix", films.SUFFIXES)
def test_frames_that_do_not_belong_together_are_refused(tmp_path, suffix):
    with pytest.raises(
        FlexsegError, match=r"a frame is \(64, 48, 3\), those before it \(48, 64, 3\)"
    ):
        write(tmp_path / f"a{suffix}", [scene(0), scene(0).transpose(1, 0, 2)])
    with pytest.raises(FlexsegError, match="needs at least one frame"):
        write(tmp_path / f"a{suffix}", [])
    assert os.listdir(tmp_path) == []


def test_what_is_no_film_or_too_large_is_refused(tmp_path):
    with pytest.raises(FlexsegError, match=r"a.avi: a film's name ends with .mp4 or .gif"):
        write(tmp_path / "a.avi", [scene(0)])
    with pytest.raises(FlexsegError, match=r"a.mp4: frames of 2x8191 are too large for mp4.* 8190"):
        write(tmp_path / "a.mp4", [np.zeros((2, 8191, 3), np.uint8)])
    write(tmp_path / "b.mp4", [np.zeros((2, 8190, 3), np.uint8)])
    assert os.listdir(tmp_path) == ["b.mp4"]


def test_opencv_without_ffmpeg_is_told_with_a_remedy(tmp_path, monkeypatch):
    class Closed:
        def __init__(self, *_):
            pass

        def isOpened(self):  # noqa: N802  OpenCV's name
            return False

        def release(self):
            pass

    monkeypatch.setattr(
        cv2, "VideoWriter", type("VideoWriter", (Closed,), {"fourcc": lambda *_: 0})
    )
    with pytest.raises(FlexsegError, match=r"cannot write .mp4.*use --film=gif"):
        write(tmp_path / "a.mp4", [scene(0)])
    assert os.listdir(tmp_path) == []


def test_an_mp4_whose_frames_did_not_arrive_is_refused(tmp_path, monkeypatch):
    write_frame = films._Mp4.add

    def forgetful(self, frame):
        write_frame(self, frame)
        self._frames += 1  # as if the disk had been full

    monkeypatch.setattr(films._Mp4, "add", forgetful)
    with pytest.raises(FlexsegError, match=r"a.mp4 cannot be written: 2 of 4 frames arrived"):
        write(tmp_path / "a.mp4", [scene(0), scene(1)])
    assert os.listdir(tmp_path) == []
