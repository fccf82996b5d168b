"""Image and mask move together, no class is made up, and a seed decides everything."""

from __future__ import annotations

import itertools
import json
import re

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from flexseg_errors import FlexsegError
from pipelines import augment, warps

COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
SIZES = [(128, 128), (96, 144), (131, 70)]
GEOMETRIC = [name for name, kind in augment.STEPS.items() if kind.geometric]
PHOTOMETRIC = [name for name, kind in augment.STEPS.items() if not kind.geometric]


def paint(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A mask with blobs of five classes, its margin background, and the image painted from it."""
    mask = np.zeros(size, np.uint8)
    for k, center in enumerate([(0.3, 0.3), (0.7, 0.35), (0.35, 0.7), (0.68, 0.7), (0.5, 0.5)]):
        y, x = (int(share * side) for share, side in zip(center, size, strict=True))
        radius = min(size) // (6 if k < 4 else 10)
        cv2.circle(mask, (x, y), radius, k % 4 + 1, -1)
    return COLORS[mask], mask


def categorize(image: np.ndarray) -> np.ndarray:
    return ((image[:, :, None].astype(int) - COLORS) ** 2).sum(-1).argmin(-1)


def one_step_plans() -> list[augment.AugmentPlan]:
    variants = [
        {"name": f"{name}-{border}-{interpolation}", "steps": [name], "border": border}
        | {"interpolation": interpolation}
        for name in GEOMETRIC
        for border in warps.BORDERS
        for interpolation in warps.INTERPOLATIONS
    ]
    turned = {"name": "odd", "steps": [{"rotation": {"angle": [-180, 180]}}], "repeat": 5}
    all_at_once = {"name": "all", "steps": GEOMETRIC}
    return [augment.from_dict([*variants, turned, all_at_once])]


def made(plan, image, mask, seed=7, source_id="a/b.c"):
    return list(augment.apply(plan, image, mask, seed, source_id))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["every geometric step", *augment.PRESETS])
def test_an_image_painted_from_its_mask_still_agrees_with_it(name, size):
    plans = one_step_plans() if name not in augment.PRESETS else [augment.load(name)]
    image, mask = paint(size)
    for plan in plans:
        for warped, ids, text in made(plan, image, mask):
            assert warped.shape == image.shape
            assert ids.shape == mask.shape
            assert warped.dtype == ids.dtype == np.uint8
            assert warped.flags.c_contiguous
            assert ids.flags.c_contiguous
            sure = ndimage.minimum_filter(ids, 3) == ndimage.maximum_filter(ids, 3)
            assert sure.mean() > 0.5
            wrong = (categorize(warped) != ids)[sure]
            assert wrong.mean() < 3e-4, text
            assert len(np.unique(ids)) > 3, "the blobs are still in sight"


def masks() -> st.SearchStrategy[np.ndarray]:
    ids = st.sampled_from([0, 1, 2, 7, 254, 255])
    shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
    return shapes.flatmap(lambda shape: arrays.arrays(np.uint8, shape, elements=ids))


@given(masks(), st.integers(0, 2**63), st.sampled_from([1, 3]))
@settings(max_examples=30)
def test_no_class_appears_that_was_not_there(mask, seed, channels):
    image = np.repeat(mask[..., None], channels, -1)
    plans = [*one_step_plans(), augment.load("default"), augment.load("seed-hemorrhages")]
    for plan in plans:
        borders = ["reflect", *(variant.border for variant in plan.variants)]
        for (warped, ids, text), border in zip(made(plan, image, mask, seed), borders, strict=True):
            assert warped.shape == image.shape
            allowed = {*np.unique(mask)} | ({0} if border in ("constant", "corner") else set())
            assert {*np.unique(ids)} <= allowed, text


@pytest.mark.parametrize("name", PHOTOMETRIC)
@pytest.mark.parametrize("channels", [1, 3])
def test_photometric_steps_touch_the_image_alone_and_leave_everything_in_its_place(name, channels):
    mask = paint((60, 90))[1]
    image = np.repeat((60 + 40 * (mask > 0)).astype(np.uint8)[..., None], channels, -1)
    (changed, ids, _) = made(augment.from_dict([name]), image, mask)[1]
    np.testing.assert_array_equal(ids, mask)
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert (changed != image).any()
    likeness = np.corrcoef(changed.ravel(), image.ravel())[0, 1]
    assert abs(likeness) > 0.7
    if name != "noise":
        mirrored, _, _ = made(augment.from_dict([name]), image[:, ::-1], mask[:, ::-1])[1]
        np.testing.assert_array_equal(mirrored, changed[:, ::-1])


def photometric(image: np.ndarray, name: str, **parameters: float) -> np.ndarray:
    plan = augment.from_dict([{name: parameters}])
    return made(plan, image, np.zeros(image.shape[:2], np.uint8))[1][0].astype(int)


@pytest.mark.parametrize("channels", [1, 3])
def test_photometric_steps_follow_their_formulas(channels):
    image = np.random.default_rng(0).integers(0, 256, (40, 30, channels), np.uint8)
    x = image.astype(float)
    kernel = np.full((3, 3, 1), -0.5)
    kernel[1, 1] = 5
    sharp = ndimage.convolve(x, kernel, mode="mirror")
    expected = {
        "sharpen": ({"k": 0.5}, sharp),
        "brighten": ({"alpha": 0.8, "beta": -20.0}, 0.8 * x - 20),
        "contrast": ({"alpha": 1.5, "beta": 40.0}, 1.5 * x + 40),
        "gamma": ({"gamma": 1.7}, 255 * (x / 255) ** 1.7 - 0.5),  # fractions are dropped
        "invert": ({}, 255 - x),
        "blur": ({"sigma": 1.5}, ndimage.gaussian_filter(x, (1.5, 1.5, 0), mode="mirror")),
    }
    for name, (parameters, values) in expected.items():
        found = photometric(image, name, **parameters)
        assert np.abs(found - values.clip(0, 255)).max() <= (1.6 if name == "blur" else 0.51), name
    gray = np.full((100, 100, channels), 128, np.uint8)
    noisy = photometric(gray, "noise", sigma=8.0)
    assert noisy.mean() == pytest.approx(128, abs=0.4)
    assert noisy.std() == pytest.approx(8, rel=0.03)


def test_photometric_steps_come_after_the_warp_in_their_order():
    image, mask = paint((64, 64))
    dark_then_inverted = [{"brighten": {"alpha": 0.5, "beta": 0}}, "hflip", "invert", "vflip"]
    (changed, _, _) = made(augment.from_dict([dark_then_inverted]), image, mask)[1]
    np.testing.assert_array_equal(changed, 255 - np.rint(image[::-1, ::-1] * 0.5).astype(np.uint8))


def test_flips_in_a_chain_cancel_exactly():
    image, mask = paint((31, 44))
    chains = [["hflip", "hflip"], ["hflip", "vflip", {"rotation": {"angle": 180}}]]
    for changed, ids, _ in made(augment.from_dict(chains), image, mask):
        np.testing.assert_array_equal(changed, image)
        np.testing.assert_array_equal(ids, mask)


RANDOM = [
    {"name": "turned", "repeat": 3, "steps": [{"rotation": {"angle": [-15, 15]}}]},
    "elastic",
    "distortion",
    "noise",
    {"gamma": {"gamma": [0.5, 2]}},
]


def as_bytes(examples) -> dict[str, bytes]:
    return {
        augment.variant_name(text): image.tobytes() + mask.tobytes() + text.encode()
        for image, mask, text in examples
    }


@pytest.mark.parametrize("name", ["every geometric step", *PHOTOMETRIC])
def test_a_part_of_a_larger_array_is_augmented_like_a_copy_of_it(name):
    plan = augment.from_dict([name]) if name in PHOTOMETRIC else one_step_plans()[0]
    image, mask = paint((60, 70))
    part, part_mask = image[5:45, 60:8:-1], mask[5:45, 60:8:-1]
    copy = as_bytes(made(plan, part.copy(), part_mask.copy()))
    examples = made(plan, part, part_mask)
    assert as_bytes(examples) == copy
    assert all(a.flags.c_contiguous for example in examples for a in example[:2])


def test_seed_source_and_variant_alone_decide_the_bytes():
    image, mask = paint((50, 60))
    plan = augment.from_dict(RANDOM)
    first = as_bytes(made(plan, image, mask, 1, "x"))
    np.random.seed(0)  # noqa: NPY002 - what others do with the global state does not matter
    assert as_bytes(made(plan, image, mask, 1, "x")) == first
    for other in (made(plan, image, mask, 2, "x"), made(plan, image, mask, 1, "y")):
        found = as_bytes(other)
        assert [n for n in first if found[n] == first[n]] == [""], "only the source stays"
    turned = [image for image, _, text in made(plan, image, mask) if "turned" in text]
    assert len({t.tobytes() for t in turned}) == 3


def test_a_variant_does_not_depend_on_the_others_or_on_their_order():
    image, mask = paint((50, 60))
    whole = as_bytes(made(augment.from_dict(RANDOM), image, mask))
    backwards = as_bytes(made(augment.from_dict(RANDOM[::-1]), image, mask))
    assert backwards == whole
    alone = as_bytes(made(augment.from_dict({"variants": ["elastic"]}), image, mask))
    assert alone == {"": whole[""], "elastic": whole["elastic"]}
    variant = augment.from_dict(RANDOM).variants[-1]
    single = augment.apply_variant(variant, image, mask, 7, "a/b.c")
    assert as_bytes([single]) == {variant.name: whole[variant.name]}


def test_variants_are_made_one_at_a_time(monkeypatch):
    image, mask = paint((20, 20))
    count = []
    real = augment.apply_variant
    monkeypatch.setattr(augment, "apply_variant", lambda *a: count.append(1) or real(*a))
    examples = augment.apply(augment.load("seed-lung"), image, mask, 0, "x")
    assert next(examples)[2] == ""
    assert len(count) == 0
    next(examples)
    assert len(count) == 1
    examples.close()


def test_probabilities_and_ranges_are_kept_to():
    image, mask = paint((8, 8))
    plan = augment.from_dict(
        [
            [{"gamma": {"gamma": [0.5, 2], "probability": 0.25}}],
            {"name": "never", "steps": [{"invert": {"probability": 0}}]},
        ]
    )
    done = []
    for i in range(400):
        _, (_, _, drawn), (never, _, text) = made(plan, image, mask, i)
        np.testing.assert_array_equal(never, image)
        assert text == "never: unchanged"
        if not drawn.endswith("unchanged"):
            done.append(float(re.search(r"gamma=([\d.]+)\)$", drawn)[1]))
    assert 0.18 < len(done) / 400 < 0.32
    assert 0.5 <= min(done) < 0.7
    assert 1.8 < max(done) <= 2


def test_the_text_says_what_was_drawn_so_that_it_can_be_done_again():
    image, mask = paint((40, 50))
    plan = augment.from_dict(
        [{"name": "t", "steps": [{"rotation": {"angle": [-90, 90]}}, {"gamma": {"gamma": [1, 3]}}]}]
    )
    (changed, ids, text) = made(plan, image, mask)[1]
    angle, gamma = map(
        float, re.fullmatch(r"t: rotation\(angle=(.+)\) \+ gamma\(gamma=(.+)\)", text).groups()
    )
    again = augment.from_dict([[{"rotation": {"angle": angle}}, {"gamma": {"gamma": gamma}}]])
    np.testing.assert_array_equal(made(again, image, mask)[1][0], changed)
    np.testing.assert_array_equal(made(again, image, mask)[1][1], ids)
    assert augment.variant_name(text) == "t"
    assert augment.variant_name("") == ""


FLIPS_AND_TURNS = ["hflipped", "vflipped", "rotated_90", "rotated_180", "rotated_270"]
WAVES = ["distorted_0.02_rsigma0.5_sigma40", "distorted_0.03_rsigma0.5_sigma40"]


@pytest.mark.parametrize(
    ("preset", "count", "names"),
    [
        (
            "seed-hemorrhages",
            19,
            [
                *FLIPS_AND_TURNS,
                "deformed_alpha_1300_sigmoid_8.0",
                *WAVES,
                *(f"barrdistorted_{101 + i}_0.3_0.3" for i in range(5)),
                *(f"pincdistorted_{101 + i}_0.3_-0.3" for i in range(5)),
            ],
        ),
        (
            "seed-lung",
            10,
            [
                "deformed_alpha_1300_sigmoid_8",
                "deformed_alpha_1300_sigmoid_10",
                *WAVES,
                *(f"barrdistorted_{1001 + i}_0.3_0.3" for i in range(5)),
            ],
        ),
        (
            "seed-stare",
            14,  # 10,402 files of 743 tiles and reduced images
            [
                *FLIPS_AND_TURNS,
                "deformed_alpha_1300_sigmoid_8",
                *WAVES,
                *(f"barrdistorted_{1001 + i}_0.3_0.3" for i in range(5)),
            ],
        ),
        ("default", 7, [f"default_{i}" for i in range(1, 7)]),
    ],
)
def test_presets_have_their_variants(preset, count, names):
    plan = augment.load(preset)
    assert [variant.name for variant in plan.variants] == names
    assert plan.examples_per_source == count
    image, mask = paint((40, 50))
    examples = made(plan, image, mask)
    assert [augment.variant_name(text) for _, _, text in examples] == ["", *names]
    assert len({image.tobytes() for image, _, _ in examples}) == count


def test_the_discs_of_a_preset_add_up():
    variants = augment.load("seed-lung").variants[-5:]
    centers = [dict(variant.steps[0].values)["centers"] for variant in variants]
    assert [len(c) for c in centers] == [1, 2, 3, 4, 5]
    assert all(longer[: len(c)] == c for c, longer in itertools.pairwise(centers))


@pytest.mark.parametrize("preset", augment.PRESETS)
def test_a_plan_survives_as_plain_data(preset, tmp_path):
    plan = augment.load(preset)
    assert augment.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan.to_dict()))
    assert augment.load(str(path)) == plan
    assert json.loads(json.dumps(plan.to_dict())) == plan.to_dict()


def test_a_plan_is_read_from_yaml(tmp_path):
    path = tmp_path / "augment.yaml"
    path.write_text(
        """
preset: seed-lung
keep_source: false
border: corner
variants:
- hflip
- rotation: {angle: 90}
- rotation: {angle: [-5, 5.5]}
- [hflip, {elastic: }]
- name: turned
  repeat: 2
  border: constant
  fill: [1, 2, 3]
  interpolation: cubic
  steps:
  - rotation: {angle: [-15, 15]}
  - gamma: {gamma: [0.7, 1.4], probability: 0.5}
  - barrel: {centers: [[0.3, 0.7], [0.5, 0.5]]}
"""
    )
    plan = augment.load(str(path))
    assert not plan.keep_source
    lung = augment.load("seed-lung").variants
    assert plan.variants[:9] == lung
    listed = plan.variants[9:]
    assert [v.name for v in listed] == [
        "hflip",
        "rotation_90",
        "rotation_-5to5.5",
        "hflip_elastic",
        "turned_1",
        "turned_2",
    ]
    assert {v.border for v in listed[:4]} == {"corner"}
    turned = listed[4]
    assert (turned.border, turned.fill, turned.interpolation) == ("constant", (1, 2, 3), "cubic")
    assert turned.steps == listed[5].steps
    assert turned.steps[1].probability == 0.5
    assert dict(turned.steps[0].values) == {"angle": (-15.0, 15.0)}
    assert dict(turned.steps[2].values) == {
        "radius": 0.5,
        "amount": 0.5,
        "centers": ((0.3, 0.7), (0.5, 0.5)),
    }
    path.write_text("- hflip\n- elastic\n")
    assert [v.name for v in augment.load(str(path)).variants] == ["hflip", "elastic"]


def test_old_parameters_are_the_defaults():
    defaults = {name: dict(augment.make_step(name).values) for name in augment.STEPS}
    assert defaults["elastic"] == {"alpha": 1300, "sigma": 8}
    assert defaults["distortion"] == {"share": 0.02, "rsigma": 40}
    assert defaults["barrel"] == {"radius": 0.5, "amount": 0.5, "centers": ((0.5, 0.5),)}
    assert defaults["pincushion"] == {"radius": 0.5, "amount": -0.5, "centers": ((0.5, 0.5),)}
    assert defaults["shrink"] == {"factor": 0.8}
    assert defaults["sharpen"] == {"k": 1}
    assert defaults["brighten"] == {"alpha": 1.2, "beta": 10}
    assert defaults["contrast"] == {"alpha": 1.5, "beta": 40}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a list of variants, or a mapping"),
        ("7", "expected a list of variants, or a mapping"),
        ("{}", "expected a list of variants, or a mapping"),
        ("preset: seed-lungs", r'no preset "seed-lungs".*Did you mean "seed-lung"\?'),
        ("preset: [default]", r"there is no preset"),
        ("variant: [hflip]", r'unknown key "variant"; .*Did you mean "variants"\?'),
        ("variants: hflip", "variants must be a list"),
        ("keep_source: 1\nvariants: [hflip]", "keep_source must be true or false, not 1"),
        ("keep_source: false\nvariants: []", "leaves nothing"),
        ("- hflips", r'variant 1: there is no step "hflips"; .*Did you mean "hflip"\?'),
        ("- hflip\n- {rotate: {angle: 3}}", r'variant 2: there is no step "rotate".*"rotation"\?'),
        ("- rotation: {angel: 3}", r'"rotation" has no parameter "angel".*Did you mean "angle"\?'),
        ("- hflip: {angle: 3}", r'step "hflip" has no parameter "angle"; it has probability'),
        ("- rotation: 15", r"given 15; expected its parameters by name, such as rotation: {angle:"),
        ("- hflip: true", r'step "hflip" is given True; expected its parameters by name'),
        ("- rotation: {angle: fast}", r"rotation: angle must be a number from -360 to 360, or a"),
        ("- rotation: {angle: true}", "rotation: angle must be a number"),
        ("- rotation: {angle: .nan}", "rotation: angle must be a number"),
        ("- rotation: {angle: 400}", "rotation: angle must be a number from -360 to 360.*not 400"),
        ("- rotation: {angle: [15, -15]}", r"rotation: angle must be .* not \[15, -15\]"),
        ("- rotation: {angle: [1, 2, 3]}", "rotation: angle must be"),
        ("- shrink: {factor: 0}", "shrink: factor must be a number from 0.1 to 10"),
        ("- pincushion: {amount: 0.5}", "pincushion: amount must be a number from -0.9 to 0"),
        ("- barrel: {centers: [0.5, 0.5]}", "barrel: centers must be a list of points such as"),
        ("- barrel: {centers: []}", "barrel: centers must be a list of points such as"),
        ("- blur: {probability: 1.5}", "blur: probability must be a number from 0 to 1, not 1.5"),
        (
            "- blur: {probability: [0, 1]}",
            r"probability must be a number from 0 to 1, not \[0, 1\]",
        ),
        ("- [hflip, 3]", "variant 1: 3 is not a step; expected a name such as hflip"),
        ("- []", "variant 1: steps must be a list of at least one step"),
        ("- {hflip: , vflip: }", "is not a step; expected a name such as hflip"),
        ("- {name: a}", "variant 1: steps must be a list of at least one step"),
        ("- {steps: [hflip], repeats: 3}", r'unknown key "repeats"; .*Did you mean "repeat"\?'),
        ("- {steps: [elastic], repeat: 0}", "repeat must be a whole number from 1, not 0"),
        ("- {steps: [elastic], repeat: true}", "repeat must be a whole number from 1, not True"),
        ("- {steps: [hflip], repeat: 2}", "repeat: 2 would make 2 equal copies"),
        ("- {steps: [hflip], name: 3}", "name must be text, not 3"),
        ("- {steps: [hflip], name: a/b}", 'name "a/b" is not fit for a file name'),
        ("- {steps: [hflip], name: ''}", 'name "" is not fit for a file name'),
        ("- {steps: [hflip], border: reflec}", r'border "reflec" is unknown.*mean "reflect"\?'),
        ("- {steps: [hflip], border: [reflect]}", r"border .* is unknown"),
        ("- {steps: [hflip], interpolation: nearest}", 'interpolation "nearest" is unknown'),
        ("- {steps: [hflip], fill: 300}", r"fill must be whole numbers 0\.\.255"),
        ("- {steps: [hflip], fill: []}", r"fill must be whole numbers 0\.\.255"),
        ("- hflip\n- HFLIP", 'there is no step "HFLIP"'),
        ("- hflip\n- hflip", 'Several variants are called "hflip"'),
        ("- hflip\n- {name: Hflip, steps: [vflip]}", 'Several variants are called "hflip"'),
        ("preset: seed-stare\nvariants:\n- {name: hflipped, steps: [hflip]}", "Several variants"),
        ("- [hflip", "is not a YAML file"),
        ("- {[a]: 1}", "is not a"),
    ],
)
def test_what_is_not_understood_is_refused_with_a_way_out(text, message, tmp_path):
    path = tmp_path / "augment.yaml"
    path.write_text(text)
    with pytest.raises(FlexsegError, match=message) as caught:
        augment.load(str(path))
    assert str(path) in str(caught.value)


def test_neither_a_file_nor_a_preset():
    with pytest.raises(FlexsegError, match=r'no such file, nor such a preset.*"seed-stare"\?'):
        augment.load("seed-star")


def test_arrays_that_do_not_fit_are_refused():
    image, mask = paint((20, 30))
    plan = augment.from_dict([{"steps": ["hflip"], "border": "constant", "fill": [1, 2]}])
    with pytest.raises(FlexsegError, match=r"fill \[1, 2\] does not fit an image of 3 channels"):
        made(plan, image, mask)
    plan = augment.from_dict(["hflip"])
    for bad_image, bad_mask in (
        (image[..., 0], mask),
        (image[1:], mask),
        (image, mask.astype(int)),
    ):
        with pytest.raises(ValueError, match=r"Expected image uint8 \[H, W, C\]"):
            made(plan, bad_image, bad_mask)
