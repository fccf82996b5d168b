"""What older configs say of predictions, as whole commands that predict itself understands."""

import pytest
from absl import flags as absl_flags

from export import predict
from export.predictions.predict_flags import outputs_of, predictor_options
from tests.train.old_config_texts import changed, convert


def commands(tmp_path, dialect, changes):
    """The flags of each predict command, parsed as the program parses them."""
    parsed = []
    for command in convert(tmp_path, changed(dialect, changes)).commands:
        if command.name == "predict":
            values = absl_flags.FlagValues()
            predict.define_flags(values)
            assert values(["predict", *command.flags]) == ["predict"]
            parsed.append((command.flags, values))
    return parsed


API = {"infer.images_dir": "'i'", "tiledinfer.images_dir": "'t'"}


@pytest.mark.parametrize(
    ("dialect", "changes", "expected"),
    [
        ("api", API, [["--colorize=white", "--soft"], ["--bitwise_blending", "--colorize=white"]]),
        (
            "api",
            {
                **API,
                "segmentation.colorize": "True",
                "segmentation.white": "'green'",
                "segmentation.black": "'navy'",
                "tiledinfer.bitwise_blending": "False",
                "tiledinfer.overlapping": "64",
                "infer.merged_dir": "'m'",
            },
            [
                ["--colorize=green:navy", "--soft", "--merged"],
                ["--weights=margin", "--colorize=green:navy", "--soft"],
            ],
        ),
        (
            "api",
            {**API, "tiledinfer.binarize": "True", "tiledinfer.threshold": "51"},
            [
                ["--colorize=white", "--soft"],
                ["--bitwise_blending", "--threshold=0.2", "--colorize=white"],
            ],
        ),
        (
            "flex",
            {
                "infer.images_dir": "'i'",
                "tiledinfer.images_dir": "'t'",
                "infer3d.images_dir": "'v'",
                "infer3d.video_fileformat": "'.gif'",
            },
            [
                [],
                ["--weights=margin"],
                [
                    "--volume_axis=2",
                    "--volume_rotation=270",
                    "--intensity=minmax-slice",
                    "--volume_pictures=slices,masks,overlays",
                    "--film=gif",
                    "--film_pictures=overlays",
                    "--film_fps=2",
                ],
            ],
        ),
    ],
)
def test_predictions_are_what_the_old_programs_wrote(tmp_path, dialect, changes, expected):
    found = commands(tmp_path, dialect, changes)
    assert [list(flags[3:]) for flags, _ in found] == expected
    for _, values in found:  # each is a value that predict takes
        outputs_of(values, "")
        predictor_options(values)


def test_volumes_as_the_old_program_read_them(tmp_path):
    """Rows first and slices first; no rotation is none, whatever the model's data had."""
    changes = {
        "infer3d.images_dir": "'v'",
        "infer3d.slice_shape_order": "'dhw'",
        "infer3d.slice_rotation": "None",
        "infer3d.slice_normalize": "False",
    }
    (_, values) = commands(tmp_path, "flex", changes)[-1]
    volumes = outputs_of(values, "").volumes
    assert (volumes.axis, volumes.rotation, volumes.intensity) == ("0", 0, "none")
    assert volumes.pictures == ("slices", "masks", "overlays")
    assert (volumes.film, volumes.film_pictures, volumes.film_fps) == ("mp4", ("overlays",), 10)
