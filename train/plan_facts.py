"""What a dataset's manifest says that a training depends on; no pixel is read."""

from __future__ import annotations

import dataclasses
import math

from flexseg_errors import FlexsegError
from pipelines.manifest import Manifest

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the manifest says that choices depend on; all of the train split but the sizes.

    Attributes:
      examples, sources, groups: how many.
      pixels: of all examples.
      low, high: smallest and largest (height, width) of any split's records.
      typical: (height, width) of a record of mean area.
      names: of the classes.
      shares: of each class among the pixels that have one, [K].
      class_sources: sources that hold each class, [K].
      empty: share of the examples that hold no foreground for certain.
      channels: of the images.
      means, deviations: of each channel, 0..255.
    """

    examples: int
    sources: int
    groups: int
    pixels: int
    low: Size
    high: Size
    typical: Size
    names: tuple[str, ...]
    shares: tuple[float, ...]
    class_sources: tuple[int, ...]
    empty: float
    channels: int
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @property
    def one_size(self) -> bool:
        return self.low == self.high

    @property
    def foreground(self) -> dict[str, float]:
        """Name -> share of the foreground classes that occur."""
        pairs = zip(self.names[1:], self.shares[1:], strict=True)
        return {name: share for name, share in pairs if share}

    @property
    def rarest(self) -> tuple[str, float]:
        """The rarest foreground class that occurs, and its share; ("", 0) where none does."""
        return min(self.foreground.items(), key=lambda item: item[1], default=("", 0.0))


def facts_of(manifest: Manifest) -> Facts:
    """What a manifest says that choices depend on.

    Raises:
      FlexsegError: where there is nothing to train on, or one class only.
    """
    split = manifest.split("train")
    if manifest.label_map.num_classes < 2:
        raise FlexsegError(
            f"The label map of {manifest.folder} has one class; there is nothing to tell it from. "
            "Prepare the dataset with at least two classes."
        )
    if not split.examples:
        raise FlexsegError(f'The split "train" of {manifest.folder} holds no examples.')
    splits = [s for s in manifest.splits.values() if s.examples]
    low = min(s.min_size[0] for s in splits), min(s.min_size[1] for s in splits)
    high = max(s.max_size[0] for s in splits), max(s.max_size[1] for s in splits)
    labelled = max(1, sum(split.class_pixels))
    holding = split.class_examples[1:]
    # Only with one foreground class is it known which examples hold none; of more, at least so many
    # do not.
    empty = max(0, split.examples - sum(holding)) / split.examples
    return Facts(
        examples=split.examples,
        sources=split.sources,
        groups=split.groups,
        pixels=split.pixels,
        low=low,
        high=high,
        typical=_typical(split.pixels / split.examples, low, high),
        names=tuple(manifest.label_map.names),
        shares=tuple(n / labelled for n in split.class_pixels),
        class_sources=tuple(split.class_sources),
        empty=empty,
        channels=manifest.channels,
        means=tuple(split.channel_mean),
        deviations=tuple(split.channel_std),
    )


def _typical(area: float, low: Size, high: Size) -> Size:
    """The size of a record of mean area; of two sizes only, it is between them."""
    aspect = (low[0] + high[0]) / (low[1] + high[1])
    height = min(max(math.sqrt(area * aspect), low[0]), high[0])
    width = min(max(area / height, low[1]), high[1])
    return round(height), round(width)
