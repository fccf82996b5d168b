"""What this machine trains on, without a measurement: memory, and which half precision is fast."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Sequence

_RAM_SHARE = 0.5  # the rest is for the input, the page cache and whoever else works here
_GPU_SHARE = 0.9  # of one GPU; CUDA's own libraries want some
_BFLOAT16_CPU = ("avx512_bf16", "amx_bf16")  # as Linux names what multiplies bfloat16
_BFLOAT16_GPU = 8.0  # compute capability: Ampere
_FLOAT16_GPU = 7.0  # Volta, the first with tensor cores
_NO_LIMIT = 1 << 60  # bytes; control groups say so, or a number near 2^63, for none


@dataclasses.dataclass(frozen=True)
class Device:
    """What one replica trains on, and how many there may be.

    Attributes:
      kind: "cpu" or "gpu".
      name: for the person.
      memory: bytes that a training may take.
      precision: the fastest of "float32", "mixed_bfloat16" and "mixed_float16" that trains well.
      reason: why that one.
      count: how many of them there are.
    """

    kind: str
    name: str
    memory: int
    precision: str
    reason: str
    count: int = 1


def find() -> Device:
    """The GPUs, or else the CPU. Touches neither TensorFlow nor CUDA."""
    return _gpu() or _cpu()


def of_cpu(flags: set[str], memory: int, cores: int) -> Device:
    """The CPU with these flags (of /proc/cpuinfo), bytes of memory and cores."""
    found = [flag for flag in _BFLOAT16_CPU if flag in flags]
    return Device(
        kind="cpu",
        name=f"CPU, {cores} cores",
        memory=int(memory * _RAM_SHARE),
        precision="mixed_bfloat16" if found else "float32",
        reason=(
            f"this CPU multiplies bfloat16 ({', '.join(found)}), about twice as fast"
            if found
            else "this CPU has no instructions for half precision, which would be slower"
        ),
    )


def of_gpu(line: str) -> Device | None:
    """The GPU of a line "name, memory in MiB, compute capability"; None if it is none."""
    parts = [part.strip() for part in line.split(",")]
    try:
        name, mebibytes, capability = parts[0], int(parts[1]), float(parts[2])
    except (IndexError, ValueError):
        return None
    if capability >= _BFLOAT16_GPU:
        precision, reason = "mixed_bfloat16", "this GPU's tensor cores multiply bfloat16"
    elif capability >= _FLOAT16_GPU:
        precision, reason = "mixed_float16", "this GPU's tensor cores know float16, not bfloat16"
    else:
        precision, reason = "float32", "this GPU has no tensor cores"
    return Device("gpu", name, int((mebibytes << 20) * _GPU_SHARE), precision, reason)


def _gpu() -> Device | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1") or not shutil.which("nvidia-smi"):
        return None
    query = "--query-gpu=uuid,name,memory.total,compute_cap"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line.partition(",") for line in told.stdout.splitlines()]
    found = [(uuid, of_gpu(rest)) for uuid, _, rest in lines]
    gpus = [gpu for _, gpu in found if gpu]
    if visible is not None:
        gpus = _visible(found, visible.split(","))
    least = _least(gpus)
    return dataclasses.replace(least, count=len(gpus)) if least else None


def _visible(found: Sequence[tuple[str, Device | None]], names: Sequence[str]) -> list[Device]:
    """The GPUs of CUDA_VISIBLE_DEVICES, which ends at the first name of none.

    CUDA numbers GPUs by their speed, nvidia-smi by their place. So unless CUDA goes by the place
    too, a number stands for the GPU of the least memory; a part of one (MIG) always does.
    """
    least = _least([gpu for _, gpu in found if gpu])
    by_place = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    gpus: list[Device] = []
    for name in map(str.strip, names):
        if name.isdecimal() and int(name) < len(found):
            gpu = found[int(name)][1] if by_place else least
        elif name.startswith("GPU-"):  # as much of the UUID as tells it from the others
            gpu = next((gpu for uuid, gpu in found if uuid.startswith(name)), None)
        else:
            gpu = least if name.startswith("MIG-") else None
        if gpu is None:
            break
        gpus.append(gpu)
    return gpus


def _least(gpus: Sequence[Device]) -> Device | None:
    return min(gpus, key=lambda gpu: gpu.memory, default=None)


def _cpu() -> Device:
    return of_cpu(_cpu_flags(), ram(), os.cpu_count() or 1)


def ram() -> int:
    """Bytes of memory that this process may take: the machine's, or its control group's if less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdecimal() and 0 < int(text) < _NO_LIMIT:
            limits.append(int(text))
    return min(limits)


def _cpu_flags() -> set[str]:
    """The first processor's, on Linux; elsewhere none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "flags":
                    return set(value.split())
    except OSError:
        pass
    return set()
