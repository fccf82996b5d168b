"""Several images at a time: what comes out is what one after the other gives, and memory holds."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.predictions import predictors, side_by_side
from export.predictions.items import find_items
from export.predictions.outputs import Outputs
from export.predictions.report import Report
from export.predictions.side_by_side import Room

WAIT = 60.0  # seconds until a test that would hang fails instead


class Watched:
    """Counts what is inside at a time."""

    def __init__(self):
        self.inside, self.crowds = [], []
        self._lock = threading.Lock()

    def enter(self, value):
        with self._lock:
            self.inside.append(value)
            self.crowds.append(tuple(self.inside))

    def leave(self, value):
        with self._lock:
            self.inside.remove(value)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 15), min_size=1, max_size=25),
    room=st.integers(1, 12),
)
def test_all_get_in_and_never_more_than_there_is_room_for(sizes, room):
    rooms, seen = Room(room), Watched()

    def visit(size):
        with rooms.of(size):
            seen.enter(size)
            np.ones(20_000).sum()  # lets go of the interpreter, so that others try to get in
            seen.leave(size)
        return size

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(visit, sizes, timeout=WAIT)) == sizes
    for crowd in seen.crowds:
        assert sum(crowd) <= room or len(crowd) == 1


def test_what_does_not_fit_waits_until_there_is_room():
    """Without threads: whether it would be let in."""
    rooms = Room(10)
    with rooms.of(6):
        assert rooms.fits(4)
        assert not rooms.fits(5)
        with rooms.of(4):
            assert not rooms.fits(1)
        assert rooms.fits(4)
    assert rooms.fits(99), "alone"


def test_what_fits_together_is_in_together_and_leaves_room_when_it_fails():
    rooms, meeting = Room(10), threading.Barrier(2)

    def visit(size):
        with rooms.of(size):
            meeting.wait(WAIT)
            raise ValueError(str(size))

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(visit, size) for size in (4, 6)]
    assert [str(future.exception()) for future in both] == ["4", "6"]
    with rooms.of(10):
        pass


@pytest.fixture(scope="module")
def predictor(untrained_runs):
    return predictors.load(untrained_runs["halved"].folder)


def made(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("room", [1, 3000, 36_000_000], ids="{} pixels of room".format)
def test_files_and_reports_are_those_of_one_after_the_other(
    predictor, pictures, tmp_path, monkeypatch, room
):
    (pictures / "broken.png").write_bytes(b"no image")
    monkeypatch.setattr(side_by_side, "Room", lambda: Room(room))
    reports = {}
    for name, at_a_time in (("alone", 1), ("together", 3)):
        outputs = Outputs(str(tmp_path / name), overlay=True)
        items = find_items(str(pictures), outputs.folder)
        monkeypatch.setattr(side_by_side, "AT_A_TIME", at_a_time)
        reports[name] = side_by_side.segment_items(items, predictor, outputs)
        assert [report.stem for report in reports[name]] == [item.stem for item in items]
    assert reports["together"] == reports["alone"]
    assert [r.stem for r in reports["alone"] if r.error] == ["broken"]
    assert made(tmp_path / "together") == made(tmp_path / "alone")


def items_of(*kinds):
    return [SimpleNamespace(stem=f"{i}", kind=kind, path="") for i, kind in enumerate(kinds)]


def test_images_are_worked_on_together(monkeypatch):
    meeting = threading.Barrier(side_by_side.AT_A_TIME)

    def segment_file(item, *rest):
        meeting.wait(WAIT)
        return Report(item.stem, "")

    monkeypatch.setattr(side_by_side, "segment_file", segment_file)
    items = items_of(*["image"] * side_by_side.AT_A_TIME)
    reports = side_by_side.segment_items(items, None, Outputs("nowhere"))
    assert [report.stem for report in reports] == [item.stem for item in items]


def test_a_volume_is_worked_on_alone_and_no_more_images_than_are_stated(monkeypatch):
    seen = Watched()

    def segment_file(item, *rest):
        seen.enter(item.kind)
        np.ones(2_000_000).sum()  # lets go of the interpreter, so that others begin beside
        seen.leave(item.kind)
        return Report(item.stem, "")

    monkeypatch.setattr(side_by_side, "segment_file", segment_file)
    items = items_of("image", "volume", "image", "volume", *["image"] * 20)
    reports = side_by_side.segment_items(items, None, Outputs("nowhere"))
    assert [report.stem for report in reports] == [item.stem for item in items]
    assert ("volume",) in seen.crowds
    assert all("volume" not in crowd or len(crowd) == 1 for crowd in seen.crowds)
    assert max(map(len, seen.crowds)) <= side_by_side.AT_A_TIME


def test_after_an_interruption_what_was_not_begun_is_left(monkeypatch):
    begun, let_go = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            let_go.set()
            super().shutdown(wait=wait)

    def segment_file(item, *rest):
        begun.append(item.stem)
        if item.stem == "0":
            raise KeyboardInterrupt
        assert let_go.wait(WAIT)
        return Report(item.stem, "")

    monkeypatch.setattr(side_by_side, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(side_by_side, "segment_file", segment_file)
    with pytest.raises(KeyboardInterrupt):
        side_by_side.segment_items(items_of(*["image"] * 50), None, Outputs("nowhere"))
    assert 0 < len(begun) <= side_by_side.AT_A_TIME + 1
    assert not [t for t in threading.enumerate() if t.name.startswith("segment")]
