"""Networks are described as a table and drawn; all of them are listed."""

import absl.flags
import numpy as np
import pytest
from PIL import Image

from export import list_models
from export.inspection import network_figure, network_text
from flexseg_errors import FlexsegError, UsageError
from models import registry


@pytest.fixture(scope="module")
def description():
    return network_text.describe("attention_unet", base_filters=4, levels=3, size=(32, 48))


def test_blocks_hold_every_layer_once(description):
    blocks = {block.name: block for block in network_text.blocks(description)}
    assert sum(block.layers for block in blocks.values()) == len(description.rows)
    assert sum(block.parameters for block in blocks.values()) == description.parameters
    assert sum(b.multiply_adds for b in blocks.values()) == description.multiply_adds
    assert set(blocks) == {
        *("input", "enc0", "enc1", "bridge", "gate0", "gate1", "dec0", "dec1", "logits")
    }
    dec = blocks["dec1"]
    assert (dec.level, dec.shape, dec.inputs) == (1, (16, 24, 8), ("bridge", "gate1"))
    assert (blocks["enc0"].level, blocks["enc0"].shape) == (0, (32, 48, 4))


def test_the_table_names_blocks_and_sums(description):
    text = network_text.text(description)
    lines = [line.split() for line in text.splitlines()]
    assert "Network attention_unet, for one image of 32x48 pixels" in text
    row = next(line for line in lines if line and line[0] == "enc0")
    # 3 and 4 channels to 4 by 3 x 3, and two norms of four vectors.
    assert row[1:5] == ["0", "32x48x4", "8", str(9 * (3 + 4) * 4 + 2 * 4 * 4)]
    assert row[5:7] == ["387", "k"]  # 32 * 48 * 9 * (3 + 4) * 4
    assert f"parameters: {description.parameters:,}, of which" in text


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (9994, "9.99 k"),
        (9996, "10.0 k"),
        (99_960, "100 k"),
        (999_600, "1.00 M"),
        (57_835_257_856, "57.8 G"),
        (2 * 10**16, "20000 T"),
    ],
)
def test_counts_have_three_digits(count, expected):
    assert network_text.short(count) == expected


def test_the_drawing_shows_the_blocks_and_is_repeatable(description, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "new" / "b.PNG"]
    for path in paths:
        network_figure.draw(description, str(path))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.png", "b.PNG", "new"]
    pixels = np.array(Image.open(paths[0]).convert("RGB"), int)
    # The arrows of the skips are blue, the block with the most work is the reddest.
    assert (np.abs(pixels - (31, 119, 180)).max(-1) < 30).sum() > 100
    assert ((pixels[..., 0] > 220) & (pixels[..., 2] < 110)).sum() > 1000
    with pytest.raises(FlexsegError, match=r"--figure=net.jpg.*ends in .png"):
        network_figure.draw(description, "net.jpg")


def listed(*arguments):
    values = absl.flags.FlagValues()
    list_models.define_flags(values)
    list_models.run(values, values(["models", *arguments])[1:])


def test_all_networks_are_listed_smallest_first(monkeypatch, capsys):
    names = ("flex_unet", "attention_unet", "u2net")
    monkeypatch.setattr(
        registry, "ARCHITECTURES", {name: registry.ARCHITECTURES[name] for name in names}
    )
    listed("--image_size=64,64", "--num_classes=1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["network", "parameters", "multiply-adds", "divisor"]
    assert [line.split()[0] for line in lines[1:3]] == ["flex_unet", "attention_unet"]
    assert lines[1].split()[1:6] == ["1.95", "M", "190", "M", "16"]
    assert registry.ARCHITECTURES["flex_unet"].summary in lines[1]
    # U2-Net halves seven times, which 64 pixels do not allow.
    assert lines[-1].startswith("u2net: This network takes images whose sides are multiples of 128")


def test_what_cannot_be_listed_is_refused(monkeypatch):
    for wrong in ("64", "64,x", "0,64", "64,64,3"):
        with pytest.raises(UsageError, match=f"--image_size={wrong}: expected two whole numbers"):
            listed(f"--image_size={wrong}")
    one = {"flex_unet": registry.ARCHITECTURES["flex_unet"]}
    monkeypatch.setattr(registry, "ARCHITECTURES", one)
    with pytest.raises(FlexsegError, match="height 65"):
        listed("--image_size=65,64")
    with pytest.raises(FlexsegError, match="num_classes must be at least 1"):
        listed("--num_classes=0")
