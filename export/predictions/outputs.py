"""What is written for each item: chosen once, then carried to whoever segments."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from PIL import ImageColor

from export.volumes.predict_volume import VolumeOutputs
from flexseg_errors import FlexsegError, nearest
from pipelines import masks
from pipelines.label_map import LabelMap

MASK_FORMATS = ("palette", "rgb", "index")
MAPS = ("entropy", "agreement")


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What becomes of every item. Frozen, and plain enough to be sent to workers.

    Attributes:
      folder: where files are written, here or remote.
      model: fingerprint of the model and of how it is applied.
      mask_format: "palette", "rgb" or "index".
      overlay: write NAME.overlay.png.
      opacity: of the mask in overlays, 0..1.
      contour: width of the classes' outlines in overlays, in pixels; 0 draws none.
      probabilities: write NAME.npz.
      maps: of "entropy" and "agreement" what is written as NAME.entropy.png and so on.
      threshold: of two classes, probability from which a pixel is of class 1; None takes the
        more probable class.
      blur: side in pixels, odd, of the Gaussian window that smooths the probabilities; 0 for none.
      bitwise_blending: of two classes, keep of class 1 what the whole image, reduced to the size of
        the network's input, is found to be too.
      colorize: COLOR or COLOR:BACKGROUND in which NAME.colorized.png is painted; "" for none.
      soft: paint it as strongly as the foreground is probable.
      merged: write NAME.merged.png, the sum of image and mask.
      whole_pixels: the largest image that is segmented as a whole, in pixels; 0 leaves that to
        `by_rows`.
      truth_kind: what the masks hold that results are held against; see `masks.parse_kind`.
      volumes: what is written of volumes.
    """

    folder: str
    model: str = ""
    mask_format: str = "palette"
    overlay: bool = False
    opacity: float = 0.5
    contour: int = 0
    probabilities: bool = False
    maps: tuple[str, ...] = ()
    threshold: float | None = None
    blur: int = 0
    bitwise_blending: bool = False
    colorize: str = ""
    soft: bool = False
    merged: bool = False
    whole_pixels: int = 0
    truth_kind: str = "colors"
    volumes: VolumeOutputs = dataclasses.field(default_factory=VolumeOutputs)

    def __post_init__(self) -> None:
        if self.mask_format not in MASK_FORMATS:
            raise FlexsegError(
                f"--mask_format={self.mask_format}: expected one of {', '.join(MASK_FORMATS)}."
                + nearest(self.mask_format, MASK_FORMATS)
            )
        for name in self.maps:
            if name not in MAPS:
                raise FlexsegError(
                    f"--maps={','.join(self.maps)}: expected some of {', '.join(MAPS)}."
                    + nearest(name, MAPS)
                )
        if not 0 <= self.opacity <= 1:
            raise FlexsegError(f"--opacity={self.opacity}: expected 0 to 1.")
        if self.contour < 0:
            raise FlexsegError(f"--contour={self.contour}: expected a width in pixels, 0 for none.")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise FlexsegError(
                f"--threshold={self.threshold}: expected a probability above 0 and up to 1."
            )
        if self.whole_pixels < 0:
            raise FlexsegError(f"--whole_pixels={self.whole_pixels}: expected a number of pixels.")
        if self.blur < 0 or (self.blur and self.blur % 2 == 0):
            raise FlexsegError(
                f"--blur={self.blur}: expected the odd side of a window in pixels, such as 5."
            )
        if self.colorize:
            colors(self.colorize)
        masks.parse_kind(self.truth_kind)

    def check(self, label_map: LabelMap) -> None:
        """Holds what is wanted to the classes of the model.

        Raises:
          FlexsegError: where something is for two classes alone and there are others.
        """
        for flag, wanted in (
            ("threshold", self.threshold is not None),
            ("bitwise_blending", self.bitwise_blending),
        ):
            if wanted and label_map.num_classes != 2:
                raise FlexsegError(
                    f"--{flag} is for a background and one class; the model has "
                    f"{label_map.num_classes}: {', '.join(label_map.names)}."
                )

    @property
    def changes_classes(self) -> bool:
        """Whether class ids come of more than the most probable class."""
        return self.threshold is not None or self.blur > 0 or self.bitwise_blending

    @property
    def needs_probabilities(self) -> bool:
        """Whether class ids alone do not do."""
        return self.probabilities or bool(self.maps) or self.soft or self.changes_classes

    def choices(self) -> dict[str, Any]:
        """What files depend on, as JSON has it. A kind of output that is not written is None."""
        base: dict[str, Any] = {
            "model": self.model,
            "threshold": self.threshold,
            "blur": self.blur,
            "bitwise_blending": self.bitwise_blending,
        }
        kinds: dict[str, Any] = {
            "mask": {"mask_format": self.mask_format},
            "overlay": {"opacity": self.opacity, "contour": self.contour} if self.overlay else None,
            "probabilities": {} if self.probabilities else None,
            **{name: {} if name in self.maps else None for name in MAPS},
            "colorized": {"colorize": self.colorize, "soft": self.soft} if self.colorize else None,
            "merged": {"colorize": self.colorize, "soft": self.soft} if self.merged else None,
        }
        stack = self.volumes
        reading = ("axis", "rotation", "dataset", "intensity")
        base["volumes"] = {name: getattr(stack, name) for name in reading}
        kinds |= {f"volume_{kind}": {} for kind in stack.pictures}
        if stack.film:
            kinds |= {f"{stack.film}_{k}": {"fps": stack.film_fps} for k in stack.film_pictures}
        return {**base, **kinds}

    def kinds(self, item_kind: str) -> dict[str, str]:
        """Kind of output -> fingerprint of all that it depends on, of those that an item gets.

        Args:
          item_kind: "image" or "volume".
        """
        choices = self.choices()
        base = [choices[k] for k in ("model", "threshold", "blur", "bitwise_blending")]
        if item_kind == "volume":  # one kind: all of it is written slice by slice, together
            drawn = [self.mask_format, self.opacity, self.contour, dataclasses.asdict(self.volumes)]
            return {"volume": _fingerprint([base, drawn])}
        return {
            kind: _fingerprint([base, kind, choices[kind]])
            for kind in SUFFIXES
            if choices[kind] is not None
        }


# Kind of output of an image -> suffix of its file.
SUFFIXES = {
    "mask": ".png",
    "overlay": ".overlay.png",
    "probabilities": ".npz",
    "entropy": ".entropy.png",
    "agreement": ".agreement.png",
    "colorized": ".colorized.png",
    "merged": ".merged.png",
}


def colors(text: str) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Reads "green" or "green:navy" as the RGB of foreground and background (else black)."""
    found = []
    for name in (text + ":black").split(":")[:2]:
        try:
            found.append(ImageColor.getrgb(name)[:3])
        except ValueError as error:
            raise FlexsegError(
                f"--colorize={text}: {name!r} is no color; expected COLOR or COLOR:BACKGROUND of "
                "names such as green, or #rrggbb." + nearest(name, list(ImageColor.colormap))
            ) from error
    return found[0], found[1]


def _fingerprint(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
