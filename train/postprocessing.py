"""What is done to predicted class ids: stray components removed, holes filled.

Chosen on validation by `flexseg tune-postprocessing`, kept in a run as postprocessing.yaml and in a
bundle as assets/postprocessing.yaml. It looks at class ids alone: a mask that was written is enough
to do it later.

Removal, classes by ascending id: of each class, components (8-connected) below its minimum size go,
or all but the largest. A component that goes becomes the class that it has the most contacts with,
over pairs of 8-neighbours across its outline; ties go to the lower id. One that fills the image
stays. Then holes are filled: a 4-connected region of background (id 0) that lies within one class
alone, and does not touch the image's edge, becomes that class where it is small enough. To do it
twice is to do it once, and no class appears that was not there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from flexseg_console import say
from flexseg_errors import FlexsegError
from pipelines import storage
from pipelines.label_map import MAX_CLASSES, LabelMap
from train import mending
from train.runs import BEST_WEIGHTS, Run

FILE = "postprocessing.yaml"
CHOICE = "chosen"  # the part of the file that says how it was chosen
WEIGHTS = "weights_sha256"  # of that part: for which weights


@dataclasses.dataclass(frozen=True)
class ClassRule:
    """What is done to one class; the defaults do nothing.

    Sizes are in pixels of the prepared image, which is what the network sees; for an image whose
    size was changed for the network they are scaled by the ratio of areas.

    Attributes:
      id: of the class, 1 or above.
      largest_component: keep the largest component alone; of several as large, the first by rows.
      minimum_size: components of fewer pixels are removed; 0 and 1 remove none.
      fill_holes: holes of at most that many pixels are filled.
    """

    id: int
    largest_component: bool = False
    minimum_size: int = 0
    fill_holes: int = 0

    def __post_init__(self) -> None:
        for name, least in (("id", 1), ("minimum_size", 0), ("fill_holes", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise FlexsegError(
                    f"{FILE}: {name} must be a whole number, at least {least}, not {value!r}."
                )
        if self.id >= MAX_CLASSES or not isinstance(self.largest_component, bool):
            raise FlexsegError(
                f"{FILE}: expected an id below {MAX_CLASSES} and largest_component true or false; "
                f"got {self}."
            )

    @property
    def is_identity(self) -> bool:
        return not (self.largest_component or self.minimum_size > 1 or self.fill_holes)

    def least_size(self, area: float) -> float:
        """Pixels that a component must have to stay, where one of the rule's is `area` of them."""
        return self.minimum_size * area if self.minimum_size > 1 else 0


@dataclasses.dataclass(frozen=True)
class Postprocessing:
    """What is done to predicted class ids.

    Attributes:
      classes: a rule for each class that has one, by ascending id.

    Raises:
      FlexsegError: where a class has two.
    """

    classes: tuple[ClassRule, ...] = ()

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.classes, key=lambda rule: rule.id))
        ids = [rule.id for rule in ordered]
        if len(set(ids)) < len(ids):
            raise FlexsegError(f"{FILE}: the class ids are {ids}; expected each once.")
        object.__setattr__(self, "classes", ordered)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is done."""
        return all(rule.is_identity for rule in self.classes)

    def of(self, class_id: int) -> ClassRule:
        """The rule of a class."""
        return next((r for r in self.classes if r.id == class_id), ClassRule(class_id))

    def with_rule(self, rule: ClassRule) -> Postprocessing:
        """The same with another rule for that class."""
        others = [r for r in self.classes if r.id != rule.id]
        return Postprocessing((*others, *([] if rule.is_identity else [rule])))

    def apply(self, ids: np.ndarray, area: float = 1.0) -> np.ndarray:
        """Removes components and fills holes.

        Args:
          ids: class ids, uint8 [H, W].
          area: of a pixel of the prepared image, in pixels of this one; see `ClassRule`.

        Returns:
          uint8 [H, W]; the argument itself where nothing changes.
        """
        for rule in self.classes:
            ids = mending.removed(ids, rule, area)
        return mending.filled(
            ids, {r.id: r.fill_holes * area for r in self.classes if r.fill_holes}
        )

    def refuse_misfit(self, label_map: LabelMap, origin: str) -> None:
        """Sees to it that every rule's class exists.

        Raises:
          FlexsegError: where it does not.
        """
        unknown = [r.id for r in self.classes if r.id >= label_map.num_classes]
        if unknown:
            raise FlexsegError(
                f"{origin}: there are rules for the class ids {unknown}, but the label map has "
                f"{label_map.num_classes} classes."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML and JSON; `from_dict` is its inverse."""
        return {"classes": [dataclasses.asdict(rule) for rule in self.classes]}

    @classmethod
    def from_dict(cls, data: Any, origin: str = FILE) -> Postprocessing:
        """Reads `{"classes": [{"id", "largest_component", "minimum_size", "fill_holes"}]}`.

        Raises:
          FlexsegError: where it is something else.
        """
        known = [field.name for field in dataclasses.fields(ClassRule)]
        entries = data.get("classes") if isinstance(data, Mapping) else None
        fits = isinstance(entries, list) and set(data) <= {"classes", CHOICE}
        if not fits or not all(
            isinstance(e, Mapping) and "id" in e and set(e) <= set(known) for e in entries or ()
        ):
            raise FlexsegError(
                f"{origin}: expected classes, each with id and any of {', '.join(known[1:])}; "
                f"got {data!r}."
            )
        return cls(tuple(ClassRule(**entry) for entry in entries or ()))


IDENTITY = Postprocessing()


def load(path: str) -> Postprocessing:
    """Reads a postprocessing.yaml; the identity where there is none.

    Raises:
      FlexsegError: where it cannot be read.
    """
    data = _read(path)
    return IDENTITY if data is None else Postprocessing.from_dict(data, path)


def of_run(run: Run) -> Postprocessing:
    """What was chosen for a run; the identity where nothing was.

    Says so where the run was trained on since: what helped other weights may do harm to these.

    Raises:
      FlexsegError: where the file cannot be read or is of other classes.
    """
    path = run.path(FILE)
    data = _read(path)
    if data is None:
        return IDENTITY
    chosen = Postprocessing.from_dict(data, path)
    chosen.refuse_misfit(run.label_map, path)
    how = data.get(CHOICE)
    known = how.get(WEIGHTS) if isinstance(how, Mapping) else None
    if not chosen.is_identity and known and known != weights_sha256(run):
        say(
            f"{path} was chosen for other weights than {run.folder} has now: it was trained on "
            "since. Run flexseg tune-postprocessing again, or delete the file."
        )
    return chosen


def weights_sha256(run: Run) -> str:
    """The checksum of a run's best weights; "" where there are none."""
    path = run.path(BEST_WEIGHTS)
    return storage.sha256(path) if storage.is_file(path) else ""


def _read(path: str) -> Any:
    """What the file holds, as plain data; None where there is none."""
    if not storage.is_file(path):
        return None
    try:
        # A file without content is one, and is refused later.
        return yaml.safe_load(storage.read_bytes(path)) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise FlexsegError(f"{path} is not a YAML file: {error}") from error
