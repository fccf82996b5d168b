"""Every plan is an experiment that fits its dataset and its memory; no pixel is needed for it."""

import dataclasses
import itertools
import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flexseg_errors import FlexsegError
from models import registry
from pipelines import folds, label_map
from pipelines.manifest import Manifest, Shard, Split
from pipelines.preparation import Preparation
from train import device as devices
from train import experiment as experiments
from train import memory, plan_experiment, plan_size, planner
from train.device import Device

GB = 1 << 30
CPU = Device("cpu", "CPU, 2 cores", 12 * GB, "mixed_bfloat16", "it is one")
GPU = Device("gpu", "GPU", 24 * GB, "mixed_bfloat16", "it is one")


def split(
    sizes=((64, 64),),
    shares=(0.9, 0.1),
    *,
    each=10,
    groups=10,
    channels=3,
    holding=None,
    sources=None,
):
    """A split with `each` records of every size, whose pixels are divided as `shares`."""
    examples = each * len(sizes)
    pixels = each * sum(h * w for h, w in sizes)
    holding = holding or [examples if share else 0 for share in shares]
    return Split(
        examples=examples,
        sources=sources or examples,
        groups=groups,
        pixels=pixels,
        class_pixels=tuple(round(pixels * share) for share in shares),
        class_examples=tuple(holding),
        class_sources=tuple(holding),
        channel_mean=(100.0, 90.0, 80.0)[:channels],
        channel_std=(50.0, 45.0, 40.0)[:channels],
        min_size=(min(h for h, _ in sizes), min(w for _, w in sizes)),
        max_size=(max(h for h, _ in sizes), max(w for _, w in sizes)),
        unmatched_pixels=0,
        shards=(Shard("train-00000-of-00001.tfrecord", examples, 1000, ""),),
    )


def manifest(train, *, channels=3, names=None, **splits):
    """A manifest of nothing on disk."""
    count = len(train.class_pixels)
    names = names or ["background", *(f"class_{i}" for i in range(1, count))]
    classes = {
        "classes": [{"id": i, "name": n, "color": [i, i, i]} for i, n in enumerate(names)],
    }
    return Manifest(
        folder="somewhere/records",
        label_map=label_map.from_dict(classes),
        channels=channels,
        preparation=Preparation(),
        options={"tile_size": 0},
        fingerprint="f",
        rejected=0,
        splits={"train": train, **splits},
    )


def planned(train, device=CPU, **keywords):
    return planner.plan(manifest(train, **keywords), device)


sides = st.integers(8, 3000)
splits = st.builds(
    lambda sizes, rare, each, groups: split(
        sizes, (0.9 - rare, 0.1, rare), each=each, groups=min(groups, each * len(sizes))
    ),
    st.lists(st.tuples(sides, sides), min_size=1, max_size=3, unique=True),
    st.sampled_from([0.0, 1e-6, 1e-4, 0.01, 0.2]),
    st.integers(1, 5000),
    st.integers(1, 3000),
)
boxes = st.builds(
    lambda device, gigabytes: dataclasses.replace(device, memory=int(gigabytes * GB)),
    st.sampled_from([CPU, GPU]),
    st.floats(1.6, 100),
)


@settings(max_examples=40)
@given(train=splits, device=boxes)
def test_every_plan_is_an_experiment_that_fits_dataset_and_memory(train, device):
    whole = manifest(train, valid=split(((64, 64),), (0.9, 0.1, 0.0)))
    plan = planner.plan(whole, device)
    text, notes = plan_experiment.propose(whole, device)
    experiment = plan.experiment()
    assert experiment == loaded(text), "YAML and plan say the same"
    network, crop = experiment.model.network, plan.sizing.crop
    registry.check_size(crop, network.size_divisor, network.size_minimum)
    if experiment.data.crop_size is None:
        assert {s.min_size for s in whole.splits.values()} == {crop}
        assert {s.max_size for s in whole.splits.values()} == {crop}
    else:
        assert experiment.data.crop_size == crop
    for axis, side in enumerate(crop):
        assert side <= max(s.max_size[axis] for s in whole.splits.values())
    divisor = network.size_divisor
    described = memory.describe(experiment.model, device.precision, 3, 3, (divisor, divisor))
    crops = math.prod(crop) / divisor**2 * experiment.data.batch_size
    needed = memory.estimate(described, crops, device.precision)
    assert needed.total <= plan.sizing.memory.total <= device.memory
    if network.normalization == "batch":
        assert needed == plan.sizing.memory
    assert notes == plan.notes
    assert all(choice.reason or choice.key.startswith("augment.") for choice in plan.choices)


@settings(max_examples=30)
@given(train=splits, device=st.sampled_from([CPU, GPU]))
def test_more_memory_never_gives_fewer_pixels_in_a_step(train, device):
    before = 0
    for gigabytes in (1.05, 1.1, 1.2, 1.3, 1.5, 1.8, 2.0, 2.5, 3, 4, 6, 8, 12, 16, 24, 32, 64):
        box = dataclasses.replace(device, memory=int(gigabytes * GB))
        try:
            sizing = planned(train, box).sizing
        except FlexsegError:
            assert not before, "what was possible with less"
            continue
        pixels = math.prod(sizing.crop) * sizing.batch
        assert pixels >= before
        before = pixels
    assert before


def loaded(text):
    return experiments.from_dict(yaml.safe_load(text))


def test_the_same_manifest_gives_the_same_text():
    data = manifest(split(((300, 200), (500, 700)), (0.9, 0.09, 0.01)))
    assert len({plan_experiment.propose(data, CPU)[0] for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("side", "levels"), [(7, 1), (8, 1), (16, 2), (64, 4), (127, 4), (256, 6), (512, 6), (9999, 6)]
)
def test_the_bridge_sees_eight_pixels_and_the_network_has_six_levels_at_most(side, levels):
    assert plan_size.levels_for(side) == levels


@pytest.mark.parametrize(
    ("sizes", "crop"),
    [
        ([(64, 64)], (64, 64)),
        ([(256, 256)], (256, 256)),
        ([(20000, 20000)], (512, 512)),
        ([(605, 700)], (512, 512)),
        ([(500, 400)], (480, 384)),
        ([(40, 3000)], (40, 512)),
        ([(200, 200), (400, 400)], (288, 288)),  # sqrt of the mean area is 316
    ],
)
def test_the_crop_is_the_typical_record_as_far_as_network_and_bound_let_it(sizes, crop):
    assert planned(split(sizes)).sizing.crop == crop


def test_little_memory_shrinks_the_crop_and_keeps_two_in_a_batch():
    train = split([(512, 512)])
    sizing = planned(train, dataclasses.replace(CPU, memory=int(1.8 * GB))).sizing
    assert sizing.batch == 2
    assert sizing.model.network.normalization == "group"
    assert 128 < sizing.crop[0] == sizing.crop[1] < 512


def test_too_little_memory_is_told():
    tiny = dataclasses.replace(CPU, memory=int(1.02 * GB))
    with pytest.raises(FlexsegError, match=r"too small.* take about 1\..* GB.*--memory_gb"):
        planned(split([(512, 512)]), tiny)


def test_several_gpus_each_take_their_part_of_the_batch():
    several = dataclasses.replace(GPU, count=3)
    plan = planned(split([(256, 256)], each=1000), several)
    assert plan.values["data.batch_size"] % 3 == 0
    described = memory.describe(plan.sizing.model, GPU.precision, 2, 3, (256, 256))
    each = plan.values["data.batch_size"] // 3
    assert memory.estimate(described, each, GPU.precision) == plan.sizing.memory


def test_a_rare_class_is_cropped_more_often_or_weighs_more_where_there_is_nothing_to_crop():
    rare = (0.9, 0.0999, 0.0001)
    cropped = planned(split([(2000, 2000)], rare)).values
    assert cropped["data.foreground_share"] == pytest.approx(1 / 3, abs=0.01)
    whole = planned(split([(256, 256)], rare)).values
    assert "data.foreground_share" not in whole
    assert whole["train.class_weights"] == "median"
    common = planned(split([(256, 256)], (0.6, 0.2, 0.2))).values
    assert {"data.foreground_share", "train.class_weights"}.isdisjoint(common)


def test_few_large_records_are_kept_decoded():
    assert planned(split([(3500, 3000)], each=4)).values["data.cache"] == "memory"
    assert "data.cache" not in planned(split([(3500, 3000)], each=40)).values, "1.6 GiB"
    assert "data.cache" not in planned(split([(512, 512)], each=4)).values, "nothing to gain"


def test_where_most_records_are_empty_half_of_those_read_are():
    train = split(((64, 64),), (0.99, 0.01), each=100, holding=[100, 10])
    assert planned(train).values["data.empty_rate"] == pytest.approx(10 / 90, abs=0.005)
    # Of several classes it is not known which records hold them, but 85 hold none for certain.
    train = split(((64, 64),), (0.98, 0.01, 0.01), each=100, holding=[100, 10, 5])
    assert planned(train).values["data.empty_rate"] == pytest.approx(15 / 85, abs=0.005)
    train = split(((64, 64),), (0.98, 0.02), each=100, holding=[100, 60])
    assert "data.empty_rate" not in planned(train).values


def test_augmentation_is_the_weaker_the_more_groups_there_are():
    keys = ("rotation", "scale", "brightness", "contrast")
    strengths = [
        [planned(split(each=2000, groups=n)).values[f"augment.{k}"] for k in keys]
        for n in (1, 5, 50, 500, 2000)
    ]
    for more, fewer in itertools.pairwise(strengths):
        assert all(a >= b for a, b in zip(more, fewer, strict=True))
    assert strengths[0] != strengths[2] != strengths[3]


@pytest.mark.parametrize(
    ("name", "horizontal", "vertical"),
    [
        ("lung", True, True),
        ("left_lung", False, True),
        ("Right Kidney", False, True),
        ("upper_lobe", True, False),
        ("bright_spot", True, True),  # holds the letters of "right"
    ],
)
def test_classes_that_name_a_side_are_not_mirrored(name, horizontal, vertical):
    values = planned(split(), names=["background", name]).values
    assert values["augment.flip_horizontal"] is horizontal
    assert values["augment.flip_vertical"] is vertical


def test_steps_grow_with_the_examples_within_bounds_and_epochs_make_them_up():
    totals = []
    for each in (1, 10, 100, 1000, 10_000, 100_000):
        values = planned(split([(256, 256)], each=each)).values
        totals.append(values["train.steps_per_epoch"] * values["train.epochs"])
        assert 25 <= values["train.steps_per_epoch"] <= 500
        assert values["optimizer.warmup_steps"] < totals[-1] / 10
    assert totals == sorted(totals)
    assert totals[0] == 1000
    assert 20_000 <= totals[-1] < 20_500


def test_the_learning_rate_goes_with_the_root_of_the_batch():
    def rate(size):
        plan = planned(split([(size, size)], each=500))
        return plan.values["data.batch_size"], plan.values["optimizer.learning_rate"]

    assert rate(256) == (8, 0.001)
    assert rate(128) == (32, 0.002)


def test_precision_is_the_devices():
    for device in (CPU, dataclasses.replace(CPU, precision="float32"), GPU):
        assert planned(split(), device).values["train.precision"] == device.precision


@pytest.mark.parametrize(
    ("train", "keywords", "said"),
    [
        (split(), {}, "There is no valid split"),
        (split(), {"valid": split(groups=2)}, "The valid split has 2 groups"),
        (split(groups=1), {}, "The train split has 1 group;"),
        (split([(4000, 4000)]), {}, "--tile_size=512"),
        (split(shares=(0.9, 0.1, 0.0)), {}, "No training pixel is class_2"),
        (split(holding=[10, 10, 1], shares=(0.8, 0.1, 0.1)), {}, "class_2 (1 source)"),
        (split(channels=1), {"channels": 1}, None),
        (dataclasses.replace(split(), channel_std=(2.0,) * 3), {}, "all but flat"),
        (
            dataclasses.replace(split(), channel_std=(40.0,) * 3, channel_mean=(9.0,) * 3),
            {},
            "saved in colors",
        ),
        (split([(512, 512)]), {}, "--image_size=256,256"),
    ],
)
def test_what_the_person_should_know_is_told(train, keywords, said):
    valid = {"valid": split(groups=9)} if said is None else {}
    notes = planned(train, **keywords, **valid).notes
    assert any(said in note for note in notes) if said else notes == ()


def test_a_valid_split_without_foreground_is_watched_by_its_loss():
    empty = split(shares=(1.0, 0.0))
    assert planned(split(), valid=empty).values["train.monitor"] == "val_loss"
    assert "train.monitor" not in planned(split(), valid=split()).values


def test_a_dataset_with_folds_is_planned_for_its_first():
    parts = {name: split() for name in ("fold0", "fold1", "fold2")}
    whole = dataclasses.replace(manifest(split()), splits=parts)
    text, _ = plan_experiment.propose(whole, CPU)
    assert loaded(text).data.fold == 0
    assert folds.view(whole, 0).split("train").examples == 20
    assert "train: 20 records" in text


def test_activations_go_with_the_pixels():
    model = plan_size.fit(planner.facts_of(manifest(split())), CPU).model
    small, large = (
        memory.describe(model, "mixed_bfloat16", 2, 3, size) for size in ((8, 8), (48, 80))
    )
    assert large.activation_bytes * 64 == small.activation_bytes * 48 * 80


def test_one_image_is_enough():
    plan = planned(split([(700, 500)], each=1, groups=1))
    assert plan.sizing.crop == (512, 480)
    assert plan.values["train.epochs"] * plan.values["train.steps_per_epoch"] == 1000


def test_a_dataset_of_one_class_has_nothing_to_learn():
    with pytest.raises(FlexsegError, match="has one class"):
        planned(split(shares=(1.0,)))


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ({"avx512f", "avx512_bf16"}, "mixed_bfloat16"),
        ({"amx_bf16", "amx_tile"}, "mixed_bfloat16"),
        ({"avx2", "avx512f", "amx_tile"}, "float32"),
        (set(), "float32"),
    ],
)
def test_a_cpu_gets_bfloat16_only_where_it_multiplies_it(flags, precision):
    found = devices.of_cpu(flags, 8 * GB, 4)
    assert (found.kind, found.precision, found.memory) == ("cpu", precision, 4 * GB)


@pytest.mark.parametrize(
    ("line", "precision"),
    [
        ("NVIDIA H200, 143771, 9.0", "mixed_bfloat16"),
        ("NVIDIA A100-SXM4-40GB, 40960, 8.0", "mixed_bfloat16"),
        ("Tesla V100-SXM2-16GB, 16384, 7.0", "mixed_float16"),
        ("Tesla P100-PCIE-16GB, 16384, 6.0", "float32"),
    ],
)
def test_a_gpu_gets_what_its_cores_know(line, precision):
    found = devices.of_gpu(line)
    assert found.precision == precision
    assert found.memory == pytest.approx(int(line.split(",")[1]) * 2**20 * 0.9, abs=1)


def test_what_is_no_gpu_is_none():
    assert devices.of_gpu("No devices were found") is None
    assert devices.of_gpu("GPU, [N/A], 9.0") is None


def test_this_machines_device_is_found():
    found = devices.find()
    assert found == devices.find()
    assert found.memory > 0
    if found.kind == "cpu":
        assert found.memory <= devices.ram() // 2


def test_without_foreground_or_examples_there_is_nothing_to_weigh_or_to_train_on():
    plan = planned(split(shares=(1.0, 0.0)))
    assert {"train.class_weights", "data.foreground_share"}.isdisjoint(plan.values)
    assert any("No training pixel is class_1" in note for note in plan.notes)
    with pytest.raises(FlexsegError, match='The split "train" of somewhere/records holds no exam'):
        planned(split(each=0))
