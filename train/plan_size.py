"""Crop, depth, batch and memory of a proposed training: what fits together."""

from __future__ import annotations

import dataclasses
import math

from flexseg_errors import FlexsegError
from models import registry
from train import memory
from train.device import Device
from train.experiment import ModelConfig
from train.plan_facts import Facts, Size

LARGEST_SIDE = 512  # of crops
_SMALLEST_SIDE = 64  # to which memory may shrink them
BRIDGE_SIDE = 8  # at least, in pixels
_MOST_LEVELS = 6  # with 16 filters at the top, 512 at the bottom, as many as nnU-Net allows
LEAST_BATCH = 2
FILTERS = {"cpu": 16, "gpu": 32}
_BATCH_PIXELS = {"cpu": 1 << 19, "gpu": 1 << 21}
_BATCH_BOUNDS = {"cpu": (4, 32), "gpu": (8, 64)}
_NORMALIZABLE = 4  # examples from which a batch's statistics are worth something


@dataclasses.dataclass(frozen=True)
class Sizing:
    """What was found to fit.

    Attributes:
      crop: (height, width) of the examples, in pixels.
      model: the network for it.
      batch: examples in a global batch.
      limit: what keeps the batch from being larger: "work", "examples" or "memory".
      memory: of a training step on one device, estimated.
    """

    crop: Size
    model: ModelConfig
    batch: int
    limit: str
    memory: memory.Memory


def levels_for(side: int) -> int:
    """Levels of a network whose bridge sees at least 8 pixels a side of a crop of that side."""
    return min(_MOST_LEVELS, max(1, int(math.log2(max(1, side) / BRIDGE_SIDE)) + 1))


def _rounded(size: Size) -> tuple[Size, int]:
    """The largest size within that the network for it takes, and the network's levels."""
    levels = levels_for(min(size))
    divisor = 2 ** (levels - 1)
    return (size[0] // divisor * divisor, size[1] // divisor * divisor), levels


def largest_crop(facts: Facts) -> Size:
    """The typical record's (height, width), no side above 512 and each fit for the network."""
    return _rounded((min(facts.typical[0], LARGEST_SIDE), min(facts.typical[1], LARGEST_SIDE)))[0]


def fit(facts: Facts, device: Device) -> Sizing:
    """Chooses crop, network and batch.

    As in nnU-Net the crop comes first: it shrinks only if not even two fit, and the batch grows
    only once the crop has its full size. So more memory never gives fewer pixels in a step.

    Raises:
      FlexsegError: where the memory is too small for any.
    """
    crop = largest_crop(facts)
    levels = levels_for(min(crop))
    while (fitting := _most(facts, device, levels, crop)) < LEAST_BATCH:
        crop, levels = _smaller(facts, device, crop, levels)
    if crop != largest_crop(facts):
        fitting = LEAST_BATCH  # a shallower network may leave room for more, but see above
    least, most = _BATCH_BOUNDS[device.kind]
    pixels = math.prod(crop)
    limits = {
        "work": min(max(_BATCH_PIXELS[device.kind] // pixels, least), most),
        # A batch that is much of the data makes all batches alike, and few steps in an epoch.
        "examples": max(least, facts.pixels // pixels // 4),
        "memory": fitting * device.count,
    }
    limit = min(limits, key=lambda name: limits[name])
    each = max(1, limits[limit] // device.count)
    batch = each * device.count
    model = _network(device, levels, "batch" if batch >= _NORMALIZABLE else "group")
    return Sizing(crop, model, batch, limit, _needed(facts, device, levels, crop, each))


def _smaller(facts: Facts, device: Device, crop: Size, levels: int) -> tuple[Size, int]:
    """The next smaller crop, shorter along its longest side, and its network's levels."""
    longest, divisor = max(crop), 2 ** (levels - 1)
    if longest <= _SMALLEST_SIDE:
        least = _needed(facts, device, levels, crop, LEAST_BATCH).total
        raise FlexsegError(
            f"A memory of {device.memory / 2**30:.3g} GB is too small: two crops of "
            f"{crop[0]}x{crop[1]} take about {math.ceil(least / 2**30 * 100) / 100:g} GB. Give "
            "more with --memory_gb."
        )
    height, width = (side - divisor if side == longest else side for side in crop)
    return _rounded((height, width))


def _network(device: Device, levels: int, normalization: str) -> ModelConfig:
    network = registry.configure(
        "flex_unet",
        base_filters=FILTERS[device.kind],
        levels=levels,
        normalization=normalization,
    )
    return ModelConfig(network=network)


def _needed(facts: Facts, device: Device, levels: int, crop: Size, batch: int) -> memory.Memory:
    """The estimate for a batch of crops on one device, with either normalization.

    That of a batch has more parameters. Activations go with the pixels, so one size tells all.
    """
    model = _network(device, levels, "batch")
    side = model.network.size_divisor
    described = memory.describe(
        model, device.precision, len(facts.names), facts.channels, (side, side)
    )
    return memory.estimate(described, batch * math.prod(crop) / side**2, device.precision)


def _most(facts: Facts, device: Device, levels: int, crop: Size) -> int:
    """The most examples that fit on one device; 0 where none does."""
    one = _needed(facts, device, levels, crop, 1)
    left = device.memory - one.weights - one.base
    return max(0, left // (one.activations + 1))  # which is cut off to whole bytes


def is_whole(facts: Facts, sizing: Sizing) -> bool:
    """Whether records are taken as they are."""
    return facts.one_size and facts.low == sizing.crop


def part(facts: Facts, sizing: Sizing) -> float:
    """The share of a typical record that a crop sees."""
    return min(1.0, math.prod(sizing.crop) / math.prod(facts.typical))
