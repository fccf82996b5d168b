"""The old generator's augmentation -> a plan that `flexseg prepare --augment` reads."""

from __future__ import annotations

from typing import Any

from flexseg_errors import FlexsegError
from pipelines import augment
from train.old_config.tables import TABLES
from train.old_config.values import Values

SECTIONS = (
    "augmentor",
    "deformation",
    "distortion",
    "barrdistortion",
    "pincdistortion",
    "sharpening",
    "brightening",
)
_PLACE = "augmentation"


def convert(values: Values) -> tuple[dict[str, Any] | None, bool]:
    """The plan of the variants that the old generator made of a source.

    The generator put a source and all its variants into a pool and drew batches from it. A dataset
    that holds all of them, shuffled, is the same pool, and holds the warps that online augmentation
    does not have; so the plan is an offline one.

    Returns:
      The plan in its YAML form, or None where the config says nothing of augmentation; and whether
      the old program trained with it.
    """
    used = values.get("model", "generator") and values.get("generator", "augmentation")
    said = [key for key in values.file.entries if key[0] in SECTIONS]
    if not used and not said:
        return None, False
    plan = {"keep_source": True, "variants": _accepted(values, _variants(values))}
    if used:
        values.note(
            _PLACE,
            "[model] generator = True drew its batches from a pool of sources and "
            "these variants. A dataset that holds them all is that pool, and has the warps "
            "that online augmentation lacks: so this is for flexseg prepare "
            "--augment, and the experiment augments nothing.",
        )
        values.note(
            _PLACE, "The old generator augmented the valid split as well; here it stays as it is."
        )
    else:
        reason = "[model] generator is not True"
        if values.get("model", "generator"):
            reason = "[generator] augmentation is not True"
        values.note(
            _PLACE, f"The old program did not use this: {reason}. The commands leave it out."
        )
    return plan, bool(used)


def _variants(values: Values) -> list[dict[str, Any]]:
    """Variants in the order of the old generator, under the old names."""
    asked = {key for section, key in TABLES[values.dialect] if section == "augmentor"}
    on = {key: values.get("augmentor", key) for key in sorted(asked)}
    found: list[dict[str, Any]] = []
    if on["hflip"]:
        found.append(_variant("hflipped", None, "hflip"))
    if on["vflip"]:
        found.append(_variant("vflipped", None, "vflip"))
    if on["rotation"]:
        for angle in on["angles"]:
            found.append(_variant(f"rotated_{angle}", "corner", {"rotation": {"angle": angle}}))
    for factor in on["shrinks"]:
        found.append(_variant(f"shrinked_{factor}", "corner", {"shrink": {"factor": factor}}))
    for factor in on["shears"]:
        shear = {"shear": {"factor": factor}}
        flips = [["hflip"] * on["hflip"], ["vflip"] * on["vflip"]]
        chains = [[], *(f for f in flips if f), *([["hflip", "vflip"]] if all(flips) else [])]
        for chain in chains:
            prefix = "".join(flip[0] for flip in chain) + "flipped_" if chain else ""
            found.append(_variant(f"{prefix}sheared_{factor}", "corner", shear, *chain))
    if on["deformation"]:
        found += _elastic(values, on["brightening"])
    if on["distortion"]:
        found += _waves(values)
    for section, kind in (("barrdistortion", "barrel"), ("pincdistortion", "pincushion")):
        if on[section]:
            found += _discs(values, section, kind)
    if on["sharpening"]:
        k = values.get("sharpening", "k")
        found.append(_variant(f"sharpened_{k}", None, {"sharpen": {"k": k}}))
    if on["brightening"]:
        alpha, beta = (values.get("brightening", key) for key in ("alpha", "beta"))
        step = {"brighten": {"alpha": alpha, "beta": beta}}
        found.append(_variant(f"brightened_{alpha}_{beta}", None, step))
    if on["sharpening"] or on["brightening"]:
        values.note(
            _PLACE,
            "The old generator sharpened and brightened masks as well, which made "
            "other classes of them; here masks stay.",
        )
    return found


def _variant(name: str, border: str | None, *steps: Any) -> dict[str, Any]:
    placed = {"border": border} if border else {}
    return {"name": name, **placed, "steps": list(steps)}


def _elastic(values: Values, brightens: bool) -> list[dict[str, Any]]:
    alpha, sigmas = values.get("deformation", "alpah"), values.get("deformation", "sigmoids")
    if sigmas is None:
        sigmas = [values.get("deformation", "sigmoid")]
    elif values.given("deformation", "sigmoid"):
        values.note_on("deformation", "sigmoid", "had no effect: sigmoids took its place.")
    if brightens:
        overwritten = values.get("brightening", "alpha")
        values.note(
            _PLACE,
            f"[augmentor] brightening overwrote the deformation's alpha: it worked "
            f"with {overwritten}, not {alpha}, and moved next to nothing. It does so here, "
            f"too; write alpha: {alpha} to have what was meant.",
        )
        alpha = overwritten
    return [
        _variant(
            f"deformed_alpha_{alpha}_sigmoid_{sigma}",
            "replicate",
            {"elastic": {"alpha": alpha, "sigma": sigma}},
        )
        for sigma in sigmas
    ]


def _waves(values: Values) -> list[dict[str, Any]]:
    sigma = values.get("distortion", "gaussian_filter_sigma")
    rsigma = values.get("distortion", "gaussian_filter_rsigma")
    return [
        _variant(
            f"distorted_{share}_rsigma{sigma}_sigma{rsigma}",  # exchanged, as in the old names
            "constant",
            {"distortion": {"share": share, "rsigma": rsigma}},
        )
        for share in values.get("distortion", "distortions")
    ]


def _discs(values: Values, section: str, kind: str) -> list[dict[str, Any]]:
    """A variant for each centre, distorted about this and all before it."""
    radius, amount = values.get(section, "radius"), values.get(section, "amount")
    centers = values.get(section, "centers")
    return [
        _variant(
            f"{section.removesuffix('ion')}ed_{1001 + i}_{radius}_{amount}",
            "constant",
            {kind: {"radius": radius, "amount": amount, "centers": _plain(centers[: i + 1])}},
        )
        for i in range(len(centers))
    ]


def _plain(points: list[tuple[float, float]]) -> list[list[float]]:
    """Lists of their own, so that YAML does not write references."""
    return [list(point) for point in points]


def _accepted(values: Values, variants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that a plan takes; the rest is noted."""
    taken: list[dict[str, Any]] = []
    for variant in variants:
        try:
            augment.from_dict({"variants": [*taken, variant]}, "")
        except FlexsegError as error:
            values.note(_PLACE, f"{variant['name']} is left out: {str(error).removeprefix(': ')}")
        else:
            taken.append(variant)
    return taken
