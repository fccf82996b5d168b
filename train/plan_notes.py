"""What a person should know before training on a dataset: what a plan cannot mend."""

from __future__ import annotations

from pipelines.manifest import Manifest
from train.device import Device
from train.plan_facts import Facts, Size
from train.plan_size import Sizing, is_whole, part

_FEW = 5  # groups
_LARGE = 16  # crops in a record from which reading it whole for one crop is a waste
_FLAT = 8.0  # gray levels of standard deviation
_LARGE_SIDE = 512  # of whole images, from which a CPU takes long


def notes(facts: Facts, device: Device, sizing: Sizing, manifest: Manifest) -> list[str]:
    """Notes for the person, a sentence or two each."""
    found = []
    crop = sides(sizing.crop)
    valid = manifest.splits.get("valid")
    if valid is None or not valid.examples:
        found.append(
            "There is no valid split: the newest weights are kept as the best, unchecked. "
            "Prepare with --split or --folds."
        )
    elif valid.groups < _FEW:
        found.append(
            f"The valid split has {counted(valid.groups, 'group')}: differences of a few "
            "hundredths of Dice between runs mean nothing. Prepare with --folds to validate on all."
        )
    if facts.groups < _FEW:
        found.append(
            f"The train split has {counted(facts.groups, 'group')}; whatever is unlike them is "
            "unknown to the network. More groups help more than any setting here."
        )
    if 1 / part(facts, sizing) >= _LARGE:
        side = max(64, min(sizing.crop))
        found.append(
            f"A record of {sides(facts.high)} is read whole for a crop of {crop}. Prepare with "
            f"--tile_size={side}, which reads faster, and with --scale where the structures are "
            "seen in smaller images just as well, so that the network sees more of each."
        )
    missing = [n for n, s in zip(facts.names[1:], facts.shares[1:], strict=True) if not s]
    if missing:
        found.append(
            f"No training pixel is {' or '.join(missing)}: the network cannot learn it. Look at "
            "the label map, or move groups to train."
        )
    scarce = [
        f"{name} ({counted(sources, 'source')})"
        for name, sources in zip(facts.names[1:], facts.class_sources[1:], strict=True)
        if 0 < sources < 3 <= facts.sources
    ]
    if device.kind == "cpu" and is_whole(facts, sizing) and min(sizing.crop) >= _LARGE_SIDE:
        found.append(
            f"Images of half the size train four times as fast on this CPU. Where structures are "
            f"thick enough to be seen in them, prepare with --scale=0.5 or --image_size="
            f"{sizing.crop[0] // 2},{sizing.crop[1] // 2}."
        )
    if scarce:
        found.append(f"Only a source or two hold {', '.join(scarce)}; expect little of them.")
    if max(facts.deviations, default=0) < _FLAT:
        found.append(
            "Images are all but flat (see model.input_normalization); of deep images, "
            "--intensity of flexseg prepare chooses what is spread over 0..255."
        )
    if facts.channels == 3 and len(set(zip(facts.means, facts.deviations, strict=True))) == 1:
        found.append("The three channels are equal: gray images, saved in colors.")
    return found


def sides(size: Size) -> str:
    """(512, 256) as 512x256."""
    return f"{size[0]}x{size[1]}"


def percent(share: float) -> str:
    """0.0123 as 1.2%."""
    return f"{100 * share:.2g}%"


def counted(number: int, what: str) -> str:
    """2 and "batch" as 2 batches."""
    plural = f"{what}es" if what.endswith("ch") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"
