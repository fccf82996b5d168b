"""Which group goes to which split.

A split is made of groups and of nothing else: what comes from one patient is never in two splits. A
group's split depends on the groups, the shares and the seed, not on order, machine or time. Where
there are folds, they are splits too: `fold0`, `fold1` and so on, in the place of "train".
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from flexseg_errors import FlexsegError, nearest
from pipelines.sources import SPLITS, Source, keyed_hash

DEFAULT_SHARES = "train:0.8,valid:0.1,test:0.1"
DEFAULT_SHARES_WITH_FOLDS = "train:1"
MOST_FOLDS = 20

_ORDERS = 100  # in which `split_exact` tries groups of different size
_NEAR = 0.01  # of a split's wanted sources: so near, no other order is tried
_PARTS = 10**6  # in which a group is counted, where shares are rounded
_SHOWN = 10  # names in a message


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """How groups are to be split.

    Attributes:
      shares: the wanted splits and their shares, as text; "" where the sources come with splits.
      method: "exact" (`split_exact`) or "stable" (`split_stable`).
      seed: of the hash that orders the groups.
      folds: into how many folds the groups of "train" are divided; 0 for none.
    """

    shares: str
    method: str = "exact"
    seed: int = 137
    folds: int = 0

    def __post_init__(self) -> None:
        _check_folds(self.folds)

    def wanted(self) -> dict[str, float]:
        """Split -> share of the groups, with the folds in the place of "train"."""
        wanted = {}
        shares = parse_shares(self.shares) if self.shares else {"train": 1.0}
        for name, share in shares.items():
            names = fold_names(self.folds) if self.folds and name == "train" else [name]
            wanted.update(dict.fromkeys(names, share / len(names)))
        return wanted


def fold_names(count: int) -> list[str]:
    """The splits that so many folds are."""
    return [f"fold{index}" for index in range(count)]


def is_fold(split: str) -> bool:
    """Whether a split is a fold."""
    return re.fullmatch(r"fold\d+", split) is not None


def shares_text(text: str | None, folds: int) -> str:
    """The shares that are meant, as text: those given, or else the default.

    Raises:
      FlexsegError: where --split or --folds cannot be, or do not go together.
    """
    _check_folds(folds)
    if not text:
        return DEFAULT_SHARES_WITH_FOLDS if folds else DEFAULT_SHARES
    shares = parse_shares(text)
    if folds and "valid" in shares:
        raise FlexsegError(
            f'--split="{text}": with --folds there is no share for valid, because a run validates '
            'on the fold that it chooses. Give train:1, or a test set too: "train:0.9,test:0.1".'
        )
    if folds and "train" not in shares:
        raise FlexsegError(
            f'--split="{text}": --folds={folds} divides the groups of train, which has no share.'
        )
    return text


def parse_shares(text: str) -> dict[str, float]:
    """Reads "train:0.8,valid:0.1,test:0.1".

    Raises:
      FlexsegError: where a name is no split, or the shares do not sum to 1.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition(":")
        if name not in SPLITS:
            raise FlexsegError(
                f'--split="{text}": "{name}" is not a split; the splits are {", ".join(SPLITS)}.'
                f"{nearest(name, SPLITS)}"
            )
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if name in shares or not share > 0:
            raise FlexsegError(
                f'--split="{text}": each split needs one share above 0, such as {DEFAULT_SHARES}.'
            )
        shares[name] = share
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise FlexsegError(f'--split="{text}": the shares sum to {sum(shares.values()):g}, not 1.')
    return shares


# ---- From groups to splits -----------------------------------------------------------------------


def split_exact(
    groups: Iterable[str],
    shares: Mapping[str, float],
    seed: int,
    kept: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Splits groups in the order of a seeded hash, in the wanted shares as nearly as can be.

    Shares are shares of the groups, rounded by largest remainder; then splits left empty take a
    group from the largest. Where groups have different numbers of sources, several orders are
    tried, and that one is taken whose splits come nearest to the shares of the sources too: the
    least sum of (sources - wanted)^2 / wanted. The first order is that of groups of equal size.

    Args:
      groups: each as often as it has sources.
      shares: split -> share, with a sum of 1.
      seed: of the hash.
      kept: group -> split of groups that have one already; the others make up what is missing.

    Returns:
      group -> split.

    Raises:
      FlexsegError: where there are too few groups for all splits to have one.
    """
    sizes = collections.Counter(iter(groups))
    assigned = {g: split for g, split in (kept or {}).items() if g in sizes}
    new = sorted(g for g in sizes if g not in assigned)
    counts = _counts(len(new), shares, collections.Counter(assigned.values()))
    names = [name for name, count in counts.items() for _ in range(count)]
    total = sum(sizes.values())
    wanted = {name: share * total for name, share in shares.items()}
    held = collections.Counter(dict.fromkeys(shares, 0))
    for group, split in assigned.items():
        held[split] += sizes[group]
    best: tuple[float, list[str]] | None = None
    for order in _orders(new, seed, 1 if len({sizes[g] for g in new}) <= 1 else _ORDERS):
        sources = held.copy()
        for group, name in zip(order, names, strict=True):
            sources[name] += sizes[group]
        distance = sum((sources[n] - want) ** 2 / want for n, want in wanted.items())
        if best is None or distance < best[0]:
            best = distance, order
        if all(abs(sources[n] - want) <= _NEAR * want for n, want in wanted.items()):
            break
    assert best is not None  # there is always one order
    return {**assigned, **dict(zip(best[1], names, strict=True))}


def split_stable(
    groups: Iterable[str],
    shares: Mapping[str, float],
    seed: int,
    kept: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Splits each group by its own hash, so that adding groups never moves one.

    Args:
      groups: the groups; how often one is named does not matter.
      shares: split -> share, with a sum of 1.
      seed: of the hash.
      kept: group -> split of groups that have one already.

    Returns:
      group -> split.

    Raises:
      FlexsegError: where a wanted split gets no group.
    """
    names = sorted(set(groups))
    _refuse_too_few(len(names), shares)
    assigned = {g: split for g, split in (kept or {}).items() if g in set(names)}
    for group in names:
        if group in assigned:
            continue
        position, reached = keyed_hash(seed, group) / 2**128, 0.0
        for name, share in shares.items():
            reached += share
            if position < reached or name == list(shares)[-1]:
                assigned[group] = name
                break
    given = set(assigned.values())
    empty = [name for name in shares if name not in given]
    if empty:
        raise FlexsegError(
            f"--split_method=stable leaves {', '.join(empty)} without a group ({len(names)} "
            "groups). Use --split_method=exact, another --split_seed, or more images."
        )
    return assigned


def assign(
    sources: Sequence[Source],
    options: SplitOptions,
    earlier: Mapping[str, str] | None = None,
    origin: str = "",
) -> list[Source]:
    """Gives every source the split of its group.

    Sources that come with splits keep them; with folds those of "train" and "valid" are divided
    into folds together, and those of "test" are kept.

    Args:
      sources: all sources, with their groups.
      options: what is wanted.
      earlier: group -> split of an earlier dataset, kept for the groups that it had.
      origin: the earlier dataset, as it was given; "" where there is none.

    Raises:
      FlexsegError: where a group lies in two of the splits that the sources come with; where the
        earlier dataset has none of the groups, or a split that is not wanted, or another one than
        the sources come with; where a split would stay empty.
    """
    earlier = earlier or {}
    given = _given(sources, options.folds)
    kept = {s.group: earlier[s.group] for s in sources if s.group in earlier}
    if origin and not kept:
        raise FlexsegError(
            f"--split_from={origin} knows none of the groups of these sources (here "
            f"{some(s.group for s in sources)}; there {some(earlier)}), so that no split "
            "could be kept. Groups must be told as they were there, with the same --group_regex "
            "or --groups."
        )
    if given:
        _refuse_contrary(given, kept, origin)
    fixed = {g: split for g, split in given.items() if not options.folds or split == "test"}
    shares = options.wanted()
    _refuse_unwanted(kept, {*shares, *fixed.values()}, origin)
    open_groups = [s.group for s in sources if s.group not in fixed]
    assigned = fixed
    if options.folds or not given:
        split = {"exact": split_exact, "stable": split_stable}[options.method]
        assigned = {**fixed, **split(open_groups, shares, options.seed, kept)}
    return [dataclasses.replace(s, split=assigned[s.group]) for s in sources]


def _check_folds(folds: int) -> None:
    if folds and not 2 <= folds <= MOST_FOLDS:
        raise FlexsegError(f"--folds={folds}: expected 2 to {MOST_FOLDS} folds, or 0 for none.")


def _counts(new: int, shares: Mapping[str, float], kept: Mapping[str, int]) -> dict[str, int]:
    """How many of so many new groups each split gets, next to those that it has."""
    total = new + sum(kept.values())
    empty = [name for name in shares if not kept.get(name)]
    _refuse_too_few(total, shares)
    if new < len(empty):
        raise FlexsegError(
            f"There are {new} new groups for splits that have none yet ({', '.join(empty)}). Ask "
            "for fewer splits with --split."
        )
    # In whole numbers, so that of equal remainders the first named is taken and not the one that
    # floating point makes larger.
    missing = {
        name: round((share * total - kept.get(name, 0)) * _PARTS) for name, share in shares.items()
    }
    counts = dict.fromkeys(shares, 0)
    for _ in range(new):
        # Where nothing is kept, this is the method of the largest remainder.
        name = max(missing, key=lambda n: missing[n])
        missing[name] -= _PARTS
        counts[name] += 1
    for name in empty:
        if not counts[name]:
            others = [n for n in counts if counts[n] + kept.get(n, 0) > 1 and counts[n]]
            counts[max(others, key=lambda n: counts[n])] -= 1
            counts[name] = 1
    return counts


def _orders(groups: Sequence[str], seed: int, count: int) -> Iterator[list[str]]:
    """So many orders of the groups, each that of a hash."""
    for index in range(count):
        prefix = f"{index}:" if index else ""
        yield sorted(groups, key=lambda g: (keyed_hash(seed, prefix + g), g))


def _given(sources: Sequence[Source], folds: int) -> dict[str, str]:
    """Group -> the split that its sources come with; {} where they come with none."""
    splits = collections.defaultdict(set)
    for source in sources:
        if source.split:
            # Both are divided into folds together, so that a group in both is in one fold.
            pooled = folds and source.split == "valid"
            splits[source.group].add("train" if pooled else source.split)
    torn = {g: sorted(found) for g, found in sorted(splits.items()) if len(found) > 1}
    if torn:
        shown = "; ".join(
            f'"{g}" in {" and ".join(found)}' for g, found in list(torn.items())[:_SHOWN]
        )
        raise FlexsegError(
            f"{len(torn)} groups lie in more than one split, so that what is trained on would be "
            f"tested on: {shown}. Move their files into one split, or mend --group_regex or "
            "--groups."
        )
    return {g: next(iter(found)) for g, found in splits.items()}


def _refuse_contrary(given: Mapping[str, str], kept: Mapping[str, str], origin: str) -> None:
    for group, split in sorted(kept.items()):
        if given[group] != ("train" if is_fold(split) else split):
            raise FlexsegError(
                f'--split_from={origin} has the group "{group}" in {split}, but here its files lie '
                f"in {given[group]}. Move them, or leave --split_from out."
            )


def _refuse_unwanted(kept: Mapping[str, str], wanted: set[str], origin: str) -> None:
    unwanted = sorted(set(kept.values()) - wanted)
    if unwanted:
        remedy = (
            "Give as many --folds as it has"
            if any(map(is_fold, unwanted))
            else "Name it in --split"
        )
        raise FlexsegError(
            f"--split_from={origin} has groups of these sources in {', '.join(unwanted)}, but "
            f"wanted are {', '.join(sorted(wanted))}. {remedy}, or leave --split_from out."
        )


def _refuse_too_few(groups: int, shares: Mapping[str, float]) -> None:
    if groups < len(shares):
        raise FlexsegError(
            f"There are {groups} groups for {len(shares)} splits ({', '.join(shares)}); a group is "
            "never divided. Ask for fewer splits with --split, or fewer --folds, or mend "
            "--group_regex or --groups."
        )


def some(names: Iterable[str]) -> str:
    """The first few of some names."""
    shown = sorted(set(names))
    return ", ".join(f'"{name}"' for name in shown[:3]) + (", ..." if len(shown) > 3 else "")
