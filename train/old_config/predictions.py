"""What an older project's config says of predictions -> flags of `flexseg predict`."""

from __future__ import annotations

from PIL import ImageColor

from train.old_config.values import Values

# OpenCV turns clockwise, --volume_rotation counter-clockwise.
_ROTATIONS = {
    "cv2.ROTATE_90_CLOCKWISE": 270,
    "cv2.ROTATE_180": 180,
    "cv2.ROTATE_90_COUNTERCLOCKWISE": 90,
}
_AXES = {"hwd": 2, "dhw": 0}
_FILMS = {".mp4": "mp4", ".gif": "gif"}
_PICTURES = ("slices", "masks", "overlays")
_GIF_FPS = 2  # the old program showed each picture of a GIF for half a second
_FASTEST = 100  # frames a second, of --film_fps
_KEYS = (
    "slice_shape_order",
    "slice_normalize",
    "slice_rotation",
    "video_fps",
    "video_type",
    "video_fileformat",
)


def margin(values: Values) -> list[str]:
    """The flags of tiled predictions: tiles that saw a margin, which was cut off."""
    return ["--weights=margin"] if values.get("tiledinfer", "overlapping") > 0 else []


def painted(values: Values, section: str) -> list[str]:
    """The flags of [infer] or [tiledinfer] of the projects whose masks were painted probabilities.

    Args:
      values: the config.
      section: "infer" or "tiledinfer".
    """
    hard, flags = False, list[str]()
    if section == "tiledinfer":
        hard, flags = _tiled(values)
    elif values.get("infer", "blur"):
        flags = _blur(values)
    elif values.given("infer", "ksize"):
        values.note_on("infer", "ksize", "had no effect: [infer] blur is not True.")
    flags += [f"--colorize={_color(values)}"] + ["--soft"] * (not hard)
    if values.get(section, "merged_dir"):
        values.note_on(
            section,
            "merged_dir",
            "is not needed: what is merged lies beside the masks, as NAME.merged.png. The old sum "
            "of image and mask began again at 0 above 255; here it ends there.",
        )
        flags.append("--merged")
    return flags


def volumes(values: Values) -> list[str]:
    """The flags of [infer3d] and of its films."""
    get = {key: values.get("infer3d", key) for key in _KEYS}
    order = get["slice_shape_order"]
    if order not in _AXES:
        _impossible(values, "slice_shape_order", "hwd")
    flags = [f"--volume_axis={_AXES.get(order, _AXES['hwd'])}"]
    rotation = get["slice_rotation"]
    if rotation is not None and rotation not in _ROTATIONS:
        _impossible(values, "slice_rotation", "no rotation")
    flags.append(f"--volume_rotation={_ROTATIONS.get(rotation, 0)}")
    flags.append(f"--intensity={'minmax-slice' if get['slice_normalize'] else 'none'}")
    flags.append(f"--volume_pictures={','.join(_PICTURES)}")
    if get["video_fileformat"] not in _FILMS:
        _impossible(values, "video_fileformat", ".mp4")
    film = _FILMS.get(get["video_fileformat"], "mp4")
    if get["video_type"] not in _PICTURES:
        _impossible(values, "video_type", "overlays")
    kind = get["video_type"] if get["video_type"] in _PICTURES else "overlays"
    rate = get["video_fps"]
    if film == "gif":
        if values.given("infer3d", "video_fps"):
            text = "had no effect: a GIF's pictures were shown for half a second each."
            values.note_on("infer3d", "video_fps", text)
        rate = _GIF_FPS
    elif not 0 < rate <= _FASTEST:
        _impossible(values, "video_fps", "10")
        rate = 10
    return [*flags, f"--film={film}", f"--film_pictures={kind}", f"--film_fps={rate:g}"]


def _tiled(values: Values) -> tuple[bool, list[str]]:
    """Whether masks were cut at a threshold, and the flags for that."""
    flags = margin(values)
    binarize, blending = (values.get("tiledinfer", k) for k in ("binarize", "bitwise_blending"))
    if blending and values.get("model", "num_classes") == 1:
        flags.append("--bitwise_blending")
    threshold = values.get("tiledinfer", "threshold")
    if not (binarize or blending):
        if values.given("tiledinfer", "threshold"):
            text = "had no effect: neither binarize nor bitwise_blending is True."
            values.note_on("tiledinfer", "threshold", text)
        return False, flags
    if binarize or threshold != 127:  # which is half, as far as gray values tell
        if 0 < threshold <= 255:
            flags.append(f"--threshold={round(threshold / 255, 4):g}")
        else:
            values.note_on("tiledinfer", "threshold", "could not have worked: it is no gray value.")
    return True, flags


def _blur(values: Values) -> list[str]:
    height, width = values.get("infer", "ksize")
    side = max(height, width)
    if height != width or side < 1 or side % 2 == 0:
        side = max(1, side // 2 * 2 + 1)
        values.note_on("infer", "ksize", f"has no counterpart: a square of {side} pixels is taken.")
    return [f"--blur={side}"]


def _color(values: Values) -> str:
    """The value of --colorize; white where the config says nothing."""
    if not values.get("segmentation", "colorize"):
        return "white"
    names = []
    for key, default in (("white", "white"), ("black", "black")):
        name = values.get("segmentation", key)
        try:
            ImageColor.getrgb(name)
        except ValueError:  # `labels` notes it
            name = default
        names.append(name)
    return names[0] if names[1] == "black" else ":".join(names)


def _impossible(values: Values, key: str, instead: str) -> None:
    values.note_on("infer3d", key, f"could not have worked; {instead} is taken.")
