"""Pictures of a dataset's records: the contact sheet, and what findings are about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from export.reports import dataset_sample, page, pictures
from export.reports.dataset_findings import Noticed
from export.reports.dataset_sample import Found
from export.reports.pictures import Picture
from pipelines.label_map import LabelMap
from pipelines.manifest import Manifest

_SMALL = 128  # pixels, the longest side of a finding's pictures
_SHARE_OF_FINDINGS = 5  # their pictures have one part in so many of a page's room


@dataclasses.dataclass(frozen=True)
class Card:
    """A picture: a record, its image, and its mask to be laid over it.

    Attributes:
      found: the record.
      image: its image.
      mask: its mask, background clear.
      shares: (foreground class, its share of the labelled pixels).
    """

    found: Found
    image: Picture
    mask: Picture
    shares: tuple[tuple[int, str], ...]

    @property
    def bytes(self) -> int:
        """What it adds to a page."""
        return self.image.bytes + self.mask.bytes


def sheet(
    manifest: Manifest, found: Mapping[str, Sequence[Found]], wanted: int, room: int
) -> list[Card]:
    """The contact sheet: as many pictures as wanted, fewer where they would make the page large.

    Args:
      manifest: the dataset.
      found: split -> the records to choose from.
      wanted: how many.
      room: bytes for them.

    Raises:
      FlexsegError: where a record is damaged.
    """
    shares = dataset_sample.shares({name: len(some) for name, some in found.items()}, wanted)
    chosen = [
        one for name, some in found.items() for one in dataset_sample.choose(some, shares[name])
    ]
    # What has no room is missing from no split alone.
    cards = _fitting(dataset_sample.shuffled(chosen), manifest, pictures.SIDE, room)
    order = {one: index for index, one in enumerate(chosen)}
    return sorted(cards, key=lambda card: order[card.found])


def of_findings(
    manifest: Manifest, found: Mapping[str, Sequence[Found]], findings: Sequence[Noticed]
) -> list[list[Card]]:
    """For each finding, a small picture of each source that it names and that is among `found`.

    Of a source that became several records the first that augmentation left alone stands for it.

    Raises:
      FlexsegError: where a record is damaged.
    """
    named = {name for one in findings for name in one.sources}
    records: dict[str, Found] = {}
    for some in found.values():
        for one in sorted(some, key=lambda one: one.augmented):
            # A source is named by its file, a slice of a volume by its id.
            for name in named & {one.file, one.source}:
                records.setdefault(name, one)
    room = pictures.MOST_BYTES // _SHARE_OF_FINDINGS
    cards = []
    for finding in findings:
        own = dict.fromkeys(records[name] for name in finding.sources if name in records)
        cards.append(_fitting(list(own), manifest, _SMALL, room))
        room -= sum(card.bytes for card in cards[-1])
    return cards


def _fitting(found: Sequence[Found], manifest: Manifest, side: int, room: int) -> list[Card]:
    """The cards of the first records that have room together, in bytes."""
    vivid = pictures.vivid(manifest.label_map)
    cards = []
    for one in found:
        card = _card(one, vivid, side)
        room -= card.bytes
        if room < 0:
            break
        cards.append(card)
    return cards


def _card(one: Found, colors: LabelMap, side: int) -> Card:
    image, ids = dataset_sample.pixels(one)
    labelled = sum(one.class_pixels)
    return Card(
        one,
        pictures.photo(image, side),
        pictures.layer(ids, colors, side),
        tuple((k, page.percent(one.class_pixels[k] / labelled)) for k in one.classes if k),
    )
