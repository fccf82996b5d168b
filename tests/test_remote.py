"""From images on S3 to a score on S3, each command a process of its own, as a user runs them.

The processes matter: tensorflow-io, by which TensorFlow reads s3://, aborts when the interpreter
that loaded it ends, and must not be loaded into the tests' own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
KEYS = {
    "model.base_filters": 2,
    "model.levels": 2,
    "data.batch_size": 2,
    "optimizer.warmup_steps": 0,
    "train.epochs": 1,
    "train.steps_per_epoch": 4,
    "train.steps_per_call": 1,
    "train.checkpoint_steps": 1,
    "train.keep_checkpoints": 2,
    "train.previews": 0,
}
TRAIN = ["train", "--data=s3://bucket/data", "--run=s3://bucket/runs/one"]
TRAIN += [f"--config.{key}={value}" for key, value in KEYS.items()]

# Dies, as by kill -9, before the state of the third checkpoint is sent.
KILLED = """
import os, signal
import flexseg
from pipelines import storage
upload = storage.upload
def deadly(local, path, **how):
    if path.endswith("step-000000003/state.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    upload(local, path, **how)
storage.upload = deadly
flexseg.entry()
"""
# The plug-in is loaded and used, and then the command ends otherwise than well.
WITH_PLUG_IN = """
import tensorflow_io
import tensorflow as tf
import flexseg
from pipelines import object_stores
object_stores.share_s3_settings()
assert not tf.io.gfile.exists("s3://bucket/nothing")
flexseg.entry()
"""


@pytest.fixture(scope="module")
def environment(bucket):
    """The variables that lead to a server with images in its bucket."""
    client = boto3.Session().client("s3")
    rng = np.random.default_rng(0)
    for i in range(8):
        mask = np.zeros((32, 32, 3), np.uint8)
        mask[8 : 12 + i, 5 + i : 20 + i] = (0, 0, 255)
        image = (mask.max(-1, keepdims=True) // 2 + rng.integers(0, 90, mask.shape)).astype("u1")
        for part, pixels in (("images", image), ("masks", mask)):
            png = cv2.imencode(".png", pixels)[1].tobytes()
            client.put_object(Bucket="bucket", Key=f"lung/{part}/p{i}.png", Body=png)
    others = {k: v for k, v in os.environ.items() if not k.startswith("S3_")}
    return {**others, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def flexseg(environment, tmp_path):
    """Runs a command in a process of its own, in an empty folder; `code` starts it."""

    def run(*arguments, code=None):
        start = ["-c", code] if code else ["-m", "flexseg"]
        done = subprocess.run(
            [sys.executable, *start, *arguments],
            env={**environment, "TMPDIR": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def files(environment):
    """A function that lists what lies in the bucket below a prefix."""
    client = boto3.client(
        "s3", endpoint_url=environment["AWS_ENDPOINT_URL"], aws_access_key_id="test",
        aws_secret_access_key="test", region_name="us-east-1",
    )  # fmt: skip

    def below(prefix):
        found = client.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
        return [f["Key"].removeprefix(prefix) for f in found]

    return below


def test_all_from_images_to_a_score_lies_on_s3(flexseg, files, tmp_path):
    """Through a training that is killed while it sends a checkpoint, and goes on."""
    done = flexseg(
        "prepare",
        "--dataset=s3://bucket/lung",
        "--output=s3://bucket/data",
        "--label_map={(0,0,0):0,(255,0,0):1}",
        "--split=train:0.5,valid:0.25,test:0.25",
        "--num_shards=1",
        "--direct_num_workers=1",
    )
    assert done.returncode == 0, done.stderr
    shards = [f"{split}-00000-of-00001.tfrecord" for split in ("test", "train", "valid")]
    assert {"dataset.json", *shards} <= set(files("data/"))

    done = flexseg("verify", "s3://bucket/data")
    assert done.returncode == 0, done.stderr
    assert "8 records in 3 shards, all as they were made" in done.stdout + done.stderr

    done = flexseg(*TRAIN, code=KILLED)
    assert done.returncode == -signal.SIGKILL, done.stderr
    half = [n for n in files("runs/one/checkpoints/") if n.startswith("step-000000003/")]
    sent = ("checksums.json", "variables.data-00000-of-00001", "variables.index")
    assert half == [f"step-000000003/{name}" for name in sent]

    done = flexseg(*TRAIN)
    assert done.returncode == 0, done.stderr
    assert "Going on after step 2 of 4." in done.stderr
    assert "s3://bucket/runs/one: finished after step 4" in done.stderr
    made = files("runs/one/")
    kept = {n.split("/")[1] for n in made if n.startswith("checkpoints/")}
    assert kept == {"step-000000003", "step-000000004"}
    assert {"best/best.json", "best/model.weights.h5", "history.json"} <= set(made)
    assert not [n for n in made if "tmp" in n]

    done = flexseg("evaluate", "--run=s3://bucket/runs/one")
    assert done.returncode == 0, done.stderr
    assert "test: 2 images" in done.stdout
    assert {"evaluation/test.csv", "evaluation/test.json"} <= set(files("runs/one/"))

    left = [p.name for p in tmp_path.iterdir() if p.name.startswith("flexseg")]
    assert len(left) <= 1, "the copy of the process that was killed, and no other"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["verify", "s3://bucket/none"], 1, "flexseg verify: s3://bucket/none is no folder"),
        (["verify", "s3://bucket/none", "more"], 2, "verify takes DATASET; got"),
    ],
)
def test_a_process_with_the_plug_in_ends_with_the_commands_status(
    flexseg, arguments, status, message
):
    """And says all that it has to say, in one line."""
    done = flexseg(*arguments, code=WITH_PLUG_IN)
    assert done.returncode == status
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr
