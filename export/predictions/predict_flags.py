"""The flags of `flexseg predict`, and what they say."""

from __future__ import annotations

from absl import flags

from export.predictions.outputs import Outputs
from export.predictions.predictors import PredictorOptions
from export.volumes import predict_volume
from flexseg_errors import FlexsegError, UsageError, nearest
from train import test_time

WEIGHTS = ("gaussian", "uniform", "margin")
BLENDS = ("probabilities", "logits")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags, but for those of volumes."""

    def string(name: str, text: str, default: str | None = None) -> None:
        flags.DEFINE_string(name, default, text, flag_values=values)

    def switch(name: str, text: str, default: bool = False) -> None:
        flags.DEFINE_bool(name, default, text, flag_values=values)

    def whole(name: str, text: str, default: int | None = None) -> None:
        flags.DEFINE_integer(name, default, text, flag_values=values)

    string(
        "model",
        "Run of flexseg train, bundle of flexseg export or a file in one; several are an ensemble. "
        "Required.",
    )
    string(
        "images", "Folder of images and volumes (with all folders below), or one of them. Required."
    )
    string("output", "Folder for the masks; made if it is not there. Required.")
    switch("overwrite", "Make anew what is there already.")

    string(
        "mask_format",
        "Of the masks. palette: class ids with the label map's colors as palette. rgb: the colors. "
        "index: class ids as gray values.",
        "palette",
    )
    switch("overlay", "Also write NAME.overlay.png: the mask over the image.")
    flags.DEFINE_float(
        "opacity", 0.5, "Of the mask in overlays, a share from 0 to 1.", flag_values=values
    )
    whole(
        "contour",
        "Width of the classes' outlines in overlays, drawn inside, in pixels. 0: none.",
        0,
    )
    switch("probabilities", "Also write NAME.npz: float16 [H, W, classes], key probabilities.")
    flags.DEFINE_list(
        "maps",
        [],
        "Also write NAME.KIND.png, gray, of which 255 is 1, for these kinds. entropy: of the "
        "probabilities, over its largest. agreement: share of the models, symmetries and scales "
        "that chose the class. Default: none.",
        flag_values=values,
    )
    string(
        "colorize",
        "Also write NAME.colorized.png: the foreground in COLOR or COLOR:BACKGROUND, names "
        "such as green, or #rrggbb. Default: no such file.",
    )
    switch("soft", "Paint --colorize and --merged as strongly as the foreground is probable.")
    switch(
        "merged",
        "Also write NAME.merged.png: the sum of the image and of the mask, in --colorize's color "
        "or those of the classes; at most 255.",
    )
    string(
        "table",
        "CSV file with a line for each image: size, pixels, objects of each class. Default: none.",
    )

    string(
        "truth",
        "Folder of masks (or one mask) to hold the results against, paired by stem. Default: none.",
    )
    string(
        "mask_kind",
        "What --truth holds: colors, index, or binary:THRESHOLD; see prepare.",
        "colors",
    )

    test_time.define_flags(values)
    string(
        "weights",
        f"How tiles are blended: {', '.join(WEIGHTS)} (not at all: what overlaps is context alone, "
        "and cut off). Default: as the run says.",
    )
    string("blend", "What is blended: probabilities or logits. Default: as the run says.")
    string(
        "overlap",
        "What neighbouring tiles share: below 1 a share of the tile, from 1 on pixels. Default: as "
        "the run says.",
    )
    whole("batch_size", "Tiles in one call of the network. Default: as the run says.")
    whole(
        "whole_pixels",
        "The largest image that is segmented as a whole, in pixels. Larger ones go row by row, in "
        "memory that does not grow with them, which makes masks and --probabilities alone. "
        "Default: 36 million, and 250 million where something else is asked for.",
        0,
    )
    switch("postprocessing", "Clean class ids as tune-postprocessing chose, if it did.", True)
    flags.DEFINE_float(
        "threshold",
        None,
        "Of two classes: probability from which a pixel is of class 1. Default: the more probable.",
        flag_values=values,
    )
    whole("blur", "Smooth probabilities by a Gaussian window of so many pixels (odd). 0: not.", 0)
    switch(
        "bitwise_blending",
        "Of two classes: keep of class 1 what is also found on the whole image, reduced to the "
        "network's input.",
    )


def outputs_of(values: flags.FlagValues, model: str) -> Outputs:
    """What the flags say is to be written.

    Args:
      values: the flags.
      model: fingerprint of the model and of how it is applied.

    Raises:
      FlexsegError: a value makes no sense.
      UsageError: a flag needs another.
    """
    outputs = Outputs(
        folder=values.output,
        model=model,
        mask_format=values.mask_format,
        overlay=values.overlay,
        opacity=values.opacity,
        contour=values.contour,
        probabilities=values.probabilities,
        maps=tuple(sorted(set(values.maps), key=values.maps.index)),
        threshold=values.threshold,
        blur=values.blur,
        bitwise_blending=values.bitwise_blending,
        colorize=values.colorize or "",
        soft=values.soft,
        merged=values.merged,
        whole_pixels=values.whole_pixels,
        truth_kind=values.mask_kind,
        volumes=predict_volume.volume_outputs(values),
    )
    painted = values.overlay or values.volume_pictures or values.film
    for name in ("opacity", "contour"):
        if values[name].present and not painted:
            raise UsageError(f"--{name} is for overlays; give --overlay too.")
    if values.soft and not (values.colorize or values.merged):
        raise UsageError("--soft says how --colorize or --merged is painted; give one of them.")
    if values["mask_kind"].present and not values.truth:
        raise UsageError("--mask_kind says how the masks of --truth are read; give --truth too.")
    return outputs


def predictor_options(values: flags.FlagValues) -> PredictorOptions:
    """What the flags say on how the model is applied.

    Raises:
      FlexsegError: a value makes no sense.
    """
    for name, known in (("weights", WEIGHTS), ("blend", BLENDS)):
        value = values[name].value
        if value is not None and value not in known:
            raise FlexsegError(
                f"--{name}={value}: expected one of {', '.join(known)}.{nearest(value, known)}"
            )
    if values.batch_size is not None and values.batch_size < 1:
        raise FlexsegError(f"--batch_size={values.batch_size}: expected at least 1.")
    return PredictorOptions(
        tta=values.tta,
        scales=test_time.parse_scales(values.scales),
        overlap=_overlap(values.overlap),
        weights=values.weights,
        blend=values.blend,
        batch_size=values.batch_size,
        postprocessing=values.postprocessing,
        maps=bool(values.maps),
    )


def _overlap(text: str | None) -> float | int | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if number >= 0 and (number < 1 or number.is_integer()):
        return int(number) if number >= 1 else number
    raise FlexsegError(
        f"--overlap={text}: expected a share of a tile, 0 to below 1, or whole pixels from 1."
    )
