"""Finds images and masks, pairs them by stem, groups them, and splits the groups."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from flexseg_errors import FlexsegError, nearest
from pipelines import readers

SPLITS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True)
class Source:
    """An image and its mask.

    Attributes:
      id: the image's path below the images folder, without suffix; where the dataset comes with
        splits, preceded by the split's name.
      filename: the same with suffix.
      image: path of the image.
      mask: path of its mask.
      group: what must not be divided between splits (a patient, an original image).
      split: "" until it is assigned.
    """

    id: str
    filename: str
    image: str
    mask: str
    group: str
    split: str = ""


@dataclasses.dataclass(frozen=True, order=True)
class Rejected:
    """A source that could not be used: one line of `rejected.jsonl`."""

    path: str
    stage: str  # "pair", "group", "header", "read", "categorize", "tile"
    reason: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the images and masks of one split lie; `split` is "" where there are no splits yet."""

    split: str
    images: str
    masks: str


def find_layouts(
    dataset: str | None, images: str | None = None, masks: str | None = None
) -> tuple[Layout, ...]:
    """Recognizes `DIR/{images,masks}`, `DIR/{train,valid,test}/{images,masks}`, or two folders.

    Raises:
      FlexsegError: where a folder is missing, naming it and what was expected.
    """
    if dataset is None:
        if not (images and masks):
            raise FlexsegError("Give --dataset=DIR, or both --images=DIR and --masks=DIR.")
        return (_checked(Layout("", images, masks)),)
    if images or masks:
        raise FlexsegError("Give either --dataset, or --images and --masks, not both.")
    if not os.path.isdir(dataset):
        raise FlexsegError(f"--dataset={dataset}: there is no such folder.")
    inside = sorted(os.listdir(dataset))
    splits = [s for s in SPLITS if os.path.isdir(os.path.join(dataset, s))]
    if "images" in inside and splits:
        raise FlexsegError(
            f"--dataset={dataset} holds both images/ and {', '.join(s + '/' for s in splits)}; "
            "it is not clear which are meant. Give --images and --masks instead."
        )
    if not splits and "images" not in inside:
        raise FlexsegError(
            f"--dataset={dataset} must hold images/ and masks/, or train/, valid/ and test/ that "
            f"hold them; it holds {', '.join(inside[:8]) or 'nothing'}."
        )
    roots = [(s, os.path.join(dataset, s)) for s in splits] or [("", dataset)]
    return tuple(
        _checked(Layout(s, os.path.join(root, "images"), os.path.join(root, "masks")))
        for s, root in roots
    )


def pair(layout: Layout, group_regex: str | None) -> tuple[list[Source], list[Rejected]]:
    """Pairs images with masks by their path below the folder, without suffix.

    Args:
      layout: the folders.
      group_regex: searched in the image's path below its folder; the group is what its first
        parenthesis matched, or else the whole match. None makes each source a group of its own.

    Returns:
      The sources in the order of their ids, and what has no partner, several, or no group.
    """
    expression = compile_group_regex(group_regex)
    images, image_files = _by_stem(layout.images, readers.is_image)
    masks, mask_files = _by_stem(layout.masks, readers.is_mask)
    if not image_files:
        raise FlexsegError(
            f"There are no images in {layout.images} (looked for {' '.join(readers.SUFFIXES)}, "
            "in all folders below)."
        )
    prefix = layout.split + "/" if layout.split else ""
    sources, rejected = [], []
    for stem in sorted(images.keys() | masks.keys()):
        found = images.get(stem, []) + masks.get(stem, [])
        if len(images.get(stem, [])) > 1 or len(masks.get(stem, [])) > 1:
            reason = (
                f'several files share the stem "{stem}": {", ".join(map(os.path.basename, found))}'
            )
            rejected.append(Rejected(found[0], "pair", reason))
        elif stem not in masks:
            rejected.append(Rejected(found[0], "pair", f"the image has no mask in {layout.masks}"))
        elif stem not in images:
            rejected.append(Rejected(found[0], "pair", f"the mask has no image in {layout.images}"))
        else:
            image, mask = found
            filename = os.path.relpath(image, layout.images).replace(os.sep, "/")
            group = prefix + stem
            if expression:
                match = expression.search(filename)
                matched = match.group(min(1, expression.groups)) if match else None
                if matched is None:  # also where the first parenthesis took no part in the match
                    reason = f'--group_regex "{expression.pattern}" does not match "{filename}"'
                    rejected.append(Rejected(image, "group", reason))
                    continue
                group = matched
            sources.append(
                Source(prefix + stem, prefix + filename, image, mask, group, layout.split)
            )
    return sources, rejected


def compile_group_regex(group_regex: str | None) -> re.Pattern[str] | None:
    """Compiles `--group_regex`, with an error that names it."""
    try:
        return re.compile(group_regex) if group_regex else None
    except re.error as error:
        raise FlexsegError(
            f'--group_regex="{group_regex}" is not a regular expression: {error}.'
        ) from error


def parse_shares(text: str) -> dict[str, float]:
    """Reads `train:0.8,valid:0.1,test:0.1`: the splits wanted and their shares, which sum to 1."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, colon, number = part.strip().partition(":")
        try:
            share = float(number) if colon else -1.0
        except ValueError:
            share = -1.0
        if name not in SPLITS:
            raise FlexsegError(
                f'--split="{text}": "{name}" is not a split; expected some of {", ".join(SPLITS)}.'
                + nearest(name, SPLITS)
            )
        if name in shares or not 0 < share <= 1:
            raise FlexsegError(
                f'--split="{text}": each split needs one share above 0 and up to 1, such as '
                "train:0.8,valid:0.1,test:0.1."
            )
        shares[name] = share
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise FlexsegError(f'--split="{text}": the shares sum to {sum(shares.values()):g}, not 1.')
    return shares


def keyed_hash(seed: int, key: str) -> int:
    """A number of 128 bits that depends on seed and key alone, on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:16], "big")


def split_exact(groups: Iterable[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Splits groups in the order of a seeded hash, in the wanted shares as nearly as can be.

    Shares are rounded by largest remainder, then splits left empty take a group from the largest.

    Returns:
      group -> split.

    Raises:
      FlexsegError: where there are fewer groups than splits.
    """
    ordered = sorted(set(groups), key=lambda g: (keyed_hash(seed, g), g))
    _refuse_too_few(len(ordered), shares)
    exact = {name: share * len(ordered) for name, share in shares.items()}
    counts = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda n: -(exact[n] - counts[n]))
    for name in by_remainder[: len(ordered) - sum(counts.values())]:
        counts[name] += 1
    for name in counts:
        if not counts[name]:
            counts[max(counts, key=lambda n: counts[n])] -= 1
            counts[name] = 1
    names = [name for name in counts for _ in range(counts[name])]
    return dict(zip(ordered, names, strict=True))


def split_stable(groups: Iterable[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Splits each group by its own hash, so that adding groups never moves one.

    Returns:
      group -> split.

    Raises:
      FlexsegError: where a wanted split gets no group.
    """
    groups = sorted(set(groups))
    _refuse_too_few(len(groups), shares)
    assigned = {}
    for group in groups:
        position, reached = keyed_hash(seed, group) / 2**128, 0.0
        for name, share in shares.items():
            reached += share
            if position < reached or name == list(shares)[-1]:
                assigned[group] = name
                break
    empty = [name for name in shares if name not in assigned.values()]
    if empty:
        raise FlexsegError(
            f"--split_method=stable leaves {', '.join(empty)} without a group ({len(groups)} "
            "groups). Use --split_method=exact, another --split_seed, or more images."
        )
    return assigned


def assign_splits(
    sources: Sequence[Source], shares: Mapping[str, float], method: str, seed: int
) -> list[Source]:
    """Gives every source the split of its group; sources that come with a split keep it.

    Raises:
      FlexsegError: where a group lies in two of the splits that the dataset came with.
    """
    if all(s.split for s in sources):
        splits: dict[str, set[str]] = defaultdict(set)
        for source in sources:
            splits[source.group].add(source.split)
        torn = {g: sorted(found) for g, found in sorted(splits.items()) if len(found) > 1}
        if torn:
            shown = "; ".join(
                f'"{g}" in {" and ".join(found)}' for g, found in list(torn.items())[:10]
            )
            raise FlexsegError(
                f"{len(torn)} groups lie in more than one split, so that what is trained on would "
                f"be tested on: {shown}. Move their files into one split, or mend --group_regex."
            )
        return list(sources)
    split = {"exact": split_exact, "stable": split_stable}[method]
    assigned = split((s.group for s in sources), shares, seed)
    return [dataclasses.replace(s, split=assigned[s.group]) for s in sources]


def _refuse_too_few(groups: int, shares: Mapping[str, float]) -> None:
    if groups < len(shares):
        raise FlexsegError(
            f"There are {groups} groups for {len(shares)} splits ({', '.join(shares)}); a group is "
            "never divided. Ask for fewer splits with --split, or mend --group_regex."
        )


def _checked(layout: Layout) -> Layout:
    for folder in (layout.images, layout.masks):
        if not os.path.isdir(folder):
            raise FlexsegError(f"There is no folder {folder}.")
    return layout


def _by_stem(folder: str, is_wanted: Callable[[str], bool]) -> tuple[dict[str, list[str]], int]:
    """Stem (path below the folder, without suffix) -> files; and the number of files."""
    files = defaultdict(list)
    count = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            if is_wanted(name):
                path = os.path.join(parent, name)
                stem = readers.stem(os.path.relpath(path, folder)).replace(os.sep, "/")
                files[stem].append(path)
                count += 1
    return files, count
