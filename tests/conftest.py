"""What every test shares: a silent TensorFlow, repeatable hypothesis, and the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple
from unittest import mock

import pytest
from hypothesis import settings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before anything imports TensorFlow

# The same examples in every run, whatever the machine's speed, and no folder left behind.
settings.register_profile("flexseg", deadline=None, derandomize=True, database=None)
settings.load_profile("flexseg")


class Outcome(NamedTuple):
    """What a command left: its exit status and all that it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`command("verify", folder)` runs `flexseg verify FOLDER` in this process."""
    import flexseg

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        status = flexseg.main([str(a) for a in arguments])
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of a bucket on an S3 server of this process, to which the environment leads."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    keys = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
    }
    with mock.patch.dict(os.environ, keys):  # and takes away again what is set meanwhile
        # A session of its own: the default one may know the server of other tests.
        boto3.Session().client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"
    server.stop()
