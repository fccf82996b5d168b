"""Wherever a name is chosen, a wrong one gets the nearest that there is."""

from __future__ import annotations

import re

import pytest


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with sources, a dataset of three splits, an empty run, and a label map."""
    import cv2
    import numpy as np

    import flexseg

    root = tmp_path_factory.mktemp("nearest")
    for kind in ("images", "masks"):
        (root / "scans" / kind).mkdir(parents=True)
        for i in range(6):
            pixels = np.full((32, 32, 3), 40 * (kind == "images"), np.uint8)
            pixels[4 : 12 + i, 4:20] = 255
            cv2.imwrite(str(root / "scans" / kind / f"{i}.png"), pixels)
    (root / "classes.yaml").write_text(
        "classes:\n- {id: 0, name: ground, color: [0, 0, 0]}\n"
        "- {id: 1, name: vessel, color: [255, 255, 255]}\n"
    )
    (root / "steps.yaml").write_text("chains:\n- steps: [{rotatoin: {degrees: 5}}]\n")
    (root / "experiment.yaml").write_text("train: {epoches: 3}\n")
    status = flexseg.main(
        ["prepare", f"--dataset={root}/scans", f"--output={root}/records", "--quiet",
         f"--label_map={root}/classes.yaml", "--split=train:0.5,valid:0.25,test:0.25",
         "--direct_num_workers=1"]
    )  # fmt: skip
    assert status == 0
    return root


PREPARE = "prepare --dataset=scans --output=new --label_map=classes.yaml"
TRAIN = "train --data=records --run=new"
PREDICT = "predict --model=records --images=scans/images --output=new"
CASES = {
    "command": ("trian", "train"),
    "command for help": ("help trian", "train"),
    "switch before a command": ("--verbos verify", "--verbose"),
    "shell": ("completion fsh", "fish"),
    "flag": ("evaluate --splti=test", "split"),
    "flag of Beam": (f"{PREPARE} --direct_num_worker=2", "direct_num_workers"),
    "switch": ("predict --overlya", "overlay"),
    "enumeration": ("evaluate --run=x --tta=flip", "flips"),
    "form of masks": ("extract records --output=new --mask_format=indx", "index"),
    "runner": (f"{PREPARE} --runner=dirct", "direct"),
    "split to make": (f"{PREPARE} --split=trian:1", "train"),
    "encoding": (f"{PREPARE} --image_encoding=pgn", "png"),
    "kind of mask": (f"{PREPARE} --mask_kind=colrs", "colors"),
    "intensity": (f"{PREPARE} --intensity=minmx", "minmax"),
    "preprocessing": (f"{PREPARE} --preprocessing=gama=2", "gamma"),
    "axis of volumes": (f"{PREPARE} --volume_axis=atuo", "auto"),
    "preset": (f"{PREPARE} --augment=defualt", "default"),
    "split that is there": ("extract records --output=new --split=tset", "test"),
    "dataset": ("verify recods", "records"),
    "dataset inside": ("verify .", "./records"),
    "run beside": ("evaluate --run=recods", "records"),
    "experiment": (f"{TRAIN} --experiment=published_lnug", "published_lung"),
    "key in a flag": (f"{TRAIN} --config.train.epochz=3", "config.train.epochs"),
    "key in a file": (f"{TRAIN} --experiment=experiment.yaml", "epochs"),
    "network": (f"{TRAIN} --config.model.name=flexunet", "flex_unet"),
    "network to inspect": ("inspect --model=u2nt", "u2net"),
    "choice of a knob": (f"{TRAIN} --config.model.activation=rellu", "relu"),
    "optimizer": (f"{TRAIN} --config.optimizer.name=adm", "adam"),
    "loss": (f"{TRAIN} --config.train.loss=dise", "dice"),
    "parameter of a loss": (f"{TRAIN} --config.train.loss=focal(gama=2)", "gamma"),
    "metric": (f"{TRAIN} --config.train.monitor=val_dise", "val_dice"),
    "metric of a class": (f"{TRAIN} --config.train.monitor=val_dice/vesel", "val_dice/vessel"),
    "class": (
        f"{TRAIN} --config.data.foreground_share=0.5 --config.data.foreground_classes=vesel",
        "vessel",
    ),
    "model": ("predict --model=recods --images=scans --output=new", "records"),
    "form of predictions": (f"{PREDICT} --mask_format=pallete", "palette"),
    "map": (f"{PREDICT} --maps=entrpy", "entropy"),
    "weights of tiles": (f"{PREDICT} --weights=gausian", "gaussian"),
    "blend": (f"{PREDICT} --blend=logit", "logits"),
    "color": (f"{PREDICT} --colorize=gren", "green"),
    "pictures of volumes": (f"{PREDICT} --volume_pictures=slice", "slices"),
    "format": ("export --run=x --output=new --format=tfilte", "tflite"),
    "form to convert to": (
        "convert-masks --masks=scans/masks --output=new --label_map=classes.yaml --to=onehto",
        "onehot",
    ),
}


@pytest.mark.parametrize(("line", "meant"), CASES.values(), ids=CASES)
def test_a_wrong_name_gets_the_nearest(command, made, monkeypatch, line, meant):
    monkeypatch.chdir(made)
    result = command(*line.split(" "))
    assert result.status in (1, 2)
    assert f'Did you mean "{meant}"?' in result.err
    assert len(re.findall("Did you mean", result.err)) == 1
    assert "unexpected" not in result.err
    assert not (made / "new").exists(), "nothing was made"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("verify scans", "It holds images and masks, of which `flexseg prepare` makes a dataset."),
        ("evaluate --run=records", "It is a dataset of `flexseg prepare`."),
        (PREDICT, "It is a dataset of `flexseg prepare`."),
        ("verify classes.yaml", "It is a file."),
    ],
)
def test_one_kind_of_folder_for_another_is_told_as_what_it_is(
    command, made, monkeypatch, line, said
):
    monkeypatch.chdir(made)
    result = command(*line.split(" "))
    assert result.status == 1
    assert said in result.err
