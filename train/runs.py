"""A run directory: what lies where, and how a trained network is got back out of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from flexseg_errors import FlexsegError
from models import registry
from pipelines import folder_kind, storage
from pipelines import label_map as label_maps
from pipelines.manifest import Manifest
from pipelines.preparation import Preparation
from train import changes
from train import experiment as experiments
from train.console import say
from train.experiment import Experiment

if TYPE_CHECKING:
    import keras

    from train.segment import Segmenter

EXPERIMENT = "experiment.yaml"
LABEL_MAP = "label_map.yaml"
INPUT = "input.yaml"
CHECKPOINTS = "checkpoints"
BEST_WEIGHTS = os.path.join("best", "model.weights.h5")
BEST = os.path.join("best", "best.json")
_FLOAT32 = "float32"


@dataclasses.dataclass(frozen=True)
class Origin:
    """The run whose best weights another one began with; the checksum is of their file."""

    run: str
    weights_sha256: str


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run is, without its weights.

    Attributes:
      folder: the run directory; a path or a URL.
      data: the dataset's folder when it was trained.
      experiment: what it was trained by.
      label_map: its classes.
      channels: of its images.
      size: (height, width) of its training examples, in pixels.
      preparation: what was done to the sources of its dataset.
      dataset_fingerprint: which dataset that was.
      work: the local folder that stands for a remote one in training; "" where there is none.
      init_from: what its weights began with; None where they were drawn.
      writes: whether this process keeps the run; of several workers that train it, one does.
    """

    folder: str
    data: str
    experiment: Experiment
    label_map: label_maps.LabelMap
    channels: int
    size: tuple[int, int]
    preparation: Preparation
    dataset_fingerprint: str
    work: str = ""
    init_from: Origin | None = None
    writes: bool = True

    def path(self, *names: str) -> str:
        return storage.join(self.work or self.folder, *names)

    @property
    def outputs(self) -> int:
        """Logits per pixel."""
        return 1 if self.experiment.model.head == "sigmoid" else self.label_map.num_classes

    def build(self) -> keras.Model:
        """The network with its first weights, in the experiment's precision."""
        model = self.experiment.model
        with precision(self.experiment.train.precision):
            return registry.build(
                model.name,
                config=model.network,
                num_classes=self.outputs,
                channels=self.channels,
                seed=self.experiment.train.seed,
            )

    def load_model(self) -> keras.Model:
        """The network with its best weights, in float32.

        Raises:
          FlexsegError: where the run has no weights yet.
        """
        path = self.path(BEST_WEIGHTS)
        if not storage.is_file(path):
            raise FlexsegError(
                f"The run {self.folder} has no trained weights yet ({BEST_WEIGHTS} is missing); "
                "let `flexseg train` finish an epoch."
            )
        experiment = self.experiment
        network = experiment.model.network
        if hasattr(network, "weights"):  # a backbone's first weights, which are not needed again
            network = dataclasses.replace(network, weights="none")
        plain = dataclasses.replace(
            experiment,
            train=dataclasses.replace(experiment.train, precision=_FLOAT32),
            model=dataclasses.replace(experiment.model, network=network),
        )
        model = dataclasses.replace(self, experiment=plain).build()
        with storage.local_copy(path) as local:
            model.load_weights(local)
        return model

    def segmenter(self, model: keras.Model | None = None) -> Segmenter:
        """What segments whole images with this run's network."""
        from train.segment import Segmenter

        return Segmenter(
            model or self.load_model(), self.size, self.preparation, self.experiment.inference
        )


def plan(folder: str, experiment: Experiment, manifest: Manifest) -> Run:
    """The run that an experiment on a dataset will be; nothing is written.

    Raises:
      FlexsegError: where network and dataset do not fit.
    """
    from models import sliding_window
    from pipelines import batches
    from train import epoch_previews, monitor

    manifest.split("train")
    if manifest.label_map.num_classes < 2:
        raise FlexsegError(
            f"The label map of {manifest.folder} has one class; there is nothing to tell it from. "
            "Prepare the dataset with at least two classes."
        )
    model = experiment.model
    if model.head == "sigmoid" and manifest.label_map.num_classes != 2:
        raise FlexsegError(
            f"model.head=sigmoid is for two classes; {manifest.folder} has "
            f"{manifest.label_map.num_classes}. Use model.head=softmax."
        )
    monitor.refuse_misfit(experiment.train.monitor, manifest)
    if experiment.train.has_preview_folder:
        epoch_previews.find_images(experiment.train.preview_folder, experiment.train.preview_count)
    size = batches.example_size(manifest, experiment.data.crop_size)
    try:
        registry.check_size(size, model.network.size_divisor, model.network.size_minimum)
    except FlexsegError as error:
        raise FlexsegError(
            f"{error} Set data.crop_size or fewer levels, or prepare the dataset with another "
            "--image_size or --tile_size."
        ) from error
    try:
        sliding_window.overlap_pixels(min(size), experiment.inference.overlap)
    except FlexsegError as error:
        raise FlexsegError(f"inference.overlap does not fit examples of {size}: {error}") from error
    data = manifest.folder
    if not storage.is_remote(data):
        data = os.path.abspath(data)
    return Run(
        folder=folder,
        data=data,
        experiment=experiment,
        label_map=manifest.label_map,
        channels=manifest.channels,
        size=size,
        preparation=manifest.preparation,
        dataset_fingerprint=manifest.fingerprint,
    )


def claim(run: Run, *, dry: bool = False) -> None:
    """Makes the folder this run's own, or refuses it.

    Args:
      run: whose folder it shall be.
      dry: refuse alone; write nothing.

    Raises:
      FlexsegError: where it holds something else, or a run of another experiment or dataset.
    """
    folder = run.folder
    if storage.is_file(folder):
        raise FlexsegError(f"--run={folder} is a file; expected a folder.")
    texts, inside = _texts(run), storage.names(folder)
    known = EXPERIMENT in inside
    if not known and not all(_is_begun(folder, name, texts) for name in inside):
        raise FlexsegError(
            f"--run={folder} holds something else ({', '.join(inside[:5])}"
            f"{', ...' if len(inside) > 5 else ''}); nothing was touched. Give a new folder."
        )
    if known:
        there = load(folder)
        allowed, refused = changes.judge(there.experiment, run.experiment)
        if there.dataset_fingerprint != run.dataset_fingerprint:
            refused.append("the dataset is another")
        if there.init_from != run.init_from:
            refused.append(f"init_from: {_shown(there.init_from)}, now {_shown(run.init_from)}")
        if refused:
            raise FlexsegError(
                f"--run={folder} holds a run that differs ({'; '.join(refused)}). Give a new "
                "folder, or what it was begun with."
            )
        if allowed and not dry:
            _write(storage.join(folder, EXPERIMENT), texts[EXPERIMENT])
            say(f"{folder} goes on with changes: {'; '.join(allowed)}.")
        return
    if dry:
        return
    storage.make_folder(folder)
    for name, text in texts.items():
        _write(storage.join(folder, name), text)


def load(folder: str) -> Run:
    """Reads a run directory.

    Raises:
      FlexsegError: where it is none.
    """
    path = storage.join(folder, EXPERIMENT)
    if not storage.is_file(path):
        what = "There is no folder" if not storage.is_folder(folder) else f"No {EXPERIMENT} in"
        hint = folder_kind.hint(folder, folder_kind.RUN)
        raise FlexsegError(f"{what} {folder}: it is not a run of `flexseg train`.{hint}")
    there = storage.is_file(storage.join(folder, INPUT))
    if not there and (hint := folder_kind.hint(folder, folder_kind.RUN)):  # as of flexseg demo
        raise FlexsegError(f"{folder} is not a run of `flexseg train`.{hint}")
    try:
        seen: dict[str, Any] = _read(folder, INPUT)
        height, width = seen["size"]
        return Run(
            folder=folder,
            data=seen["data"],
            experiment=experiments.from_dict(_read(folder, EXPERIMENT) or {}, path),
            label_map=label_maps.from_dict(_read(folder, LABEL_MAP), LABEL_MAP),
            channels=seen["channels"],
            size=(height, width),
            preparation=Preparation.from_dict(seen["preparation"]),
            dataset_fingerprint=seen["dataset_fingerprint"],
            init_from=Origin(**seen["init_from"]) if seen.get("init_from") else None,
        )
    except (KeyError, TypeError) as error:
        raise FlexsegError(f"The run {folder} is damaged: {INPUT}: {error}") from error


def _read(folder: str, name: str) -> Any:
    """What a YAML file of a run holds."""
    try:
        return yaml.safe_load(storage.read_bytes(storage.join(folder, name)))
    except (OSError, yaml.YAMLError) as error:
        raise FlexsegError(f"The run {folder} is damaged: {name}: {error}") from error


def _texts(run: Run) -> dict[str, str]:
    """A run's first files by name, in the order in which they are written."""
    seen: dict[str, Any] = {
        "data": run.data,
        "channels": run.channels,
        "size": list(run.size),
        "preparation": json.loads(json.dumps(dataclasses.asdict(run.preparation))),
        "dataset_fingerprint": run.dataset_fingerprint,
    }
    if run.init_from:
        seen["init_from"] = dataclasses.asdict(run.init_from)
    return {
        LABEL_MAP: label_maps.dump(run.label_map),
        INPUT: yaml.safe_dump(seen, sort_keys=False),
        EXPERIMENT: experiments.dump(run.experiment),  # last: it makes the folder a run
    }


def _shown(origin: Origin | None) -> str:
    return f"{origin.run} ({origin.weights_sha256[:8]})" if origin else "none"


def _is_begun(folder: str, name: str, texts: dict[str, str]) -> bool:
    """Whether a file is what this run would leave if it were killed before it is a run."""
    if name.removesuffix(".tmp") not in texts:
        return False
    if name.endswith(".tmp"):
        return True
    return storage.read_bytes(storage.join(folder, name)) == texts[name].encode()


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Sets Keras' dtype policy for what is built inside, and puts the old one back."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _write(path: str, text: str) -> None:
    if storage.is_remote(path):
        storage.write_whole(path, text.encode())
        return
    temporary = f"{path}.tmp"  # a name that `_is_begun` knows
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
