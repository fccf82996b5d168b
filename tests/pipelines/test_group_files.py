"""Files of groups: read however they were saved, kept as they were, faults told with the line."""

from __future__ import annotations

import csv
import dataclasses
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexseg_errors import FlexsegError
from pipelines import group_files, splits
from pipelines.sources import Source
from pipelines.splits import SplitOptions


def source_of(name, group="", split=""):
    path = f"{split}/{name}" if split else name
    return Source(path, f"{path}.png", f"images/{name}.png", f"{name}.png", group or path, split)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=5),
        st.sampled_from(["train", "valid", "test", "fold0", "fold12"]),
        min_size=1,
    )
)
def test_what_a_dataset_keeps_of_its_splits_is_read_as_it_was(tmp_path_factory, assigned):
    folder = tmp_path_factory.mktemp("kept", numbered=True)
    found = [source_of(f"s{i}", split=s, group="?") for i, s in enumerate(assigned.values())]
    found = [dataclasses.replace(s, group=g) for s, g in zip(found, assigned, strict=True)]
    text = group_files.as_csv([*reversed(found), *found])
    assert text == group_files.as_csv(found), "in any order, and a line for each group"
    (folder / group_files.FILE).write_bytes(text.encode())
    assert group_files.read_splits(str(folder)) == assigned
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["group", "split"]
    assert rows[1:] == sorted(rows[1:])


def test_the_file_of_groups_looks_as_documented():
    found = [source_of("b", "p2", "test"), source_of("a", 'p1, "the" first', "train")]
    assert group_files.as_csv(found) == 'group,split\n"p1, ""the"" first",train\np2,test\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--split_from=.* holds no groups.csv: it is not a dataset"),
        ("", "is empty"),
        ("group,split\n", "is empty"),
        ("a,train\n", r"damaged \(line 1\)"),
        ("group,split\na,train\na,test\n", r"damaged \(line 3\)"),
        ("group,split\na,training\n", r"damaged \(line 2\)"),
        ("group,split\na,train,b\n", r"damaged \(line 2\)"),
        ('group,split\n"a,train\n', "groups.csv, line 2"),
        (b"group,split\n\xff,train\n", "not text in UTF-8"),
    ],
)
def test_an_earlier_dataset_whose_splits_cannot_be_read_is_named(tmp_path, content, message):
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / group_files.FILE).write_bytes(data)
    with pytest.raises(FlexsegError, match=message) as error:
        group_files.read_splits(str(tmp_path))
    assert str(tmp_path) in str(error.value)


def test_the_checksum_changes_with_any_group_or_split_and_not_with_the_order():
    kept = {"a": "train", "b": "test"}
    assert group_files.checksum(kept) == group_files.checksum(dict(reversed(kept.items())))
    others = [{"a": "train"}, {**kept, "c": "train"}, {**kept, "a": "valid"}, {}]
    assert len({group_files.checksum(k) for k in [kept, *others]}) == 5


@pytest.mark.parametrize(
    "data",
    [
        "a.png,p1\nsub/b,p2\n",
        "path,group\na.png,p1\nsub/b,p2\n",
        "Path , GROUP\r\na.png,p1\r\n\r\nsub/b,p2",
        "\ufeffpath,group\na.png,p1\nsub/b,p2\n",
        "\ufeffa.png,p1\nsub/b,p2\n",
        '"a.png","p1"\n"sub/b",p2\n',
        "  a.png , p1\nsub/b,p2 \n",
        "a.png,p1\na.png,p1\nsub/b,p2\n",
        "age,group,path\n61,p1,a.png\n,p2,sub/b\n",
    ],
)
def test_a_file_of_groups_is_read_however_it_was_saved(tmp_path, data):
    (tmp_path / "groups.csv").write_bytes(data.encode())
    assert group_files.read(str(tmp_path / "groups.csv")) == {"a.png": "p1", "sub/b": "p2"}


def test_names_with_commas_quotes_and_accents_are_read(tmp_path):
    (tmp_path / "groups.csv").write_bytes('"a,b","x ""y"""\nJose\u0301,Ne\u0301\n'.encode())
    groups = group_files.read(str(tmp_path / "groups.csv"))
    assert groups == {"a,b": 'x "y"', "Jos\u00e9": "N\u00e9"}
    for name in ("Jose\u0301", "Jos\u00e9"):
        found, rejected = group_files.apply([source_of(name)], groups, "groups.csv")
        assert [s.group for s in found] == ["N\u00e9"]
        assert not rejected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "names no source; expected lines path,group"),
        (b"path,group\n", "names no source"),
        (b"a.png\n", "line 1: expected 2 values separated by commas, path,group; found 1"),
        (b"a.png,p1\nb.png;p2\n", "line 2: expected 2 values"),
        (b"a.png,p1,x\n", "line 1: expected 2 values.*found 3"),
        (b"path,group,age\na.png,p1\n", "line 2: expected 3 values"),
        (b"a.png,p1\n\nb.png,\n", "line 3: path or group is empty"),
        (b",p1\n", "line 1: path or group is empty"),
        (b"a.png,p1\nb,p2\na.png,p3\n", 'line 3: "a.png" belongs to "p3" here, and to "p1" above'),
        (b'"a.png,p1\n', "line 1: unexpected end of data"),
        (b"\xff\xfea\x00", "is not text in UTF-8"),
    ],
)
def test_a_file_of_groups_that_is_none_is_told_with_its_line(tmp_path, data, message):
    path = tmp_path / "mine.csv"
    path.write_bytes(data)
    with pytest.raises(FlexsegError, match=message) as error:
        group_files.read(str(path))
    assert f"--groups={path}" in str(error.value)


def test_a_file_of_groups_that_is_missing_is_named(tmp_path):
    path = tmp_path / "none.csv"
    message = f"--groups={path} cannot be read: No such file"
    with pytest.raises(FlexsegError, match=re.escape(message)):
        group_files.read(str(path))
    with pytest.raises(FlexsegError, match=re.escape(str(tmp_path))):
        group_files.read(str(tmp_path))


def test_sources_are_named_with_or_without_suffix_and_what_is_not_named_is_rejected():
    found = [source_of(n) for n in ("a", "sub/b", "x_0.3", "c")]
    groups = {"a.png": "p1", "sub/b": "p2", "x_0.3": "p1", "x_0": "other", "b": "other"}
    grouped, rejected = group_files.apply(found, groups, "groups.csv")
    assert [(s.id, s.group) for s in grouped] == [("a", "p1"), ("sub/b", "p2"), ("x_0.3", "p1")]
    assert [dataclasses.replace(s, group=s.id) for s in grouped] == found[:3], "else unchanged"
    assert [(r.path, r.stage) for r in rejected] == [("images/c.png", "group")]
    assert rejected[0].reason == '--groups=groups.csv names no group for "c.png"'
    assert group_files.unused_names(found, groups) == ["x_0", "b"]


def test_all_slices_of_a_volume_are_named_by_their_file():
    volume = Source("s/v", "s/v.nii.gz", "images/s/v.nii.gz", "v.nii.gz", "s/v")
    found = [dataclasses.replace(volume, id=f"s/v/{i:05d}", slice=i) for i in range(3)]
    for name in ("s/v", "s/v.nii.gz"):
        grouped, _ = group_files.apply([*found, source_of("a")], {name: "p", "a": "q"}, "f")
        assert [s.group for s in grouped] == ["p", "p", "p", "q"]
    grouped, rejected = group_files.apply([*found, source_of("a")], {"a": "q"}, "f")
    assert [s.id for s in grouped] == ["a"]
    assert [r.path for r in rejected] == ["images/s/v.nii.gz"], "once"


def test_in_a_dataset_with_splits_names_are_below_the_splits_folder_or_begin_with_it():
    found = [source_of("a", split="train"), source_of("b", split="test")]
    for groups in ({"a": "p", "b": "q"}, {"train/a.png": "p", "test/b": "q"}):
        grouped, rejected = group_files.apply(found, groups, "f")
        assert [s.group for s in grouped] == ["p", "q"]
        assert not rejected
    same, _ = group_files.apply(found, {"a": "p", "b": "p"}, "f")
    with pytest.raises(FlexsegError, match=r'more than one split.*"p" in test and train'):
        splits.assign(same, SplitOptions(""))
    twice = [source_of("a", split="train"), source_of("a", split="test")]
    apart, _ = group_files.apply(twice, {"train/a": "p", "test/a": "q"}, "f")
    assert {s.group: s.split for s in apart} == {"p": "train", "q": "test"}


def test_a_source_with_two_groups_is_an_error_that_names_both():
    with pytest.raises(
        FlexsegError, match=r'images/a.png has two groups.*"a.png" to "p".*"a" to "q"'
    ):
        group_files.apply([source_of("a")], {"a": "q", "a.png": "p"}, "f")


def test_a_file_that_names_none_of_the_images_is_shown_with_what_there_is():
    with pytest.raises(FlexsegError, match=r'names none.*it names "x/a.png"; there are "a.png"'):
        group_files.apply([source_of("a")], {"x/a.png": "p"}, "f")
