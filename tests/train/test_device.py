"""What a plan is made for: the GPUs that nvidia-smi tells and CUDA shows, or else the CPU."""

import builtins
import io
import os

import pytest

from train import device

MEBIBYTE = 1 << 20
LARGE = "GPU-aa11, NVIDIA A100-SXM4-80GB, 81920, 8.0"
SMALL = "GPU-bb22, Tesla T4, 15360, 7.5"
BLIND = "GPU-cc33, NVIDIA GB10, [N/A], 12.1"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine(line, ...)` is one whose nvidia-smi says so; `then` is what it does at last."""

    def make(*lines, then="exit 0"):
        program = tmp_path / "nvidia-smi"
        text = "\n".join(lines)
        # As many fields as it was asked for, or none at all.
        asked = "--query-gpu=uuid,name,memory.total,compute_cap"
        check = f'[ "$1 $2" = "{asked} --format=csv,noheader,nounits" ] || exit 2'
        program.write_text(f"#!/bin/sh\n{check}\ncat <<'EOF'\n{text}\nEOF\n{then}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return make


def test_several_gpus_are_counted_and_each_bears_what_the_least_bears(machine):
    machine(LARGE, SMALL, LARGE)
    found = device.find()
    assert (found.kind, found.count, found.name) == ("gpu", 3, "Tesla T4")
    assert found.memory == int(15360 * MEBIBYTE * 0.9)
    assert found.precision == "mixed_float16"


@pytest.mark.parametrize(
    ("visible", "order", "name", "count"),
    [
        ("0", "PCI_BUS_ID", "NVIDIA A100-SXM4-80GB", 1),
        ("1", "PCI_BUS_ID", "Tesla T4", 1),
        ("2,0", "PCI_BUS_ID", "NVIDIA A100-SXM4-80GB", 2),
        ("0", None, "Tesla T4", 1),  # which one that is only CUDA knows
        ("0, 1", None, "Tesla T4", 2),
        ("0,9,1", None, "Tesla T4", 1),  # CUDA reads no further than to a name of none
        ("0,-1,1", "PCI_BUS_ID", "NVIDIA A100-SXM4-80GB", 1),
        ("GPU-aa", None, "NVIDIA A100-SXM4-80GB", 1),
        ("GPU-bb22,GPU-aa11", None, "Tesla T4", 2),
        ("MIG-1234", None, "Tesla T4", 1),
        ("", None, None, 1),
        ("-1", None, None, 1),
        ("9", None, None, 1),
        ("GPU-zz", None, None, 1),
        ("NoDevFiles", None, None, 1),
    ],
)
def test_gpus_that_cuda_does_not_show_are_not_counted(
    machine, monkeypatch, visible, order, name, count
):
    machine(LARGE, SMALL, "GPU-dd44, NVIDIA A100-SXM4-80GB, 81920, 8.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if order:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    found = device.find()
    assert (found.kind, found.count) == ("gpu" if name else "cpu", count)
    assert name in (None, found.name)


@pytest.mark.parametrize(
    ("lines", "then"),
    [
        (["NVIDIA-SMI has failed because it could not talk to the driver."], "exit 9"),
        ([LARGE], "exit 9"),
        (["No devices were found"], "exit 0"),
        ([BLIND], "exit 0"),
    ],
)
def test_where_no_gpu_is_told_the_cpu_is_planned_for(machine, lines, then):
    machine(*lines, then=then)
    assert device.find().kind == "cpu"


def test_a_gpu_of_unknown_memory_is_left_out_and_keeps_its_number(machine, monkeypatch):
    machine(BLIND, SMALL)
    assert (device.find().name, device.find().count) == ("Tesla T4", 1)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert device.find().name == "Tesla T4"


def test_a_program_that_does_not_answer_is_not_waited_for(machine, monkeypatch):
    machine(LARGE, then="sleep 60")
    run = device.subprocess.run
    monkeypatch.setattr(device.subprocess, "run", lambda *a, **k: run(*a, **{**k, "timeout": 0.3}))
    assert device.find().kind == "cpu"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"memory.max": str(1 << 24)}, 1 << 24),
        ({"memory.max": "max"}, None),
        ({"memory/memory.limit_in_bytes": str(1 << 23)}, 1 << 23),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({}, None),
    ],
)
def test_the_memory_is_that_of_the_control_group_if_it_has_a_limit(monkeypatch, limits, expected):
    files = {f"/sys/fs/cgroup/{name}": text for name, text in limits.items()}
    pretend(monkeypatch, files)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert device.ram() == (expected or whole)


def test_a_system_that_tells_nothing_of_its_cpu_gets_float32(machine, monkeypatch):
    pretend(monkeypatch, {})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = device.find()
    assert (found.kind, found.precision) == ("cpu", "float32")
    assert found.memory > 0


def pretend(monkeypatch, files):
    """Lets the system's files hold something else; those that are not given are not there."""
    real = builtins.open

    def opened(path, *args, **kwargs):
        if str(path).startswith(("/sys/fs/cgroup", "/proc/cpuinfo")):
            if path not in files:
                raise FileNotFoundError(2, "No such file or directory", path)
            return io.StringIO(files[path] + "\n")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", opened)
