"""A split is made of groups, in the wanted shares, and depends on seed and groups alone."""

from __future__ import annotations

import collections
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg_errors import FlexsegError
from pipelines import sources, splits
from pipelines.sources import Source
from pipelines.splits import SplitOptions

GROUPS = st.sets(st.text("abcdefgh0123456789/_.", min_size=1, max_size=6), max_size=40)
SIZES = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3), st.integers(1, 30), max_size=30
)
SEEDS = st.integers(0, 2**31)
THIRDS = {"train": 0.8, "valid": 0.1, "test": 0.1}


@st.composite
def shares(draw: st.DrawFn) -> dict[str, float]:
    names = draw(st.lists(st.sampled_from(sources.SPLITS), min_size=1, unique=True))
    parts = [draw(st.integers(1, 20)) for _ in names]
    return {name: part / sum(parts) for name, part in zip(names, parts, strict=True)}


def repeated(sizes):
    """Each group as often as it has sources."""
    return [group for group, size in sizes.items() for _ in range(size)]


def count_sources(assigned, sizes):
    counts = collections.Counter()
    for group, split in assigned.items():
        counts[split] += sizes[group]
    return counts


def source_of(name, group="", split=""):
    path = f"{split}/{name}" if split else name
    return Source(path, f"{path}.png", f"images/{name}.png", f"{name}.png", group or path, split)


def sources_of(groups):
    """Two sources of each group."""
    return [source_of(f"{g}_{i}", g) for g in groups for i in range(2)]


def split_of(found):
    """Group -> split; a group has one."""
    assigned = {}
    for source in found:
        assert assigned.setdefault(source.group, source.split) == source.split
    return assigned


# ---- The two methods -----------------------------------------------------------------------------


@given(SIZES, shares(), SEEDS)
@settings(max_examples=200)
def test_an_exact_split_puts_every_group_in_one_split_in_the_wanted_shares(sizes, wanted, seed):
    if len(sizes) < len(wanted):
        with pytest.raises(FlexsegError, match=f"{len(sizes)} groups for {len(wanted)} splits"):
            splits.split_exact(repeated(sizes), wanted, seed)
        return
    assigned = splits.split_exact(repeated(sizes), wanted, seed)
    assert assigned.keys() == sizes.keys()
    counts = {name: list(assigned.values()).count(name) for name in wanted}
    assert sum(counts.values()) == len(sizes), "no other split"
    assert min(counts.values()) >= 1, "no wanted split is empty"
    rescued = 0
    for name, share in wanted.items():
        exact = share * len(sizes)
        if exact < 1 and counts[name] == 1:
            rescued += 1
    for name, share in wanted.items():
        exact = share * len(sizes)
        assert counts[name] < exact + 1 + 1e-6 or counts[name] == 1
        # A split gives up groups only to save others from being empty.
        assert counts[name] > exact - 1 - rescued - 1e-6


@given(st.integers(3, 200), SEEDS)
@settings(max_examples=100)
def test_an_exact_split_is_within_one_group_of_its_share_where_none_would_be_empty(count, seed):
    assigned = list(splits.split_exact(map(str, range(count)), THIRDS, seed).values())
    for name, share in THIRDS.items():
        exact = share * count
        assert abs(assigned.count(name) - exact) < 1 or count < 10


@pytest.mark.parametrize("count", [10, 23, 30, 70, 101])
def test_groups_of_equal_size_are_cut_where_the_order_of_their_hash_is(count):
    groups = [f"g{i}" for i in range(count)]
    ordered = sorted(groups, key=lambda g: sources.keyed_hash(5, g))
    for size in (1, 4):
        assigned = splits.split_exact(groups * size, THIRDS, 5)
        found = [assigned[g] for g in ordered]
        assert found == sorted(found, key=list(THIRDS).index)


@pytest.mark.parametrize("count", [12, 36, 48, 120])
def test_of_equal_remainders_the_first_named_gets_the_group(count):
    # 0.55 and 0.3 of 12 are 6.6 and 3.6, which floating point does not quite say.
    wanted = {"train": 0.55, "valid": 0.3, "test": 0.15}
    exact = {"train": count * 55, "valid": count * 30, "test": count * 15}
    for names in (["train", "valid", "test"], ["test", "valid", "train"]):
        expected = {name: exact[name] // 100 for name in names}
        left = sorted(names, key=lambda name: -(exact[name] % 100))  # stable
        for name in left[: count - sum(expected.values())]:
            expected[name] += 1
        assigned = splits.split_exact(map(str, range(count)), {n: wanted[n] for n in names}, 0)
        assert collections.Counter(assigned.values()) == expected


def badness(assigned, sizes, wanted):
    total, held = sum(sizes.values()), count_sources(assigned, sizes)
    return sum((held[n] - share * total) ** 2 / (share * total) for n, share in wanted.items())


@given(SIZES.filter(lambda sizes: len(sizes) >= 3), shares(), SEEDS)
@settings(max_examples=100)
def test_no_exact_split_is_further_from_the_sources_shares_than_the_hash_order_alone(
    sizes, wanted, seed
):
    assigned = splits.split_exact(repeated(sizes), wanted, seed)
    alone = splits.split_exact(sizes, wanted, seed)  # as if each had one source
    counts = [collections.Counter(a.values()) for a in (assigned, alone)]
    assert counts[0] == counts[1], "as many groups"
    assert badness(assigned, sizes, wanted) <= badness(alone, sizes, wanted) + 1e-9 or all(
        abs(held - wanted[n] * sum(sizes.values())) <= 0.01 * wanted[n] * sum(sizes.values())
        for n, held in count_sources(assigned, sizes).items()
    )


def test_an_exact_split_of_uneven_groups_comes_near_the_shares_of_the_sources():
    # Slices of fifteen patients, of whom few have many.
    sizes = {
        f"p{i}": size for i, size in enumerate([40, 25, 9, 8, 8, 7, 6, 5, 4, 4, 3, 3, 2, 2, 1])
    }
    wanted = {"train": 0.6, "valid": 0.2, "test": 0.2}
    total = sum(sizes.values())
    for seed in range(20):
        held = count_sources(splits.split_exact(repeated(sizes), wanted, seed), sizes)
        assert all(abs(held[n] / total - share) < 0.08 for n, share in wanted.items())


@given(st.permutations([f"g{i}" for i in range(12)]), st.integers(1, 3), SEEDS)
@settings(max_examples=40)
def test_a_split_does_not_depend_on_the_order_of_its_groups(shuffled, more, seed):
    wanted = {"train": 0.5, "test": 0.5}
    for split in (splits.split_exact, splits.split_stable):
        try:
            expected = split(sorted(shuffled), wanted, seed)
        except FlexsegError:
            continue
        assert split(shuffled, wanted, seed) == expected
        assert split([*shuffled, *shuffled], wanted, seed) == expected, "twice as many sources"
        uneven = ["g3"] * more + shuffled
        assert split(uneven, wanted, seed) == split(sorted(uneven), wanted, seed)


def test_another_seed_gives_another_split():
    groups, wanted = [f"g{i}" for i in range(40)], {"train": 0.5, "test": 0.5}
    for split in (splits.split_exact, splits.split_stable):
        assert split(groups, wanted, 1) != split(groups, wanted, 2)


@given(GROUPS, GROUPS, shares(), SEEDS)
@settings(max_examples=150)
def test_adding_groups_to_a_stable_split_never_moves_one(groups, more, wanted, seed):
    try:
        before = splits.split_stable(groups, wanted, seed)
    except FlexsegError:  # a split without a group
        return
    after = splits.split_stable(groups | more, wanted, seed)
    assert before.items() <= after.items()
    assert after.keys() == groups | more
    assert set(before.values()) == set(wanted)


def test_a_stable_split_has_its_shares_in_the_long_run():
    wanted = {"train": 0.7, "valid": 0.2, "test": 0.1}
    assigned = list(splits.split_stable(map(str, range(4000)), wanted, 0).values())
    for name, share in wanted.items():
        assert assigned.count(name) / 4000 == pytest.approx(share, abs=0.03)


def test_a_stable_split_that_leaves_one_empty_is_an_error_that_names_it():
    wanted = {"train": 0.998, "valid": 0.001, "test": 0.001}
    with pytest.raises(FlexsegError, match=r"leaves valid, test without a group \(5 groups\)"):
        splits.split_stable("abcde", wanted, 0)


@given(st.integers(), st.text())
def test_the_hash_is_a_pure_function_of_128_bits(seed, key):
    assert 0 <= sources.keyed_hash(seed, key) < 2**128
    assert sources.keyed_hash(seed, key) == sources.keyed_hash(seed, key)


def test_the_hash_is_the_same_on_every_machine():
    # The first 16 bytes of: printf 137:a | sha256sum
    assert sources.keyed_hash(137, "a") == 0xD7BB6CDD9454CF04B10DB23EE03992DD


# ---- Shares --------------------------------------------------------------------------------------


def test_shares_are_read():
    assert splits.parse_shares("train:0.8, valid:0.1,test:0.1") == THIRDS
    assert splits.parse_shares("test:1") == {"test": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:0.8", "the shares sum to 0.8, not 1"),
        ("train:0.8,valid:0.3", "the shares sum to 1.1, not 1"),
        ("train:0.8,val:0.2", '"val" is not a split.*Did you mean "valid"'),
        ("train:0.5,train:0.5", "each split needs one share"),
        ("train:1,test:0", "each split needs one share"),
        ("train:2,test:-1", "each split needs one share"),
        ("train:nan", "each split needs one share"),
        ("train:x", "each split needs one share"),
        ("train", "each split needs one share"),
        ("", '"" is not a split'),
        ("fold0:1", '"fold0" is not a split'),
    ],
)
def test_shares_that_are_none_are_refused(text, message):
    with pytest.raises(FlexsegError, match=message) as error:
        splits.parse_shares(text)
    assert f'--split="{text}"' in str(error.value)


def test_without_shares_the_default_is_meant():
    assert splits.shares_text(None, 0) == "train:0.8,valid:0.1,test:0.1"
    assert splits.shares_text(None, 5) == "train:1"
    assert splits.shares_text("train:0.5,test:0.5", 5) == "train:0.5,test:0.5"


@pytest.mark.parametrize(
    ("text", "folds", "message"),
    [
        (None, 1, "--folds=1: expected 2 to 20 folds"),
        (None, -2, "--folds=-2: expected 2 to 20"),
        ("train:1", 21, "--folds=21: expected 2 to 20"),
        (
            "train:0.8,valid:0.2",
            5,
            '--split="train:0.8,valid:0.2": with --folds there is no share for valid',
        ),
        ("test:1", 5, "--folds=5 divides the groups of train"),
        ("train:0.8", 5, "the shares sum to 0.8"),
    ],
)
def test_shares_and_folds_that_cannot_be_are_refused(text, folds, message):
    with pytest.raises(FlexsegError, match=message):
        splits.shares_text(text, folds)


# ---- Sources get their splits --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "stable"])
def test_every_source_gets_the_split_of_its_group(method):
    found = sources_of([f"g{i}" for i in range(40)])
    options = SplitOptions("train:0.6,valid:0.2,test:0.2", method, 3)
    given_splits = splits.assign(found, options)
    assert [dataclasses.replace(s, split="") for s in given_splits] == found, "else unchanged"
    rule = {"exact": splits.split_exact, "stable": splits.split_stable}[method]
    assert split_of(given_splits) == rule([s.group for s in found], options.wanted(), 3)


def test_splits_that_a_dataset_comes_with_are_kept():
    found = [source_of("a", "p1", "train"), source_of("b", "p2", "test")]
    assert splits.assign(found, SplitOptions("")) == found


def test_a_group_in_two_given_splits_is_an_error_that_names_group_and_splits():
    found = [
        source_of("a", "p1", "train"),
        source_of("b", "p1", "test"),
        source_of("c", "p2", "test"),
    ]
    for folds in (0, 2):
        message = 'more than one split.*"p1" in test and train'
        with pytest.raises(FlexsegError, match=message) as error:
            splits.assign(found, SplitOptions("", folds=folds))
        assert "p2" not in str(error.value)


@pytest.mark.parametrize("method", ["exact", "stable"])
@pytest.mark.parametrize("text", ["train:1", "train:0.8,test:0.2", "test:0.3,train:0.7"])
def test_folds_stand_in_the_place_of_train_and_are_nearly_equal(method, text):
    groups = [f"g{i}" for i in range(31)]
    assigned = split_of(splits.assign(sources_of(groups), SplitOptions(text, method, 1, 4)))
    counts = collections.Counter(assigned.values())
    test = splits.parse_shares(text).get("test", 0)
    assert set(counts) == {"fold0", "fold1", "fold2", "fold3"} | ({"test"} if test else set())
    if method == "exact":
        sizes = [counts[f"fold{i}"] for i in range(4)]
        assert max(sizes) - min(sizes) <= 1
        assert abs(counts["test"] - test * 31) < 1
    else:
        more = splits.assign(sources_of([*groups, "new"]), SplitOptions(text, method, 1, 4))
        assert assigned.items() <= split_of(more).items()


def test_train_and_valid_that_a_dataset_comes_with_become_folds_and_test_stays():
    found = [source_of(f"t{i}", f"t{i}", "train") for i in range(4)]
    found += [source_of(f"v{i}", f"v{i}", "valid") for i in range(2)]
    found += [source_of("x", "t0", "valid"), source_of("e", "e", "test")]
    assigned = split_of(splits.assign(found, SplitOptions("", folds=3)))
    assert assigned.pop("e") == "test"
    assert sorted(assigned.values()) == ["fold0"] * 2 + ["fold1"] * 2 + ["fold2"] * 2


def test_too_few_groups_for_the_folds_are_told():
    for found in (sources_of("abc"), [source_of("a", "a", "train"), source_of("b", "b", "test")]):
        with pytest.raises(FlexsegError, match=r"There are \d groups for 5 splits.*fewer --folds"):
            splits.assign(found, SplitOptions("" if found[0].split else "train:1", folds=5))


# ---- An earlier dataset --------------------------------------------------------------------------


@given(GROUPS, GROUPS, SEEDS, st.sampled_from(["exact", "stable"]), st.sampled_from([0, 3]))
@settings(max_examples=150)
def test_what_had_a_split_keeps_it_and_the_rest_gets_one(old, new, seed, method, folds):
    text = "train:0.7,test:0.3"
    try:
        before = split_of(splits.assign(sources_of(old), SplitOptions(text, method, seed, folds)))
    except FlexsegError:  # too few
        return
    options = SplitOptions(text, method, seed + 1, folds)
    after = split_of(splits.assign(sources_of(old | new), options, before, "records"))
    assert before.items() <= after.items()
    assert after.keys() == old | new
    assert set(after.values()) == set(options.wanted())


@given(st.integers(20, 60), st.integers(0, 60), SEEDS)
@settings(max_examples=50)
def test_new_groups_make_up_what_is_missing_of_the_shares(old, new, seed):
    lopsided = {f"g{i}": ("test" if i < 2 else "valid" if i < 4 else "train") for i in range(old)}
    found = sources_of([f"g{i}" for i in range(old + new)])
    options = SplitOptions("train:0.8,valid:0.1,test:0.1", seed=seed)
    held = collections.Counter(split_of(splits.assign(found, options, lopsided, "r")).values())
    before = collections.Counter(lopsided.values())
    excess = {n: held[n] - share * (old + new) for n, share in options.wanted().items()}
    for name in excess:
        if held[name] > before[name]:
            assert excess[name] <= min(excess.values()) + 1 + 1e-6, "no other lacked more"


def test_the_sources_of_groups_that_are_kept_count_too():
    sizes = {"old": 60, "small": 2, "large": 50, "tiny": 1}
    wanted = {"train": 0.5, "test": 0.5}
    for seed in range(8):
        assigned = splits.split_exact(
            repeated(sizes), wanted, seed, {"old": "train", "small": "test"}
        )
        assert (assigned["large"], assigned["tiny"]) == ("test", "train")


def test_one_new_group_needs_no_other():
    earlier = {"a": "train", "b": "valid", "c": "test"}
    options = SplitOptions("train:0.8,valid:0.1,test:0.1")
    after = split_of(splits.assign(sources_of("abcd"), options, earlier, "records"))
    assert after == {**earlier, "d": "train"}
    assert split_of(splits.assign(sources_of("abc"), options, earlier, "records")) == earlier


def test_a_split_that_had_no_group_gets_one():
    earlier = {f"g{i}": "train" for i in range(9)}
    found = sources_of([*earlier, "x", "y"])
    after = split_of(splits.assign(found, SplitOptions("train:0.9,test:0.1"), earlier, "records"))
    assert sorted(after[g] for g in "xy") in (["test", "test"], ["test", "train"])
    with pytest.raises(FlexsegError, match=r"There are 0 new groups.*none yet \(test\)"):
        splits.assign(sources_of(earlier), SplitOptions("train:0.9,test:0.1"), earlier, "records")


def test_groups_that_are_gone_do_not_count():
    earlier = {f"gone{i}": "valid" for i in range(50)} | {"a": "train"}
    after = split_of(
        splits.assign(sources_of("abcd"), SplitOptions("train:0.5,test:0.5"), earlier, "records")
    )
    assert sorted(after.values()) == ["test", "test", "train", "train"]
    assert after["a"] == "train"


@pytest.mark.parametrize(
    ("groups", "options", "earlier", "message"),
    [
        (
            "abc",
            SplitOptions("train:1"),
            {"A": "train"},
            r'knows none.*here "a", "b", "c"; there "A"',
        ),
        (
            "abc",
            SplitOptions("train:0.5,test:0.5"),
            {"a": "valid", "b": "test"},
            "in valid, but wanted are test, train. Name it in --split",
        ),
        (
            "abc",
            SplitOptions("train:1"),
            {"a": "fold1"},
            "in fold1, but.*as many --folds as it has",
        ),
        ("abc", SplitOptions("train:1", folds=2), {"a": "fold3"}, "in fold3, but wanted"),
        ("abc", SplitOptions("train:1", folds=2), {"a": "train"}, "in train, but wanted"),
    ],
)
def test_an_earlier_dataset_that_does_not_fit_is_named(groups, options, earlier, message):
    with pytest.raises(FlexsegError, match=message) as error:
        splits.assign(sources_of(groups), options, earlier, "records/old")
    assert "--split_from=records/old" in str(error.value)


def test_an_earlier_dataset_must_agree_with_the_splits_that_sources_come_with():
    found = [
        source_of("a", "a", "train"),
        source_of("b", "b", "test"),
        source_of("c", "c", "valid"),
    ]
    fits = {"a": "train", "b": "test"}
    assert splits.assign(found, SplitOptions(""), fits, "old") == found
    folded = splits.assign(found, SplitOptions("", folds=2), {"a": "fold1", "b": "test"}, "old")
    assert split_of(folded) == {"a": "fold1", "b": "test", "c": "fold0"}
    for earlier, folds in ((fits | {"a": "test"}, 0), ({"b": "fold0"}, 2), ({"a": "test"}, 2)):
        with pytest.raises(FlexsegError, match=r'--split_from=old has the group "[ab]" in'):
            splits.assign(found, SplitOptions("", folds=folds), earlier, "old")
