"""Runs and bundles, one or several, as one thing that segments images.

Several make an ensemble: each brings an image to what it knows, and the mean of all their
probabilities counts. Each of them may see the image in several variants (`train.test_time`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from export.predictions import members
from export.predictions.members import Member
from flexseg_errors import FlexsegError
from pipelines import intensity
from pipelines.intensity import Intensity
from pipelines.label_map import LabelMap
from train import class_ids, postprocessing, postprocessing_bands, test_time
from train.class_ids import most_probable
from train.postprocessing import Postprocessing
from train.test_time import Variants

MAPS = ("entropy", "agreement")


@dataclasses.dataclass(frozen=True)
class PredictorOptions:
    """How images are segmented; picklable.

    Attributes:
      tta: "none", "flips" or "d4"; see `test_time.Variants`.
      scales: of the prepared image.
      overlap: of the sliding window's tiles; None, as for the three that follow, for what each
        run's experiment says.
      weights: how tiles are blended.
      batch_size: tiles in one call of the network.
      blend: what is blended, "logits" or "probabilities".
      postprocessing: whether class ids are post-processed as was chosen for the run.
      maps: whether a prediction comes with its maps of `MAPS`.

    Raises:
      FlexsegError: a value is out of its range or a name unknown.
    """

    tta: str = "none"
    scales: tuple[float, ...] = (1.0,)
    overlap: float | int | None = None
    weights: str | None = None
    batch_size: int | None = None
    blend: str | None = None
    postprocessing: bool = True
    maps: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", self.variants.scales)

    @property
    def variants(self) -> Variants:
        return Variants(self.tta, tuple(self.scales))

    @property
    def window(self) -> dict[str, object]:
        """What replaces values of a run's `InferenceConfig`."""
        names = ("overlap", "weights", "batch_size", "blend")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What an image is taken for.

    Attributes:
      class_ids: uint8 [H, W]: the most probable class, post-processed.
      probabilities: float32 [H, W, K], which post-processing leaves alone.
      entropy: float32 [H, W], 0..1: -sum_k p_k log p_k / log K of the probabilities. None where
        maps were not asked for.
      agreement: float32 [H, W], 0..1: the share of voices, which are the variants of the image in
        all members, whose most probable class is that of `class_ids`. None where maps were not
        asked for, or there is one voice alone.
    """

    class_ids: np.ndarray
    probabilities: np.ndarray
    entropy: np.ndarray | None = None
    agreement: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Predictor:
    """What segments images.

    Attributes:
      members: the runs and bundles; classes, channels and intensity are the same for all.
      options: how they segment.
    """

    members: tuple[Member, ...]
    options: PredictorOptions = PredictorOptions()

    @property
    def label_map(self) -> LabelMap:
        return self.members[0].label_map

    @property
    def channels(self) -> int:
        """Of the images it takes, 1 or 3."""
        return self.members[0].channels

    @property
    def intensity(self) -> Intensity:
        """How images of more than 8 bits become 8-bit."""
        return intensity.parse(self.members[0].preparation.intensity)

    @property
    def postprocessing(self) -> Postprocessing:
        """What is done to class ids."""
        if not self.options.postprocessing:
            return postprocessing.IDENTITY
        return self.members[0].postprocessing

    @property
    def voices(self) -> int:
        """How many predictions the mean is of: the variants of an image in all members."""
        return len(self.members) * self.options.variants.count

    def refuse_maps(self, names: Sequence[str]) -> None:
        """Sees to it that these maps can be had.

        Raises:
          FlexsegError: a name is unknown, or agreement is asked of one voice.
        """
        for name in names:
            if name not in MAPS:
                raise FlexsegError(f'--maps: "{name}" is unknown; known are {", ".join(MAPS)}.')
        if "agreement" in names and self.voices < 2:
            raise FlexsegError(
                "--maps=agreement needs several predictions to compare: give several --model, "
                "--tta=flips or d4, or several --scales."
            )

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """An image, uint8 [H, W, C], to the mean of all voices, float32 [H, W, K]."""
        size = image.shape[:2]
        variants = self.options.variants
        total = np.zeros(0)
        for number, member in enumerate(self.members):
            said = test_time.mean(member.slide, member.prepare(image), variants)
            said = test_time.resize(said, size)
            if len(self.members) == 1:
                return said
            total = said.astype(np.float32) if number == 0 else np.add(total, said, out=total)
        return np.multiply(total, np.float32(1 / len(self.members)), out=total)

    def class_ids(self, image: np.ndarray) -> np.ndarray:
        """The class ids alone, uint8 [H, W], as `predict` gives them."""
        only = self.members[0]
        if only.ids is not None and self.voices == 1 and self.options.variants.is_plain:
            return self.finish(only.ids(image))
        if len(self.members) == 1:
            said = test_time.mean(only.slide, only.prepare(image), self.options.variants)
            return self.finish(class_ids.enlarged(said, (image.shape[0], image.shape[1])))
        return self.finish(most_probable(self.probabilities(image)))

    def predict(self, image: np.ndarray) -> Prediction:
        """Segments an image, uint8 [H, W, C]."""
        if not self.options.maps:
            probabilities = self.probabilities(image)
            return Prediction(self.finish(most_probable(probabilities)), probabilities)
        if self.voices == 1:
            probabilities, votes = self.probabilities(image), None
        else:
            probabilities, votes = self._counted(image)
        ids = self.finish(most_probable(probabilities))
        agreement = None
        if votes is not None:
            chosen = np.take_along_axis(votes, ids[..., None], -1)[..., 0]
            agreement = chosen.astype(np.float32) / np.float32(self.voices)
        return Prediction(ids, probabilities, entropy(probabilities), agreement)

    def finish(self, ids: np.ndarray) -> np.ndarray:
        """Post-processes class ids, uint8 [H, W] of the image's own size."""
        return self.postprocessing.apply(ids, self._area(ids.shape))

    def finish_rows(self, ids: postprocessing_bands.Rows) -> None:
        """`finish` in place, of class ids that no memory holds."""
        postprocessing_bands.apply(self.postprocessing, ids, self._area(ids.shape))

    def _area(self, size: Sequence[int]) -> float:
        """Of a pixel of the prepared image, in pixels of an image of that size."""
        prepared = self.members[0].preparation.size_of(size[0], size[1])
        return size[0] * size[1] / (prepared[0] * prepared[1])

    def _counted(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean of all voices, float32 [H, W, K], and how many chose each class, uint16."""
        total = votes = np.zeros(0)
        for said in self._voices(image):
            chosen = most_probable(said)[..., None] == np.arange(said.shape[-1])
            if total.size:
                np.add(total, said, out=total)
                np.add(votes, chosen, out=votes)
            else:
                total, votes = said.astype(np.float32), chosen.astype(np.uint16)
            del said  # before the next is made
        return np.multiply(total, np.float32(1 / self.voices), out=total), votes

    def _voices(self, image: np.ndarray) -> Iterator[np.ndarray]:
        """What each voice says, float32 [H, W, K]."""
        for member in self.members:
            said = test_time.each(member.slide, member.prepare(image), self.options.variants)
            yield from (test_time.resize(p, image.shape[:2]) for p in said)


def load(paths: Sequence[str] | str, options: PredictorOptions = PredictorOptions()) -> Predictor:
    """Loads run directories and bundles.

    Raises:
      FlexsegError: where one is neither, or they cannot be used together.
    """
    paths = [paths] if isinstance(paths, str) else list(paths)
    if not paths:
        raise FlexsegError("--model: expected at least one run or bundle.")
    loaded = tuple(members.load(path, dict(options.window)) for path in paths)
    for member in loaded:
        member.refuse_variants(options.variants)
        _refuse_misfit(loaded[0], member, options)
    return Predictor(loaded, options)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """-sum_k p_k log p_k / log K, from float32 [H, W, K] to [H, W], 0..1."""
    result = np.zeros(probabilities.shape[:-1], np.float32)
    for k in range(probabilities.shape[-1]):  # class by class: no second map of all
        p = probabilities[..., k]
        result -= p * np.log(np.maximum(p, np.finfo(np.float32).tiny))
    return np.clip(result / np.float32(np.log(probabilities.shape[-1])), 0, 1)


def _refuse_misfit(first: Member, other: Member, options: PredictorOptions) -> None:
    """Refuses an ensemble of what does not fit together, naming both."""

    def refuse(what: str, remedy: str) -> None:
        raise FlexsegError(
            f"{first.path} and {other.path} cannot segment together: {what}. {remedy}"
        )

    if first.label_map != other.label_map:
        for a, b in zip(first.label_map.classes, other.label_map.classes, strict=False):
            if a != b:
                refuse(f"their label maps differ ({a} and {b})", "Train them with one label map.")
        refuse(
            f"they have {first.label_map.num_classes} and {other.label_map.num_classes} classes",
            "Train them with one label map.",
        )
    if first.channels != other.channels:
        refuse(f"they take {first.channels} and {other.channels} channels", "Leave one out.")
    if first.preparation.intensity != other.preparation.intensity:
        refuse(
            f"deep images become 8-bit by --intensity={first.preparation.intensity} for one and "
            f"by {other.preparation.intensity} for the other",
            "Prepare their data in one way.",
        )
    if not options.postprocessing:
        return
    remedy = "Give --nopostprocessing, or delete their postprocessing.yaml."
    if first.postprocessing != other.postprocessing:
        refuse("other post-processing was chosen for each", remedy)
    sizes = {(m.preparation.image_size, m.preparation.scale) for m in (first, other)}
    if not first.postprocessing.is_identity and len(sizes) > 1:
        refuse("the sizes of their post-processing are in pixels of different size", remedy)
