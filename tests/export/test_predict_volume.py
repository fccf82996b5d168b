"""A volume's labels lie on its own voxels, however it was cut, and its pictures show its slices."""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
import tracemalloc

import cv2
import numpy as np
import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy import ndimage

from export.predictions import finished, predict_truth, segment_file
from export.predictions.items import Item, find_items
from export.predictions.outputs import Outputs
from export.volumes import predict_volume
from export.volumes.predict_volume import VolumeOutputs
from export.volumes.volume_objects import Objects
from flexseg_errors import FlexsegError
from pipelines import intensity, label_map, storage, volume_writer, volumes
from pipelines.preparation import Preparation

LABELS = label_map.load("{(0,0,0):0,(255,0,0):1,(0,200,90):2}")
SHAPE = (6, 8, 11)


def phantom():
    """Ids of three classes: air, an L of class 1, and a small block of class 2 at one corner."""
    ids = np.zeros(SHAPE, np.uint8)
    ids[1:4, 2:7, 3:5] = 1
    ids[1:3, 5:7, 3:10] = 1
    ids[4:, :2, 9:] = 2
    return ids


IDS = phantom()
# In Hounsfield units, with noise: no two voxels are alike, and no symmetry maps it to itself.
SCAN = (IDS * np.int16(400) - 600 + np.random.default_rng(0).integers(0, 100, SHAPE)).astype("i2")
WINDOW = "window:-100,1200"  # -700 becomes 0, 500 becomes 255
AFFINE = np.array([[0, -0.5, 0.1, 9], [0.7, 0, 0, -30], [0, 0.2, 3, 40], [0, 0, 0, 1]])


def eight_bits(values):
    return np.floor((np.clip(values, -700.0, 500.0) + 700) * 255 / 1200 + 0.5).astype(np.uint8)


@dataclasses.dataclass
class Thresholds:
    """In the place of a predictor: tells classes by gray values, and keeps what it saw."""

    channels: int = 3
    intensity: intensity.Intensity = dataclasses.field(
        default_factory=lambda: intensity.parse(WINDOW)
    )
    label_map: label_map.LabelMap = LABELS
    breaks_at: int | None = None
    seen: list[np.ndarray] = dataclasses.field(default_factory=list)
    preparation: Preparation = Preparation()

    @property
    def members(self):
        return [self]

    def class_ids(self, image):
        if len(self.seen) == self.breaks_at:
            raise KeyboardInterrupt
        self.seen.append(image)
        return np.digitize(image[..., 0], [64, 149]).astype(np.uint8)


def optional(name):
    return pytest.importorskip(name, reason=f'{name} comes with pip install "flexseg[volumes]"')


def write_nifti(path, array):
    nibabel = optional("nibabel")
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)


def write_metaimage(path, array):
    sitk = optional("SimpleITK")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((1.0, -2.0, 3.0))
    image.SetDirection((0, 1, 0, 0, 0, 1, 1, 0, 0))
    sitk.WriteImage(image, str(path))


def write_hdf5(path, array):
    with optional("h5py").File(path, "w") as file:
        file["image"] = array


def write_series(folder, array):
    """[slices, rows, columns]; the names of the files are not in their order."""
    optional("pydicom")
    sitk = optional("SimpleITK")
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for i, pixels in enumerate(array):
        image = sitk.GetImageFromArray(pixels[None])
        image.SetSpacing((0.5, 0.75, 3.0))
        image.SetOrigin((1.0, -2.0, 3.0 * i))
        image.SetMetaData("0008|0060", "CT")
        image.SetMetaData("0020|000e", "1.2.3")
        writer.SetFileName(str(folder / f"{i * 5 % 7}.dcm"))
        writer.Execute(image)


def read_nifti(path):
    return np.asarray(optional("nibabel").load(path).dataobj)


def read_metaimage(path):
    sitk = optional("SimpleITK")
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def read_hdf5(path):
    with optional("h5py").File(path) as file:
        return file["mask"][...]


# Name -> how the source is written, the label volume's name, and how that is read.
FORMATS = {
    "a.nii": (write_nifti, "a.nii.gz", read_nifti),
    "a.nii.gz": (write_nifti, "a.nii.gz", read_nifti),
    "a.mha": (write_metaimage, "a.mha", read_metaimage),
    "a.mhd": (write_metaimage, "a.mha", read_metaimage),
    "a.h5": (write_hdf5, "a.h5", read_hdf5),
    "a.npy": (np.save, "a.npy", np.load),
    "deep/a": (write_series, "deep/a.nii.gz", lambda path: read_nifti(path).transpose()),
}


@pytest.fixture
def put(tmp_path):
    """`put(name, array)` writes tmp_path/in/NAME, and gives its item."""

    def write(name, array=SCAN):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        FORMATS[name][0](path, array)
        (item,) = find_items(str(tmp_path / "in"), str(tmp_path / "out"))
        return item

    return write


@pytest.fixture
def segment(tmp_path):
    """`segment(item, predictor, pictures=..., film=...)` segments into tmp_path/out."""

    def run(item, predictor=None, truth_kind="colors", **how):
        outputs = Outputs(
            str(tmp_path / "out"), truth_kind=truth_kind, volumes=VolumeOutputs(**how)
        )
        return predict_volume.segment_volume(item, predictor or Thresholds(), outputs)

    return run


def files_below(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("rotation", volumes.ROTATIONS)
@pytest.mark.parametrize("axis", ["0", "1", "2"])
@pytest.mark.parametrize("name", FORMATS)
def test_labels_lie_on_their_voxels_however_the_volume_is_cut(
    put, segment, tmp_path, name, axis, rotation
):
    predictor = Thresholds()
    report = segment(put(name), predictor, axis=axis, rotation=rotation)
    _, target, read = FORMATS[name]
    found = read(tmp_path / "out" / target)
    assert found.dtype == np.uint8
    assert (found == IDS).all()
    assert set(files_below(tmp_path / "out")) == {target} == set(report.files)
    # And the network saw each slice as `prepare` would have cut it.
    expected = [np.rot90(eight_bits(p), rotation // 90) for p in np.moveaxis(SCAN, int(axis), 0)]
    assert report.row.shape == (len(expected), *expected[0].shape)
    assert len(predictor.seen) == len(expected)
    for ours, theirs in zip(expected, predictor.seen, strict=True):
        assert theirs.shape == (*ours.shape, 3)
        assert (theirs == ours[..., None]).all()


def test_slices_are_cut_as_the_models_dataset_was_unless_told(put, segment, tmp_path):
    item = put("a.nii")
    known = Preparation.from_dict({"volume_axis": "0", "volume_rotation": 90})
    for how, expected in (
        ({}, np.rot90(SCAN[2])),
        ({"rotation": 0}, SCAN[2]),
        ({"axis": "auto"}, np.rot90(SCAN[..., 2])),
    ):
        predictor = Thresholds(preparation=known)
        segment(item, predictor, **how)
        assert (predictor.seen[2][..., 0] == eight_bits(expected)).all()
        assert (read_nifti(tmp_path / "out" / "a.nii.gz") == IDS).all()


def test_nifti_labels_have_the_affine_of_their_source(put, segment, tmp_path):
    nibabel = optional("nibabel")
    report = segment(put("a.nii.gz"), axis="0", rotation=90)
    source, found = (nibabel.load(tmp_path / where / "a.nii.gz") for where in ("in", "out"))
    np.testing.assert_array_equal(found.affine, source.affine)
    np.testing.assert_allclose(report.row.voxel_mm3, abs(np.linalg.det(AFFINE)), rtol=1e-5)
    assert nibabel.aff2axcodes(found.affine) == nibabel.aff2axcodes(source.affine)


def test_figures_are_those_of_the_whole_volume(put, segment):
    row = segment(put("a.npy"), axis="2").row
    assert row.voxel_mm3 is None
    assert row.pixels == tuple(np.bincount(IDS.ravel()).tolist())
    assert row.objects == (1, 1)
    assert row.confusion == ()


@given(
    ids=arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 6)),
        elements=st.sampled_from([0, 0, 0, 1, 2]),
    )
)
def test_regions_are_counted_as_scipy_counts_them(ids):
    counted = Objects(4)
    for plane in ids:
        counted.add(plane)
    touching = np.ones((3, 3, 3))
    assert counted.counts() == tuple(ndimage.label(ids == k, touching)[1] for k in (1, 2, 3))


def test_limits_are_those_of_the_volume_or_by_choice_of_each_slice(put, segment):
    item = put("a.npy")
    for kind, expected in (
        ("minmax", [SCAN.min(), SCAN.max()] * 6),
        ("minmax-slice", [limit for p in SCAN for limit in (p.min(), p.max())]),
    ):
        predictor = Thresholds()
        segment(item, predictor, intensity=kind)
        low, high = np.array(expected, float).reshape(6, 2, 1, 1).transpose(1, 0, 2, 3)
        mapped = np.floor((SCAN - low) * 255 / (high - low) + 0.5)
        assert (np.stack(predictor.seen)[..., 0] == mapped).all()


def test_memory_does_not_grow_with_the_number_of_slices(put, segment):
    class Forgetful(Thresholds):
        def class_ids(self, image):
            self.seen.clear()
            return super().class_ids(image)

    peaks = []
    for count in (5, 50, 450):  # the first imports what is used
        slices = np.zeros((count, 96, 96), np.uint8)
        slices[:, 5, 5] = 200
        item, predictor = put("a.npy", slices), Forgetful(intensity=intensity.parse("none"))
        tracemalloc.start()
        report = segment(item, predictor, film="gif", pictures=("masks",))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert report.row.objects == (0, 1)
    assert peaks[2] - peaks[1] < 400 * 96 * 96 / 5  # names of files take some


# ---- Pictures and films ------------------------------------------------------------------------


def test_pictures_are_numbered_as_the_old_ones_and_show_each_slice(put, segment, tmp_path):
    kinds = ("slices", "masks", "overlays")
    report = segment(put("deep/a"), pictures=kinds, rotation=90)
    folder = tmp_path / "out" / "deep" / "a"
    names = {f"deep/a/{kind}/{10001 + i}.png" for kind in kinds for i in range(6)}
    assert names | {"deep/a.nii.gz"} == set(files_below(tmp_path / "out")) == set(report.files)
    for i in range(6):
        gray, ids = np.rot90(eight_bits(SCAN[i])), np.rot90(IDS[i])
        with Image.open(folder / "slices" / f"{10001 + i}.png") as picture:
            assert picture.mode == "L"
            assert (np.array(picture) == gray).all()
        with Image.open(folder / "masks" / f"{10001 + i}.png") as picture:
            assert picture.mode == "P"
            assert (np.array(picture) == ids).all()
            colors = np.array(picture.convert("RGB"))
        assert (colors == np.array([(0, 0, 0), (255, 0, 0), (0, 200, 90)])[ids]).all()
        with Image.open(folder / "overlays" / f"{10001 + i}.png") as picture:
            shown = np.array(picture).astype(int)
        assert (shown[ids == 0] == gray[ids == 0][:, None]).all()
        assert (np.abs(2 * shown - gray[..., None] - colors)[ids > 0] <= 1).all()


@pytest.mark.parametrize("film", ["mp4", "gif"])
def test_each_kind_has_a_film_of_its_own_with_a_frame_for_each_slice(put, segment, tmp_path, film):
    kinds = ("slices", "masks", "overlays")
    big = SCAN.repeat(8, 1).repeat(8, 2)  # lossy frames need some size
    report = segment(put("a.npy", big), film=film, film_pictures=kinds, film_fps=4, pictures=kinds)
    assert {f"a.{kind}.{film}" for kind in kinds} < set(report.files)
    for kind in kinds:
        capture, frames = cv2.VideoCapture(str(tmp_path / "out" / f"a.{kind}.{film}")), []
        while (read := capture.read())[0]:
            frames.append(read[1].astype(int))
        assert len(frames) == 6
        for i, frame in enumerate(frames):
            picture = cv2.imread(str(tmp_path / "out" / "a" / kind / f"{10001 + i}.png"))
            assert np.abs(picture - frame).mean() < (12 if film == "mp4" else 2)


def test_all_names_that_are_known_beforehand_are_told(put, segment):
    item = put("a.npy")
    how = {"film": "gif", "pictures": ("masks", "slices")}
    named = predict_volume.target_names(item, VolumeOutputs(**how))
    assert named == ["a.npy", "a.overlays.gif", "a/masks/10001.png", "a/slices/10001.png"]
    assert set(named) < set(segment(item, **how).files)


# ---- What breaks -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_what_breaks_off_leaves_what_was_there(put, segment, tmp_path, name):
    how = {"film": "gif", "film_pictures": ("masks",)}
    item = put(name)
    with pytest.raises(KeyboardInterrupt):
        segment(item, Thresholds(breaks_at=3), **how)
    assert files_below(tmp_path / "out") == {}
    segment(item, **how)
    before = files_below(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        segment(item, Thresholds(breaks_at=5, intensity=intensity.parse("minmax")), **how)
    assert files_below(tmp_path / "out") == before


def test_a_label_volume_that_cannot_be_written_leaves_what_was_there(
    put, segment, tmp_path, monkeypatch
):
    def half(self, path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise FlexsegError("The disk is full.")

    item = put("a.nii.gz")
    segment(item)
    before = files_below(tmp_path / "out")
    monkeypatch.setattr(volume_writer.Labels, "write", half)
    with pytest.raises(FlexsegError, match="disk is full"):
        segment(item)
    assert files_below(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.h5", "a.npy"])
def test_a_truncated_volume_is_named_and_nothing_is_written(put, segment, tmp_path, name):
    noise = np.random.default_rng(1).integers(-700, 500, (24, 24, 24)).astype("i2")
    item = put(name, noise)
    data = (tmp_path / "in" / name).read_bytes()
    (tmp_path / "in" / name).write_bytes(data[: int(len(data) * 0.8)])
    with pytest.raises(FlexsegError, match=rf"in/{name} is (truncated|damaged)"):
        segment(item, film="gif")
    assert files_below(tmp_path / "out") == {}


def test_deep_voxels_need_a_mapping(put, segment, tmp_path):
    with pytest.raises(FlexsegError, match=r"a.npy holds int16 values.*Say with --intensity"):
        segment(put("a.npy"), Thresholds(intensity=intensity.parse("none")))
    segment(put("a.npy"), Thresholds(intensity=intensity.parse("none")), intensity=WINDOW)
    assert (np.load(tmp_path / "out" / "a.npy") == IDS).all()


def test_nothing_is_written_over_its_source(tmp_path):
    np.save(tmp_path / "a.npy", SCAN)
    (tmp_path / "link").symlink_to(tmp_path)
    before = files_below(tmp_path)
    item = Item(str(tmp_path / "a.npy"), "a", "volume")
    for folder in (tmp_path, tmp_path / "link"):
        with pytest.raises(FlexsegError, match=r"a.npy would be written over its source"):
            predict_volume.segment_volume(item, Thresholds(), Outputs(str(folder)))
    assert files_below(tmp_path) == before


# ---- Elsewhere ---------------------------------------------------------------------------------


def test_what_is_made_elsewhere_is_what_is_made_here(bucket, put, segment, tmp_path):
    how = VolumeOutputs("1", 90, pictures=("masks",), film="mp4")
    for name in ("a.mhd", "deep/a"):  # a header with its data beside it, and a folder
        item = put(name)
        report = segment(item, **dataclasses.asdict(how))
        here, there = tmp_path / "in", f"{bucket}/{name}"
        for file in storage.walk(str(here)):
            storage.upload(file.path, f"{there}/in/{file.name}", keep=True)
        (far,) = find_items(f"{there}/in", f"{there}/out")
        assert far.stem == item.stem
        found = predict_volume.segment_volume(
            far, Thresholds(), Outputs(f"{there}/out", volumes=how)
        )
        assert (found.row, found.files) == (report.row, report.files)
        made = {f.name: storage.read_bytes(f.path) for f in storage.walk(f"{there}/out")}
        assert made == files_below(tmp_path / "out")
        for folder in (here, tmp_path / "out"):
            shutil.rmtree(folder)


# ---- Truth -------------------------------------------------------------------------------------


def counted(truth, found):
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (truth, found), 1)
    return tuple(map(tuple, matrix.tolist()))


def test_a_truth_that_is_stored_otherwise_is_held_against_the_same_voxels(put, segment, tmp_path):
    nibabel = optional("nibabel")
    item = put("a.nii.gz")
    truth = np.roll(IDS, 1, 2)
    turned = nibabel.Nifti1Image(truth, AFFINE).as_reoriented([[2, -1], [0, 1], [1, -1]])
    assert turned.shape != truth.shape
    nibabel.save(turned, tmp_path / "truth.nii.gz")
    item = dataclasses.replace(item, truth=str(tmp_path / "truth.nii.gz"))
    report = segment(item, axis="1", rotation=270)
    assert report.row.confusion == counted(truth, IDS)
    assert (report.truth, report.error) == (item.truth, "")


def test_a_truth_that_cannot_be_used_is_told_again_until_it_is_another(put, tmp_path):
    """Without segmenting the volume again, which takes long."""
    np.save(tmp_path / "truth.npy", IDS + 5)
    item = dataclasses.replace(put("a.npy"), truth=str(tmp_path / "truth.npy"))
    outputs, predictor = Outputs(str(tmp_path / "out")), Thresholds()
    done = segment_file.segment_file(item, predictor, outputs)
    assert "truth.npy: the values 5" in done.error
    (kept,) = finished.find([item], outputs).values()
    again = predict_truth.rescored(kept, item, predictor.label_map, outputs)
    assert again.error == done.error
    alone = dataclasses.replace(item, truth="")
    assert predict_truth.rescored(kept, alone, predictor.label_map, outputs).error == ""
    np.save(tmp_path / "truth.npy", IDS[:1])
    assert predict_truth.rescored(kept, item, predictor.label_map, outputs) is None


def test_a_truth_that_lies_elsewhere_is_told_and_the_labels_are_there(put, segment, tmp_path):
    item = put("a.npy")
    np.save(tmp_path / "truth.npy", IDS[:, :-1])
    report = segment(dataclasses.replace(item, truth=str(tmp_path / "truth.npy")))
    assert "truth.npy has 6x7x11 voxels" in report.error
    assert (report.row.confusion, report.truth) == ((), "")
    assert (np.load(tmp_path / "out" / "a.npy") == IDS).all()
    np.save(tmp_path / "truth.npy", IDS + 5)
    report = segment(dataclasses.replace(item, truth=str(tmp_path / "truth.npy")))
    assert "truth.npy: the values 5 are no class ids" in report.error


def test_one_slice_may_have_an_image_as_its_truth(put, segment, tmp_path):
    colors = np.array([(0, 0, 0), (255, 0, 0), (0, 200, 90)], np.uint8)
    truth = np.roll(IDS[5], 1, 1)
    Image.fromarray(colors[truth]).save(tmp_path / "truth.png")
    item = dataclasses.replace(put("a.npy", SCAN[5:]), truth=str(tmp_path / "truth.png"))
    assert segment(item, rotation=90).row.confusion == counted(truth, IDS[5])
    Image.fromarray(truth).save(tmp_path / "truth.png")
    assert segment(item, rotation=90, truth_kind="index").row.confusion == counted(truth, IDS[5])


def test_several_slices_may_not(put, segment, tmp_path):
    Image.fromarray(IDS[0]).save(tmp_path / "truth.png")
    item = dataclasses.replace(put("a.npy"), truth=str(tmp_path / "truth.png"))
    assert "a.npy has 6 slices, but its truth is one image" in segment(item).error


# ---- The command -------------------------------------------------------------------------------


def parsed(*given):
    values = flags.FlagValues()
    predict_volume.define_volume_flags(values)
    values(["predict", *given])
    return predict_volume.volume_outputs(values)


def test_flags_say_what_is_written():
    assert parsed() == VolumeOutputs()
    given = "--volume_pictures=masks,slices,masks --film=gif --film_pictures=masks --film_fps=2.5"
    reading = "--volume_axis=1 --volume_rotation=270 --volume_dataset=ct --intensity=minmax-slice"
    assert parsed(*given.split(), *reading.split()) == VolumeOutputs(
        "1", 270, "ct", "minmax-slice", ("masks", "slices"), "gif", ("masks",), 2.5
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("--volume_pictures=masks,overlay", r"--volume_pictures=masks,overlay.*\"overlays\""),
        ("--film_pictures=mask", r"--film_pictures=mask.*\"masks\""),
        ("--film_fps=0", r"--film_fps=0.0: expected slices a second"),
        ("--film_fps=nan", r"--film_fps=nan"),
        ("--volume_axis=z", r"--volume_axis=z"),
        ("--volume_rotation=45", r"--volume_rotation=45"),
        ("--intensity=minmx", r"--intensity=\"minmx\".*\"minmax\""),
    ],
)
def test_flags_that_make_no_sense_are_refused(given, told):
    with pytest.raises(FlexsegError, match=told):
        parsed(given)


def test_the_command_segments_slices_as_the_network_does(command, untrained_runs, tmp_path):
    nibabel = optional("nibabel")
    run = untrained_runs["gray"]
    (tmp_path / "in" / "deep").mkdir(parents=True)
    scan = cv2.resize(np.random.default_rng(3).random((9, 7)), (40, 33)) * 100
    scan = np.stack([scan + 15 * i for i in range(4)], -1).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(scan, AFFINE), tmp_path / "in" / "deep" / "a.nii")
    where = (f"--model={run.folder}", f"--images={tmp_path / 'in'}", f"--output={tmp_path / 'out'}")
    how = ("--intensity=window:70,140", "--volume_rotation=90", "--film=gif")
    done = command("predict", *where, *how, "--volume_pictures=masks", f"--table={tmp_path}/t.csv")
    assert done.status == 0, done.err
    found = nibabel.load(tmp_path / "out" / "deep" / "a.nii.gz")
    np.testing.assert_array_equal(found.affine, nibabel.load(tmp_path / "in/deep/a.nii").affine)
    segmenter, labels = run.segmenter(), np.asarray(found.dataobj)
    for i in range(4):
        gray = np.floor(np.clip(scan[..., i], 0, 140) * 255 / 140 + 0.5).astype(np.uint8)
        ids = segmenter.probabilities(np.rot90(gray)[..., None].copy()).numpy().argmax(-1)
        assert (np.rot90(labels[..., i]) == ids).all()
    assert set(np.unique(labels)) == {0, 1}
    assert (tmp_path / "out" / "deep" / "a.overlays.gif").exists()
    assert len(os.listdir(tmp_path / "out" / "deep" / "a" / "masks")) == 4
    with open(tmp_path / "t.csv") as file:
        (line,) = csv.DictReader(file)
    assert (line["source_id"], line["slices"]) == ("deep/a", "4")
    voxels, mm3 = (
        np.array([float(line[f"{k}_{n}"]) for n in run.label_map.names])
        for k in ("predicted", "mm3")
    )
    np.testing.assert_allclose(mm3, voxels * abs(np.linalg.det(AFFINE)), rtol=1e-5)
    before = files_below(tmp_path / "out")
    again = command("predict", *where, *how, "--volume_pictures=masks")
    assert "are there already" in again.out
    assert files_below(tmp_path / "out") == before
