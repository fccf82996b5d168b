"""What belongs to the project as a whole agrees: version, package, pins, images, habits."""

from __future__ import annotations

import ast
import configparser
import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import flexseg

ROOT = Path(__file__).parents[1]
ROOMS = ("pipelines", "models", "train", "export")
PYTHONS = ("3.10", "3.11", "3.12")
NAMES_ON_PYPI = {  # what is imported -> what is installed or brings it, where they differ
    "PIL": "pillow", "SimpleITK": "simpleitk", "absl": "absl-py", "apache_beam": "apache-beam",
    "botocore": "boto3", "cv2": "opencv-python-headless", "cycler": "matplotlib",
    "distributed": "apache-beam", "google.api_core": "google-api-core",
    "google.auth": "google-auth", "google.cloud.storage": "google-cloud-storage",
    "google.protobuf": "tensorflow", "google_crc32c": "google-crc32c", "grpc": "tensorflow",
    "h5py": "keras", "markupsafe": "jinja2", "pkg_resources": "setuptools",
    "skimage": "scikit-image", "tensorboard": "tensorflow", "tensorflow_io": "tensorflow-io",
    "tensorflow_serving": "tensorflow-serving-api", "yaml": "pyyaml",
}  # fmt: skip

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def lines(text):
    return [line for line in text.split("\n") if line.strip()]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements():
    """What setup.cfg asks for: (where, requirement)."""
    wanted = {"install_requires": SETUP["options"]["install_requires"]}
    wanted |= dict(SETUP["options.extras_require"])
    return [(where, Requirement(line)) for where, text in wanted.items() for line in lines(text)]


def pins(python):
    """What constraints.txt pins for a release of Python."""
    found = {}
    for line in lines((ROOT / "constraints.txt").read_text()):
        if line.startswith("#"):
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            assert pin.url is None
            assert canonical(pin.name) not in found, "one pin each"
            found[canonical(pin.name)] = specifier.version
    return found


def test_the_version_stands_in_one_place():
    assert SETUP["metadata"]["version"] == "attr: flexseg.VERSION"
    assert str(Version(flexseg.VERSION)) == flexseg.VERSION
    latest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest[1] == flexseg.VERSION
    for name in ("setup.cfg", "pyproject.toml", "Makefile"):
        assert f'"{flexseg.VERSION}"' not in (ROOT / name).read_text()


def test_an_installed_flexseg_has_every_module_and_every_file():
    assert sorted(lines(SETUP["options"]["py_modules"])) == sorted(
        p.stem for p in ROOT.glob("*.py")
    )
    include = lines(SETUP["options.packages.find"]["include"])
    packages = set(setuptools.find_packages(str(ROOT), include=include))
    patterns = {
        package: [part.strip() for part in text.split(",")]
        for package, text in SETUP["options.package_data"].items()
    }
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            folder = path.relative_to(ROOT).parent
            if path.suffix == ".py" and ".".join(folder.parts) in packages:
                continue
            inside = [
                (path.relative_to(ROOT / package.replace(".", "/")).as_posix(), package)
                for package in packages
                if path.is_relative_to(ROOT / package.replace(".", "/"))
            ]
            assert any(
                fnmatch.fnmatchcase(name, pattern)
                for name, package in inside
                for pattern in patterns.get("*", []) + patterns.get(package, [])
            ), f"{path}: in no package (__init__.py) and no package_data"


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_within_its_range(python):
    pinned = pins(python)
    for where, wanted in requirements():
        if wanted.marker is None or wanted.marker.evaluate({"python_version": python, "extra": ""}):
            name = canonical(wanted.name)
            assert name in pinned, f"{where}: {wanted}; run make constraints"
            assert wanted.specifier.contains(pinned[name], prereleases=True), (where, wanted)


def test_the_pins_name_no_index_and_are_in_order():
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert "index" not in text
    names = [line.partition("==")[0] for line in lines(text) if not line.startswith("#")]
    assert names == sorted(names)
    assert all(python in text.split("\n")[0] for python in PYTHONS)


def test_every_requirement_has_both_ends():
    for where, wanted in requirements():
        operators = {specifier.operator for specifier in wanted.specifier}
        assert ">=" in operators, (where, wanted)
        assert "<" in operators or wanted.name == "tifffile", "its releases are dates"


def test_every_import_is_of_something_that_setup_cfg_asks_for():
    asked = {canonical(wanted.name) for _, wanted in requirements()}
    own = {*ROOMS, *(p.stem for p in ROOT.glob("*.py"))}
    files = [*(p for room in ROOMS for p in (ROOT / room).rglob("*.py")), *ROOT.glob("*.py")]
    unknown = set()
    for path in files:
        if "serving" in path.parts:
            continue  # clients that are copied out and run elsewhere
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                if top in own or top in sys.stdlib_module_names:
                    continue
                long = [k for k in NAMES_ON_PYPI if f"{name}.".startswith(f"{k}.")]
                if canonical(NAMES_ON_PYPI[long[0]] if long else top) not in asked:
                    unknown.add((name, path.relative_to(ROOT).as_posix()))
    assert not unknown


def made():
    """The targets of the Makefile that are no files."""
    return set(
        re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    )


@pytest.mark.parametrize("page", ["README.md", "BUILD.md", "CONTRIBUTING.md", ".ci/run"])
def test_every_make_target_that_a_text_names_is_there(page):
    text = (ROOT / page).read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert named
    assert named <= made()


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_help_lists_what_a_person_calls():
    # As by hand: a make that runs the tests would have it say where it enters and leaves.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    result = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    listed = {line.split()[1] for line in lines(result.stdout)}
    assert listed == made() - {"from-nothing"}


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.beam"])
def test_an_image_is_made_of_what_is_there(name):
    text = (ROOT / "docker" / name).read_text()
    joined = re.sub(r"\\\n\s*", "", text)
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "ENTRYPOINT", "CMD"}
    orders = [line.split(" ", 1) for line in lines(joined) if not line.startswith("#")]
    assert {order for order, _ in orders} <= known
    assert next(order for order, _ in orders if order != "ARG") == "FROM"
    copied = [source for order, rest in orders if order == "COPY" for source in rest.split()[:-1]]
    assert {f"{room}/" for room in ROOMS} <= set(copied), "with every room"
    assert "*.py" in copied
    passed = lines((ROOT / "docker" / f"{name}.dockerignore").read_text())
    for source in copied:
        assert list(ROOT.glob(source.rstrip("/"))), source
        assert f"!{source.rstrip('/')}" in passed, f"{source} is kept out by {name}.dockerignore"
    arguments = dict(rest.split("=", 1) for order, rest in orders if order == "ARG")
    assert set(arguments["EXTRAS"].split(",")) <= set(SETUP["options.extras_require"])
    assert arguments["PYTHON"] in PYTHONS
    if "BEAM" in arguments:
        assert arguments["BEAM"] == pins(arguments["PYTHON"])["apache-beam"]


def test_hooks_run_the_tools_of_the_environment():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    asked = {canonical(wanted.name) for where, wanted in requirements() if where == "dev"}
    for repository in config["repos"]:
        assert repository["repo"] == "local", "no second set of versions"
        for hook in repository["hooks"]:
            program, _, _ = hook["entry"].partition(" ")
            assert program.startswith(".venv/bin/")
            assert program.removeprefix(".venv/bin/") in asked


def test_the_workflow_runs_what_a_person_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert job["strategy"]["matrix"]["python"] == list(PYTHONS)
    assert SETUP["options"]["python_requires"] == ">=3.10,<3.13"
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_forms_for_issues_can_be_read():
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert forms
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= form.keys()
        ids = [field["id"] for field in form["body"]]
        assert len(ids) == len(set(ids))
        for field in form["body"]:
            assert field["type"] in ("textarea", "input", "dropdown", "checkboxes")
            assert field["attributes"]["label"]
