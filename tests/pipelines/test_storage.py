"""Local paths, s3:// and the way that gs:// goes: one behavior.

S3 is a server in this process. Google's store cannot be had without Google; the class that serves
gs:// is run over Beam's S3 instead, which leaves untried only what is Google's own.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import boto3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg_errors import FlexsegError
from pipelines import object_stores, storage

ROOT = Path(__file__).parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
KINDS = ["local", "s3", "beam"]
FRESH = itertools.count()


@pytest.fixture(scope="module")
def server(bucket):
    """The bucket's client."""
    return boto3.Session().client("s3")


@pytest.fixture(scope="module")
def root(server, tmp_path_factory):
    """A function from a kind of storage to an empty folder of that kind."""

    def make(kind):
        if kind == "local":
            return str(tmp_path_factory.mktemp("storage"))
        return f"s3://bucket/{next(FRESH)}"

    return make


@pytest.fixture(scope="module")
def through(server):
    """A function from a kind of storage to a context in which it is the one that is used."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    session = mock.Mock()
    session.client.return_value = server  # Beam would make a client for every call

    @contextlib.contextmanager
    def use(kind):
        if kind != "beam":
            yield
            return
        FileSystems.set_options(PipelineOptions([]))
        beam = functools.partial(object_stores._Beam, "s3"), "aws"
        with (
            mock.patch.dict(object_stores._STORES, {"s3": beam}),
            mock.patch.object(boto3.session, "Session", return_value=session),
        ):
            yield

    yield use
    FileSystems.set_options(None)


@pytest.fixture(params=KINDS)
def folder(request, root, through):
    """An empty folder of each kind of storage."""
    with through(request.param):
        yield root(request.param)


def observed(folder, path):
    """All that can be asked of a folder and of a path in it; versions as whether they agree."""
    there = {f.path: (f.name, [f.size, f.version]) for f in storage.walk(folder)}
    return {
        "walk": [(f.path, f.name, f.size) for f in storage.walk(folder)],
        "states agree": all(storage.state(p) == state for p, (_, state) in there.items()),
        "names": storage.names(folder),
        "exists": storage.exists(path),
        "is folder": storage.is_folder(path),
        "names in it": storage.names(path),
        "content": storage.read_bytes(path) if storage.is_file(path) else None,
        "sha256": storage.sha256(path) if storage.is_file(path) else None,
        "size": storage.size(path) if storage.is_file(path) else None,
    }


def expected(folder, name, files):
    """The same of a dictionary from names to bytes."""
    shown = sorted(n for n in files if not any(p.startswith(".") for p in n.split("/")[:-1]))
    below = [n.removeprefix(name + "/") for n in files if n.startswith(name + "/")]
    return {
        "walk": [(storage.join(folder, *n.split("/")), n, len(files[n])) for n in shown],
        "states agree": True,
        "names": sorted({n.partition("/")[0] for n in files}),
        "exists": name in files or bool(below),
        "is folder": bool(below),
        "names in it": sorted({n.partition("/")[0] for n in below}),
        "content": files.get(name),
        "sha256": hashlib.sha256(files[name]).hexdigest() if name in files else None,
        "size": len(files[name]) if name in files else None,
    }


FOLDERS = st.lists(st.sampled_from(["a", "a-b", "ä b", ".h", "[a]"]), max_size=2)
NAMES = st.builds(lambda f, n: "/".join([*f, n]), FOLDERS, st.sampled_from(["x.gz", "y?", ".z"]))
STEPS = st.tuples(
    st.sampled_from(["write", "write", "upload", "remove", "remove folder"]),
    NAMES,
    st.binary(min_size=1, max_size=9),
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_storage_is_a_dictionary_from_paths_to_bytes(kind, root, through, tmp_path):
    """Whatever is written, written over, moved in and removed, in whatever order."""

    @settings(max_examples={"local": 50, "s3": 20, "beam": 8}[kind])
    @given(st.lists(STEPS, min_size=1, max_size=6))
    def behaves(steps):
        folder, files, local = root(kind), {}, tmp_path / "local"
        for what, name, data in steps:
            if what == "remove folder":
                name = name.partition("/")[0]
            path = storage.join(folder, *name.split("/"))
            if kind == "beam" and what.startswith("remove") and set("[?") & set(name):
                continue
            if what.startswith("remove"):
                storage.remove(path)
                files = {n: d for n, d in files.items() if not f"{n}/".startswith(f"{name}/")}
            else:
                storage.make_folder(path.rpartition("/")[0])
                if what == "write":
                    storage.write_whole(path, data)
                else:
                    local.write_bytes(data)
                    storage.upload(str(local), path)
                    assert not local.exists()
                files[name] = data
            if kind == "local":  # in a store there are no empty folders
                for parent, _, _ in os.walk(folder, topdown=False):
                    if parent != folder and not os.listdir(parent):
                        os.rmdir(parent)
            assert observed(folder, path) == expected(folder, name, files)

    with through(kind):
        behaves()


def test_what_is_not_there_is_told_apart(folder):
    nothing = storage.join(folder, "nothing")
    assert not storage.exists(nothing)
    assert storage.state(nothing) == [-1, -1]
    assert storage.names(nothing) == list(storage.walk(nothing)) == []
    storage.remove(nothing)
    for read in (storage.open_read, storage.read_bytes, storage.size):
        with pytest.raises(FileNotFoundError, match="nothing"):
            read(nothing)
    with pytest.raises(FileNotFoundError, match="nothing"), storage.local_copy(nothing):
        pass


def test_a_version_changes_with_the_content(folder):
    path = storage.join(folder, "x")
    seen = []
    for data in (b"abc", b"abd"):
        storage.write_whole(path, data)
        if not storage.is_remote(path):
            os.utime(path, ns=(0, len(seen)))  # a fast machine may write twice in one tick
        seen.append(storage.state(path))
    assert seen[0][0] == seen[1][0] == 3
    kept_by_the_second = isinstance(object_stores.store("s3://bucket/x"), object_stores._Beam)
    assert kept_by_the_second or seen[0] != seen[1]


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_an_empty_file_is_a_file(kind, root):
    path = storage.join(root(kind), "empty")
    storage.write_whole(path, b"")
    assert storage.is_file(path)
    assert storage.read_bytes(path) == b""
    assert storage.size(path) == 0


def test_a_file_is_read_at_any_place(folder, monkeypatch):
    """As a file on disk is, though it comes in pieces."""
    monkeypatch.setattr(object_stores, "_CHUNK", 1000)
    rng = np.random.default_rng(0)
    data = rng.bytes(5500)
    storage.write_whole(storage.join(folder, "x"), data)
    with storage.open_read(storage.join(folder, "x")) as file:
        for _ in range(50):
            start, count = rng.integers(0, 6000), rng.integers(0, 3000)
            file.seek(start)
            assert file.read(count) == data[start : start + count]
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:]
        file.seek(100)
        file.seek(50, os.SEEK_CUR)
        assert file.read(3) == data[150:153]
        file.seek(0)
        assert file.read() == data


def test_a_file_that_changes_while_it_is_read_is_told(root, monkeypatch):
    """Or the beginning of one file and the end of another would be taken for one."""
    monkeypatch.setattr(object_stores, "_CHUNK", 1000)
    path = storage.join(root("s3"), "x")
    storage.write_whole(path, b"a" * 3000)
    with storage.open_read(path) as file:
        file.read(10)
        storage.write_whole(path, b"b" * 3000)
        with pytest.raises(FlexsegError, match=r"s3://.*x was changed while it was read"):
            file.read()


def test_a_connection_that_breaks_is_tried_again(root, monkeypatch):
    path = storage.join(root("s3"), "x")
    storage.write_whole(path, b"abc")
    client = object_stores.store(path)._client
    get, left = client.get_object, [2]

    def breaking(**wanted):
        if left[0]:
            left[0] -= 1
            raise ConnectionResetError("the connection was reset")
        return get(**wanted)

    monkeypatch.setattr(client, "get_object", breaking)
    assert storage.read_bytes(path) == b"abc"
    assert left == [0]
    left[0] = 99
    with pytest.raises(FlexsegError, match=r"s3://.*x: the connection was reset"):
        storage.read_bytes(path)


def test_an_upload_that_breaks_off_leaves_nothing_under_the_name(
    server, root, monkeypatch, tmp_path
):
    """The parts that were sent are thrown away; and the local file is still there."""
    path, local = storage.join(root("s3"), "x"), tmp_path / "local"
    local.write_bytes(b"a" * (20 << 20))
    client = object_stores.store(path)._client
    send, sent = client.upload_part, []

    def breaking(**part):
        if sent:
            raise ConnectionResetError("the connection was reset")
        sent.append(part["PartNumber"])
        return send(**part)

    monkeypatch.setattr(client, "upload_part", breaking)
    with pytest.raises(FlexsegError, match="x: the connection was reset"):
        storage.upload(str(local), path)
    assert sent
    assert not storage.exists(path)
    assert "Uploads" not in server.list_multipart_uploads(Bucket="bucket")
    assert local.stat().st_size == 20 << 20


@pytest.mark.parametrize("write", ["write_whole", "upload"])
@pytest.mark.parametrize("kind", ["local", "beam"])
def test_a_write_that_is_interrupted_leaves_the_old_file(
    kind, write, root, through, monkeypatch, tmp_path
):
    def interrupted(source, target, _):
        target.write(source.read(2))
        raise KeyboardInterrupt

    with through(kind):
        path, local = storage.join(root(kind), "x"), tmp_path / "local"
        storage.write_whole(path, b"old")
        local.write_bytes(b"new")
        if kind == "local":
            monkeypatch.setattr(os, "replace", mock.Mock(side_effect=KeyboardInterrupt))
        else:
            monkeypatch.setattr(object_stores.shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            getattr(storage, write)(*((str(local), path) if write == "upload" else (path, b"new")))
        gc.collect()  # Beam's writer finishes what it has when it is thrown away
        assert storage.read_bytes(path) == b"old"


def test_a_local_copy_is_the_path_itself_or_goes_away(folder):
    storage.make_folder(storage.join(folder, "deep", "er"))
    contents = {"a.txt": b"1", "deep/er/b": b"22"}
    for name, data in contents.items():
        storage.write_whole(storage.join(folder, *name.split("/")), data)
    with storage.local_copy(storage.join(folder, "a.txt")) as copy:
        assert os.path.basename(copy) == "a.txt", "readers go by the suffix"
        assert Path(copy).read_bytes() == b"1"
    with storage.local_copy(folder) as folder_copy:
        for name, data in contents.items():
            assert Path(folder_copy, name).read_bytes() == data
    remote = storage.is_remote(folder)
    assert (copy != storage.join(folder, "a.txt"), folder_copy != folder) == (remote, remote)
    assert (os.path.exists(copy), os.path.exists(folder_copy)) == (not remote, not remote)


def test_joining_is_the_systems_or_with_slashes():
    assert storage.join("a", "b", "c") == os.path.join("a", "b", "c")
    assert storage.join("s3://bucket/a/", "b/", "c") == "s3://bucket/a/b/c"
    assert storage.join("s3://bucket", "") == "s3://bucket"
    assert [storage.is_remote(p) for p in ("s3://b/x", "gs://b", "C:/x", "a", "/a://b")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_the_empty_files_that_show_folders_in_consoles_are_no_files(server, root):
    folder = root("s3")
    server.put_object(Bucket="bucket", Key=folder.removeprefix("s3://bucket/") + "/sub/", Body=b"")
    assert list(storage.walk(folder)) == []
    assert storage.names(folder) == ["sub"]
    assert storage.names(storage.join(folder, "sub")) == []
    storage.remove(folder)
    assert not storage.exists(folder)


def test_more_files_than_a_page_holds_are_listed_and_removed(server, root, monkeypatch):
    folder = root("s3")
    wanted = [f"{i}" for i in range(7)]
    for name in wanted:
        storage.write_whole(storage.join(folder, name), b"1")
    client = object_stores.store(folder)._client
    few = functools.partial(client.list_objects_v2, MaxKeys=3)
    with monkeypatch.context() as patch:
        patch.setattr(client, "list_objects_v2", few)
        patch.setattr(object_stores, "_BATCH", 3)
        assert storage.names(folder) == wanted
        assert [f.name for f in storage.walk(folder)] == wanted
        storage.remove(folder)
    assert not storage.exists(folder)


@pytest.mark.parametrize(
    "use",
    [
        lambda path: storage.is_folder(path),
        lambda path: storage.names(path),
        lambda path: list(storage.walk(path)),
        lambda path: storage.read_bytes(path),
        lambda path: storage.write_whole(path, b"1"),
        lambda path: storage.remove(path),
    ],
)
def test_a_bucket_that_is_not_there_is_told(server, use):
    with pytest.raises(FlexsegError, match=r"s3://missing/x: there is no bucket missing\. Make it"):
        use("s3://missing/x")


def test_a_bucket_itself_is_never_written_over_or_removed(server):
    storage.write_whole("s3://bucket/kept", b"1")
    for use in (storage.remove, lambda path: storage.write_whole(path, b"1")):
        for path in ("s3://bucket", "s3://bucket/"):
            with pytest.raises(FlexsegError, match="is a bucket"):
                use(path)
    assert storage.is_file("s3://bucket/kept")
    assert not storage.is_file("s3://bucket")
    assert storage.is_folder("s3://bucket")


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("ftp://host/x", r"ftp://host/x: flexseg cannot reach ftp:// paths.*s3://, gs://"),
        ("s3://", "s3:// names no bucket"),
    ],
)
def test_a_path_that_leads_nowhere_is_told(path, wanted):
    for use in (storage.exists, storage.make_folder, storage.open_read):
        with pytest.raises(FlexsegError, match=wanted):
            use(path)


@pytest.mark.parametrize(
    ("path", "library", "extra"),
    [
        ("s3://bucket/x", "boto3", "aws"),
        ("gs://bucket/x", "apache_beam.io.gcp.gcsfilesystem", "gcp"),
    ],
)
def test_libraries_that_are_missing_are_named(path, library, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    package, _, name = library.rpartition(".")
    if package:
        monkeypatch.delattr(f"{package}.{name}", raising=False)
    object_stores._s3_of.cache_clear()
    with pytest.raises(FlexsegError, match=rf'pip install "flexseg\[{extra}\]"'):
        storage.exists(path)


@pytest.mark.parametrize("missing", ["server", "credentials"])
def test_a_store_that_does_not_answer_is_told_at_once(server, missing, monkeypatch):
    if missing == "server":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    else:
        for key in KEYS:
            monkeypatch.delenv(key)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        object_stores._s3_of.cache_clear()
    for use in (storage.exists, storage.read_bytes, storage.names):
        with pytest.raises(FlexsegError, match=r"^s3://bucket/x: .*AWS_ACCESS_KEY_ID.*AWS_END"):
            use("s3://bucket/x")
    object_stores._s3_of.cache_clear()


def test_what_the_disk_objects_to_is_told_with_the_path(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    below = str(tmp_path / "file" / "x")
    with pytest.raises(FlexsegError, match=r"file/x: Not a directory"):
        storage.write_whole(below, b"1")
    with pytest.raises(FlexsegError, match="Is a directory"):
        storage.read_bytes(str(tmp_path))


ENDPOINTS = {
    "of all services": ({"AWS_ENDPOINT_URL": "http://h:9"}, ("http://h:9", "http://h:9")),
    "of S3": (
        {"AWS_ENDPOINT_URL": "http://other", "AWS_ENDPOINT_URL_S3": "https://h"},
        ("https://h", "https://h"),
    ),
    "tensorflow-io's": ({"S3_ENDPOINT": "http://h:9"}, ("http://h:9", "http://h:9")),
    "a host": ({"S3_ENDPOINT": "h:9"}, ("https://h:9", "https://h:9")),
    "a plain host": (
        {"S3_ENDPOINT": "h:9", "S3_USE_HTTPS": "0"},
        ("http://h:9", "http://h:9"),
    ),
    "both": (
        {"AWS_ENDPOINT_URL_S3": "https://h", "S3_ENDPOINT": "http://g"},
        ("https://h", "http://g"),
    ),
    "none": ({}, (None, None)),
}


@pytest.mark.parametrize(("given_", "wanted"), ENDPOINTS.values(), ids=ENDPOINTS)
def test_boto_and_tensorflow_io_get_one_endpoint(given_, wanted):
    with mock.patch.dict(os.environ, given_, clear=True):
        object_stores.share_s3_settings()
        names = ("AWS_ENDPOINT_URL_S3", "S3_ENDPOINT")
        assert tuple(os.environ.get(name) for name in names) == wanted


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_boto_and_tensorflow_io_get_one_region(name):
    with mock.patch.dict(os.environ, {name: "eu-north-1"}, clear=True):
        object_stores.share_s3_settings()
        assert os.environ["AWS_REGION"] == os.environ["AWS_DEFAULT_REGION"] == "eu-north-1"


def test_local_paths_load_no_library_of_a_store(tmp_path):
    code = (
        "import sys; from pipelines import storage\n"
        f"storage.write_whole({str(tmp_path / 'x')!r}, b'1'); list(storage.walk('.'))\n"
        "print([m for m in ('boto3', 'apache_beam', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


def test_what_a_store_refuses_to_remove_is_named(server, through, monkeypatch):
    storage.write_whole("s3://bucket/kept/x", b"1")
    client = object_stores._s3()._client
    refusal = {"Errors": [{"Key": "kept/x", "Message": "Access Denied"}]}
    monkeypatch.setattr(client, "delete_objects", lambda **_: refusal)
    with pytest.raises(FlexsegError, match=r"s3://bucket/kept/x cannot be removed: Access Denied"):
        storage.remove("s3://bucket/kept/x")
    with through("beam"):
        with pytest.raises(FlexsegError, match=r"bucket/kept/\?: a name with .* cannot be removed"):
            storage.remove("s3://bucket/kept/?")
        from apache_beam.io.filesystems import FileSystems

        monkeypatch.setattr(FileSystems, "delete", mock.Mock(side_effect=RuntimeError("no\nright")))
        with pytest.raises(FlexsegError, match=r"^s3://bucket/kept/x: .*no right.* credentials"):
            storage.remove("s3://bucket/kept/x")
    assert storage.read_bytes("s3://bucket/kept/x") == b"1"
