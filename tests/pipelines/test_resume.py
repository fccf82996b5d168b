"""The same bytes whoever makes them and however often; what is finished is not made again."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import flexseg
from pipelines import manifest

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "valid", "test")
STEMS = [f"s{i:02d}" for i in range(24)]
SHARDS = 8 + 3 + 2  # of 19, 3 and 2 sources

# Runs the command line and kills it as it is about to give the NUMBER-th file that ends in SUFFIX
# its name: whatever is written by then lies there, and no clean-up runs.
KILLED = """
import os, signal, sys
import flexseg

suffix, number, *arguments = sys.argv[1:]
left, replace = int(number), os.replace

def replace_or_die(old, new):
    global left
    left -= new.endswith(suffix)
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(old, new)

os.replace = replace_or_die
sys.exit(flexseg.main(arguments))
"""


def checksums(output: Path) -> dict[str, str]:
    """Every file that a dataset shows, and its SHA-256."""
    files = [p for p in output.iterdir() if p.is_file()]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def made(output: Path) -> dict[str, tuple[int, int]]:
    """Every shard's inode and time: they change when it is written again, whatever its bytes."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in output.glob("*.tfrecord")}


def flags_of(source: Path, output: Path, literal: str, workers: int = 1) -> list[str]:
    return [
        "prepare",
        f"--dataset={source}",
        f"--output={output}",
        f"--label_map={literal}",
        f"--direct_num_workers={workers}",
        "--tile_size=8",
        "--tile_overlap=2",
    ]


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, draw, literal):
    """A source, and the dataset that one worker in one run makes of it."""
    folder = tmp_path_factory.mktemp("unbroken")
    draw(folder / "data", STEMS, (16, 20))
    assert flexseg.main(flags_of(folder / "data", folder / "out", literal)) == 0
    return folder / "data", folder / "out"


@dataclasses.dataclass(frozen=True)
class Work:
    """A dataset of its own that a test may spoil, and the command line that made it."""

    data: Path
    out: Path
    flags: list[str]


@pytest.fixture
def work(tmp_path, draw, literal, command):
    draw(tmp_path / "data", STEMS, (16, 20))
    flags = flags_of(tmp_path / "data", tmp_path / "out", literal)
    assert command(*flags).status == 0
    return Work(tmp_path / "data", tmp_path / "out", flags)


def test_one_worker_and_two_give_the_same_bytes_in_every_file(tmp_path, unbroken, literal):
    source, output = unbroken
    result = python("flexseg.py", *flags_of(source, tmp_path / "out", literal, workers=2))
    assert result.returncode == 0, result.stderr
    assert checksums(tmp_path / "out") == checksums(output)
    assert (tmp_path / "out/.shards/workers.log").exists(), "workers of their own did it"


def test_neither_place_nor_time_of_the_sources_is_in_the_bytes(tmp_path, unbroken, literal):
    source, output = unbroken
    shutil.copytree(source, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    for path in (tmp_path / "elsewhere").rglob("*.png"):
        os.utime(path, (1, 1))
    assert flexseg.main(flags_of(tmp_path / "elsewhere", tmp_path / "out", literal)) == 0
    assert checksums(tmp_path / "out") == checksums(output)


@pytest.mark.parametrize(
    ("suffix", "number", "expected"),
    [
        ("options.json", 1, 0),
        (".plan.json", 3, 0),
        (".tfrecord", 1, 0),
        (".tfrecord", 6, 5),
        (".done.json", 6, 5),
        ("rejected.jsonl", 1, SHARDS),
        ("dataset.json", 1, SHARDS),
    ],
)
def test_a_run_that_was_killed_and_run_again_ends_with_the_same_bytes(
    tmp_path, unbroken, literal, suffix, number, expected
):
    source, output = unbroken
    flags = flags_of(source, tmp_path / "out", literal)
    killed = python("-c", KILLED, suffix, number, *flags)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "out/dataset.json").exists(), "unfinished, and it shows"
    before = made(tmp_path / "out")
    finished = {p.name.removesuffix(".done.json") for p in tmp_path.glob("out/.shards/*.done.json")}
    assert len(finished) == expected
    assert flexseg.main(flags) == 0
    assert checksums(tmp_path / "out") == checksums(output)
    after = made(tmp_path / "out")
    for name in finished:
        assert after[name] == before[name], "what was finished is not made again"
    assert not list((tmp_path / "out").rglob("*.tmp")), "nothing half-made is left"


def test_a_finished_dataset_is_not_made_again(work, command):
    before = made(work.out), checksums(work.out)
    result = command(*work.flags)
    assert f"{SHARDS} of {SHARDS} shards are already there" in result.err
    assert (made(work.out), checksums(work.out)) == before


def test_a_source_that_changed_has_its_shard_made_anew(work, command, save, read_split):
    before, sums = made(work.out), checksums(work.out)
    save(work.data / "masks/s03.png", np.zeros((16, 20, 3), np.uint8))
    result = command(*work.flags)
    assert f"{SHARDS - 1} of {SHARDS} shards are already there" in result.err
    after = made(work.out)
    (changed,) = [name for name in before if before[name] != after[name]]
    found = [r for split in SPLITS for r in read_split(work.out, split) if r["id"] == "s03"]
    assert found
    assert not any(r["mask"].any() for r in found)
    again = checksums(work.out)
    assert {name for name in sums if sums[name] != again[name]} == {changed, "dataset.json"}
    assert manifest.verify(str(work.out)) == []


def test_shards_of_sources_that_are_gone_or_new_never_mix(work, command, draw):
    draw(work.data, [f"new{i}" for i in range(6)], (16, 20))
    assert command(*work.flags).status == 0
    assert manifest.verify(str(work.out)) == [], "no stale shard is left"
    fresh = [flag.replace(str(work.out), f"{work.out}.fresh") for flag in work.flags]
    assert command(*fresh).status == 0
    assert checksums(work.out) == checksums(Path(f"{work.out}.fresh"))
    for path in [*work.data.glob("*/new*"), *work.data.glob("*/s0*")]:
        path.unlink()
    assert command(*work.flags).status == 0
    assert manifest.verify(str(work.out)) == []
    assert {p.name for p in (work.out / ".shards").glob("*.done.json")} == {
        f"{name}.done.json" for name in made(work.out)
    }


def test_a_damaged_shard_is_shown_by_file_and_offset_and_made_again(work, command):
    sums, before = checksums(work.out), made(work.out)
    shard = work.out / "train-00003-of-00008.tfrecord"
    data = bytearray(shard.read_bytes())
    second = 16 + int.from_bytes(data[:8], "little")
    data[second + 40] ^= 1
    stat = shard.stat()
    shard.write_bytes(data)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # nothing but its bytes tells
    result = command("verify", work.out)
    assert result.status == 1
    assert f"{shard.name}: the record at byte {second} has damaged data." in result.err
    assert command(*work.flags).status == 0
    assert command("verify", work.out).status == 0
    assert checksums(work.out) == sums
    again = made(work.out)
    assert [name for name in before if again[name] != before[name]] == [shard.name]


def test_a_missing_shard_is_made_again(work, command):
    sums = checksums(work.out)
    (work.out / "train-00000-of-00008.tfrecord").unlink()
    assert command(*work.flags).status == 0
    assert checksums(work.out) == sums


@pytest.mark.parametrize("content", [b"", b"{", b'{"bytes": 3}', b"[]", b"\xff"])
def test_a_shard_whose_description_is_damaged_is_made_again(work, command, content):
    sums = checksums(work.out)
    (work.out / ".shards/test-00000-of-00002.tfrecord.done.json").write_bytes(content)
    assert command(*work.flags).status == 0
    assert checksums(work.out) == sums
