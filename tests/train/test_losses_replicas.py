"""Every loss on two replicas is that on one, in value and gradient."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from train import losses

HERE = Path(__file__).parent
ALL = [
    *losses.LOSSES,
    "dice(per_image=true)",
    "generalized_dice(per_image=true)",
    "0.3*ce+0.7*dice",
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Values and gradients of all losses; logical devices can be made once in a process."""
    record = tmp_path_factory.mktemp("replicas") / "losses.npz"
    done = subprocess.run(
        [sys.executable, str(HERE / "losses_on_replicas.py"), str(record), *ALL],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(record))


@pytest.mark.parametrize("text", ALL)
def test_two_replicas_have_the_value_and_the_gradient_of_one(text, recorded):
    """The global batch's second half counts for less, and its last image for nothing."""
    value, gradient = recorded[f"{text}/one/value"], recorded[f"{text}/one/gradient"]
    np.testing.assert_allclose(recorded[f"{text}/two/value"], [value, value], rtol=1e-5)
    scale = abs(gradient).max()
    assert scale > 0
    assert not gradient[3].any()
    np.testing.assert_allclose(recorded[f"{text}/two/gradient"], gradient, atol=1e-5 * scale)
