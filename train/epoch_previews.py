"""What the network makes of a fixed set of images, drawn after each epoch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from flexseg_errors import FlexsegError
from pipelines import intensity, preparation, readers, storage
from pipelines.label_map import IGNORE_ID
from pipelines.manifest import Manifest
from pipelines.preprocessing import Preprocessing
from train import film, previews
from train.runs import Run

if TYPE_CHECKING:
    import keras

_CANDIDATES = 16  # examples of which the one with the most foreground is shown


# ---- Examples of the valid split -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Sample:
    """An example of the valid split: image uint8 [H, W, C], class ids uint8 [H, W]."""

    image: np.ndarray
    truth: np.ndarray


def choose_samples(
    manifest: Manifest, count: int, crop_size: tuple[int, int] | None
) -> list[Sample]:
    """The same examples of the valid split in every run: of each few the one with most foreground.

    Args:
      manifest: of the dataset.
      count: how many at most.
      crop_size: of the experiment.
    """
    from pipelines import batches

    width = min(_CANDIDATES, max(1, manifest.split("valid").examples // count))
    dataset = batches.evaluation(manifest, "valid", 1, crop_size).take(width * count)
    chosen: dict[int, tuple[int, Sample]] = {}
    for i, batch in enumerate(dataset.as_numpy_iterator()):
        image, truth = batch["image"][0], batch["mask"][0]
        if (truth == IGNORE_ID).all():
            continue  # nothing but the padding of a batch or a crop
        foreground = int(((truth > 0) & (truth != IGNORE_ID)).sum())
        best = chosen.get(i // width)
        if best is None or foreground > best[0]:
            chosen[i // width] = foreground, Sample(image, truth)
    return [sample for _, sample in chosen.values()]


def draw_samples(run: Run, model: keras.Model, samples: list[Sample]) -> np.ndarray:
    """A sheet of image, truth, prediction and error of each sample, uint8 [h, w, 3]."""
    from train import metrics
    from train.deep_supervision import main_logits

    found = [
        metrics.predicted_ids(main_logits(model(sample.image[None], training=False))).numpy()[0]
        for sample in samples
    ]
    return previews.sheet(
        [sample.image for sample in samples],
        [(s.truth, ids.astype(np.uint8)) for s, ids in zip(samples, found, strict=True)],
        run.label_map,
        with_errors=True,
    )


# ---- Images of a folder --------------------------------------------------------------------------


def find_images(folder: str, count: int) -> dict[str, str]:
    """The first images of a folder by name: stem -> path.

    Raises:
      FlexsegError: where there is none, or two of one stem, which would get one mask.
    """
    names = [name for name in sorted(storage.names(folder)) if readers.is_image(name)]
    if not names:
        what = "no images in it" if storage.is_folder(folder) else "no such folder"
        raise FlexsegError(
            f"train.preview_folder={folder}: there is {what}. Give a folder with images directly "
            f"in it ({' '.join(readers.SUFFIXES)}), or leave the key out."
        )
    found: dict[str, str] = {}
    for name in names[:count]:
        stem, path = readers.stem(name), storage.join(folder, name)
        if stem in found:
            raise FlexsegError(
                f"train.preview_folder={folder}: {found[stem]} and {path} would get the same "
                "mask; rename one."
            )
        found[stem] = path
    return found


class FolderPreviews:
    """Segments the images of a folder with a network that is being trained."""

    def __init__(self, run: Run, model: keras.Model):
        """Builds what segments.

        Raises:
          FlexsegError: where there are no images.
        """
        config = run.experiment.train
        self._run = run
        self.images = find_images(config.preview_folder, config.preview_count)
        self._segment: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        self._small: dict[str, np.ndarray] = {}  # images, as strips show them
        if config.preview_mode in ("whole", "both"):
            shrunk = dataclasses.replace(run.preparation, image_size=run.size, scale=1.0)
            self._segment[film.WHOLE] = _segmenter(run, model, shrunk)
        if config.preview_mode in ("tiled", "both"):
            self._segment[film.TILED] = _segmenter(run, model, run.preparation)

    def write(self, epoch: int) -> None:
        """Writes the masks of all images in the label map's colours, at the images' sizes."""
        for stem in self.images:
            image = self._read(stem)
            if stem not in self._small:
                self._small[stem] = film.shrink(image)
            for folder, segment in self._segment.items():
                os.makedirs(self._run.path(folder), exist_ok=True)
                path = self._run.path(folder, film.mask_name(epoch, stem))
                previews.write_mask(path, segment(image), self._run.label_map)

    def strips(self, films: film.Film, epoch: int) -> Iterator[tuple[str, np.ndarray]]:
        """The name of each folder that masks were written to, and its strip up to an epoch."""
        for folder in self._segment:
            picture = films.of_masks(folder, self._small, epoch)
            if picture is not None:
                yield folder, picture

    def _read(self, stem: str) -> np.ndarray:
        """Reads an image as the network takes it, uint8 [H, W, C]."""
        with storage.local_copy(self.images[stem]) as local:
            mapping = intensity.parse(self._run.preparation.intensity)
            return readers.read_image(local, self._run.channels, mapping)


def _segmenter(
    run: Run, model: keras.Model, prepared: preparation.Preparation
) -> Callable[[np.ndarray], np.ndarray]:
    """What makes class ids uint8 [H, W] of an image uint8 [H, W, C] of any size."""
    from train.segment import Segmenter

    first = Preprocessing.from_text(prepared.preprocessing)
    if first.color:  # OpenCV's conversions have no equal in the graph; do it all before
        prepared = dataclasses.replace(prepared, preprocessing="")
    else:
        first = Preprocessing()
    segmenter = Segmenter(model, run.size, prepared, run.experiment.inference)

    def segment(image: np.ndarray) -> np.ndarray:
        found = segmenter.probabilities(first.image(image)).numpy()
        return found.argmax(-1).astype(np.uint8)

    return segment
