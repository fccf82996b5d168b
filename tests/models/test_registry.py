"""The contract of every architecture: what `build` promises, held for all of them."""

import dataclasses
import inspect
import pathlib
import subprocess
import sys

import pytest

from flexseg_errors import FlexsegError
from models import registry

every_architecture = pytest.mark.parametrize("name", sorted(registry.ARCHITECTURES))


def small(name, **keywords):
    return registry.build(name, **{"num_classes": 2, "base_filters": 4, "levels": 3, **keywords})


def test_importing_the_registry_loads_no_framework():
    program = (
        "import sys, models.registry as r; r.configure('flex_unet', levels=3);"
        "sys.exit(' '.join({'keras', 'tensorflow', 'numpy'} & set(sys.modules)) or None)"
    )
    root = pathlib.Path(inspect.getfile(registry)).parents[1]
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=root, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


@every_architecture
def test_every_knob_is_documented_and_every_line_is_one_line(name):
    architecture = registry.ARCHITECTURES[name]
    assert architecture.name == name
    assert architecture.summary
    assert "\n" not in architecture.summary
    for field in dataclasses.fields(architecture.config):
        doc = field.metadata.get("doc", "")
        assert len(doc) > 10, field.name
        assert doc.endswith("."), field.name
        assert field.default is not dataclasses.MISSING, field.name


@every_architecture
def test_configs_are_frozen_and_hashable(name):
    config = registry.configure(name)
    assert config == registry.configure(name)
    assert hash(config) == hash(registry.configure(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.levels = 3


def test_an_unknown_architecture_is_refused_with_the_nearest():
    with pytest.raises(FlexsegError, match=r'"flexunet" is unknown.*Did you mean "flex_unet"'):
        registry.build("flexunet", num_classes=2)


def test_an_unknown_knob_is_refused_with_the_nearest():
    with pytest.raises(FlexsegError, match=r'no knob "base_filter".*Did you mean "base_filters"'):
        registry.build("flex_unet", num_classes=2, base_filter=8)


def test_a_config_of_another_kind_is_refused():
    with pytest.raises(FlexsegError, match=r"FlexUNetConfig, not by dict"):
        registry.configure("flex_unet", {"levels": 3})


def test_knobs_go_over_the_config_and_lists_become_tuples():
    config = registry.configure("flex_unet", levels=2, base_filters=8)
    config = registry.configure("flex_unet", config, kernels=[5, 3])
    assert (config.levels, config.base_filters, config.kernels) == (2, 8, (5, 3))


@pytest.mark.parametrize("wrong", [{"num_classes": 0}, {"channels": 0}])
def test_counts_below_one_are_refused(wrong):
    with pytest.raises(FlexsegError, match=f"{next(iter(wrong))} must be at least 1"):
        small("flex_unet", **wrong)
