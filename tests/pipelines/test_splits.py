"""A split is made of groups, in the wanted shares, and depends on seed and groups alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg_errors import FlexsegError
from pipelines import sources

GROUPS = st.sets(st.text("abcdefgh0123456789/_.", min_size=1, max_size=6), max_size=40)
SEEDS = st.integers(0, 2**31)


@st.composite
def shares(draw: st.DrawFn) -> dict[str, float]:
    names = draw(st.lists(st.sampled_from(sources.SPLITS), min_size=1, unique=True))
    parts = [draw(st.integers(1, 20)) for _ in names]
    return {name: part / sum(parts) for name, part in zip(names, parts, strict=True)}


@given(GROUPS, shares(), SEEDS)
@settings(max_examples=200)
def test_an_exact_split_puts_every_group_in_one_split_in_the_wanted_shares(groups, wanted, seed):
    if len(groups) < len(wanted):
        with pytest.raises(FlexsegError, match=f"{len(groups)} groups for {len(wanted)} splits"):
            sources.split_exact(groups, wanted, seed)
        return
    assigned = sources.split_exact(groups, wanted, seed)
    assert assigned.keys() == groups
    counts = {name: list(assigned.values()).count(name) for name in wanted}
    assert sum(counts.values()) == len(groups), "no other split"
    assert min(counts.values()) >= 1, "no wanted split is empty"
    rescued = 0
    for name, share in wanted.items():
        exact = share * len(groups)
        if exact < 1 and counts[name] == 1:
            rescued += 1
    for name, share in wanted.items():
        exact = share * len(groups)
        assert counts[name] < exact + 1 + 1e-6 or counts[name] == 1
        # A split gives up groups only to save others from being empty.
        assert counts[name] > exact - 1 - rescued - 1e-6


@given(st.integers(3, 200), SEEDS)
@settings(max_examples=100)
def test_an_exact_split_is_within_one_group_of_its_share_where_none_would_be_empty(count, seed):
    wanted = {"train": 0.8, "valid": 0.1, "test": 0.1}
    assigned = list(sources.split_exact(map(str, range(count)), wanted, seed).values())
    for name, share in wanted.items():
        exact = share * count
        assert abs(assigned.count(name) - exact) < 1 or count < 10


@given(st.permutations([f"g{i}" for i in range(12)]), SEEDS)
@settings(max_examples=40)
def test_a_split_does_not_depend_on_the_order_of_its_groups(shuffled, seed):
    wanted = {"train": 0.5, "test": 0.5}
    for split in (sources.split_exact, sources.split_stable):
        try:
            expected = split(sorted(shuffled), wanted, seed)
        except FlexsegError:
            continue
        assert split(shuffled, wanted, seed) == expected
        assert split([*shuffled, *shuffled], wanted, seed) == expected, "once per group"


def test_another_seed_gives_another_split():
    groups, wanted = [f"g{i}" for i in range(40)], {"train": 0.5, "test": 0.5}
    for split in (sources.split_exact, sources.split_stable):
        assert split(groups, wanted, 1) != split(groups, wanted, 2)


@given(GROUPS, GROUPS, shares(), SEEDS)
@settings(max_examples=150)
def test_adding_groups_to_a_stable_split_never_moves_one(groups, more, wanted, seed):
    try:
        before = sources.split_stable(groups, wanted, seed)
    except FlexsegError:  # a split without a group
        return
    after = sources.split_stable(groups | more, wanted, seed)
    assert before.items() <= after.items()
    assert after.keys() == groups | more
    assert set(before.values()) == set(wanted)


def test_a_stable_split_has_its_shares_in_the_long_run():
    wanted = {"train": 0.7, "valid": 0.2, "test": 0.1}
    assigned = list(sources.split_stable(map(str, range(4000)), wanted, 0).values())
    for name, share in wanted.items():
        assert assigned.count(name) / 4000 == pytest.approx(share, abs=0.03)


def test_a_stable_split_that_leaves_one_empty_is_an_error_that_names_it():
    wanted = {"train": 0.998, "valid": 0.001, "test": 0.001}
    with pytest.raises(FlexsegError, match=r"leaves valid, test without a group \(5 groups\)"):
        sources.split_stable("abcde", wanted, 0)


@given(st.integers(), st.text())
def test_the_hash_is_a_pure_function_of_128_bits(seed, key):
    assert 0 <= sources.keyed_hash(seed, key) < 2**128
    assert sources.keyed_hash(seed, key) == sources.keyed_hash(seed, key)


def test_the_hash_is_the_same_on_every_machine():
    # The first 16 bytes of: printf 137:a | sha256sum
    assert sources.keyed_hash(137, "a") == 0xD7BB6CDD9454CF04B10DB23EE03992DD


def test_shares_are_read():
    assert sources.parse_shares("train:0.8, valid:0.1,test:0.1") == {
        "train": 0.8,
        "valid": 0.1,
        "test": 0.1,
    }
    assert sources.parse_shares("test:1") == {"test": 1.0}


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
    ],
)
def test_shares_that_are_none_are_refused(text, message):
    with pytest.raises(FlexsegError, match=message) as error:
        sources.parse_shares(text)
    assert f'--split="{text}"' in str(error.value)
