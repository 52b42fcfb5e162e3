"""Heat maps: what was marked is found again at its place, by every backbone that sees patches."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coloured_sets import COLOURS, records, save
from PIL import Image

from beholder.cli import run
from beholder.errors import InputError
from beholder.fitting.batches import gather
from beholder.fitting.labels import read_labels
from beholder.fitting.marks import Marks, map_loss, on_patches
from beholder.fitting.pictures import Pictures
from beholder.fitting.run import fit_reward
from beholder.fitting.settings import FitConfig
from beholder.media import read_image
from beholder.preferences.schema import HeatMap, Medium, Record
from beholder.preferences.store import open_preferences
from beholder.rewards.learned import Heads, RewardModel, new_backbone

TEXTS = ["a red circle"]


def png(pixels: np.ndarray) -> Medium:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    return Medium(data.getvalue())


def marked(one: Record) -> Record:
    """A map `block` of every picture but the last one: where the rectangle of a pure colour is."""
    maps = []
    for k, medium in enumerate(one.media[:-1]):
        pixels = np.asarray(Image.open(io.BytesIO(medium.data or b"")))
        where = np.zeros(pixels.shape[:2], dtype=np.uint8)
        for colour in COLOURS.values():
            where[(pixels == colour).all(-1)] = 255
        maps.append(HeatMap("block", k, png(where)))
    return replace(one, maps=tuple(maps))


def corner(height: int, width: int) -> Record:
    """A picture of this size, its upper left quarter marked in a map of another size."""
    where = np.zeros((64, 64), dtype=np.uint8)
    where[:32, :32] = 255
    grey = np.full((height, width, 3), 100, dtype=np.uint8)
    return Record(
        "a red circle",
        (png(grey), png(grey)),
        ranks=(1.0, 2.0),
        maps=(HeatMap("corner", 1, png(where)), HeatMap("other", 0, png(where))),
    )


@pytest.mark.parametrize("kind", ["small", "clip", "blip"])
def test_maps_are_cut_and_scaled_as_their_pictures(kind: str, backbone: Callable[[str], str], tmp_path: Path) -> None:
    labels = read_labels(open_preferences(save(tmp_path / "set.parquet", [corner(40, 80)])), [])
    model = RewardModel(new_backbone(backbone(kind), TEXTS), Heads(maps=("corner",)))
    marks = Marks(labels, ("corner",), model.backbone.prepare, 2**20)
    found = marks.read(0)
    assert found.shape[:2] == (2, 1) and found[0].isnan().all(), "the first picture has another map"
    assert marks.read(0) is found, "kept"
    pixels = torch.zeros(2, 3, *found.shape[-2:])
    said = model.mapped(model.backbone.states(pixels, TEXTS * 2))
    patches = on_patches(found, said)[1, 0]
    half = patches.shape[-1] // 2
    assert patches[:half, -half:].amax() < 0.1 and patches[half:].amax() < 0.1
    # the blip and the clip cut the middle out: of 80 columns those from 20 on, and the first 40 are marked
    assert (patches[:half, :half] > 0.9).float().mean() > 0.5


def test_the_error_is_that_of_the_patches_of_maps_that_were_made(tmp_path: Path) -> None:
    labels = read_labels(open_preferences(save(tmp_path / "set.parquet", [corner(32, 32), corner(32, 32)])), [])
    torch.manual_seed(0)
    model = RewardModel(new_backbone("small", TEXTS), Heads(maps=("corner", "other"))).eval()
    marks = Marks(labels, ("corner", "other"), model.backbone.prepare, 0)
    batch = gather(labels, Pictures(labels, model.backbone.prepare, 0), [0, 1], torch.device("cpu"))
    assert batch is not None
    states = model.backbone.states(batch.pixels, batch.prompts)
    said = model.mapped(states)
    assert said.shape == (4, 2, 8, 8) and (said > 0).all() and (said < 1).all()
    target = torch.zeros(8, 8)
    target[:4, :4] = 1
    expected = torch.stack([said[i, t] - target for i, t in ((0, 1), (1, 0), (2, 1), (3, 0))]).square().mean()
    found = map_loss(model, states, marks.of(batch))
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert map_loss(model, states, torch.full((4, 2, 32, 32), torch.nan)) == 0


def test_marked_places_are_found_in_pictures_never_seen(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    save(tmp_path / "set.parquet", [marked(one) for one in records(80)])
    config = FitConfig(epochs=8, records=4, held_out=0.3, lr=3e-3, maps=("block",), map_weight=10.0)
    report = fit_reward(tmp_path / "set.parquet", tmp_path / "fit", config)
    found = report["maps"]["block"]
    assert found["images"] == report["records"]["report"], "the second picture of each pair has none"
    assert found["mse"] < 0.5 * found["mse_of_a_constant"] and found["correlation"] > 0.7
    assert found["nss"] > 1 and found["cc"] > 0.7 and found["sim"] > 0.4 and found["auc_judd"] > 0.9
    assert found["empty"] == 0 and found["mse_of_empty"] is None and set(found["undefined"].values()) == {0}
    lines = [json.loads(line) for line in (tmp_path / "fit" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["maps"] < lines[0]["maps"]
    model = RewardModel.from_pretrained(tmp_path / "fit")
    assert model.heads.maps == ("block",)
    picture = torch.full((1, 3, 32, 32), 0.33)
    picture[0, :, 4:16, 16:28] = torch.tensor([220.0, 20.0, 20.0]).view(3, 1, 1) / 255
    heat = model.maps(picture, ["a red thing1"])["block"]
    assert heat.shape == (1, 8, 8) and heat[0, 1:4, 4:7].mean() > 3 * heat[0, 5:, :3].mean()
    assert "heat map block" in (tmp_path / "fit" / "README.md").read_text()
    _scored_with_maps(tmp_path, picture, model, capfd)


def _scored_with_maps(folder: Path, picture: torch.Tensor, model: RewardModel, capfd: pytest.CaptureFixture) -> None:
    """`beholder score --maps` writes what the model says of the pictures it can read."""
    Image.fromarray((255 * picture[0]).round().byte().permute(1, 2, 0).numpy()).save(folder / "red.png")
    (folder / "torn.png").write_bytes(b"no picture")
    name = f"learned@{folder / 'fit'}"
    line = ["score", str(folder / "red.png"), str(folder / "torn.png"), "--prompt", "a red thing1", "--reward", name]
    capfd.readouterr()
    assert run([*line, "--maps", str(folder / "heat"), "--json"]) == 0
    row, torn = (json.loads(said) for said in capfd.readouterr().out.splitlines())
    file = Path(row["parts"][name]["maps"]["block"])
    assert [*(folder / "heat").iterdir()] == [file] and "error" in torn
    written = torch.from_numpy(np.array(Image.open(file))).float() / 255
    assert written.shape == (32, 32)
    on_disk = read_image(folder / "red.png")[None]
    coarse = torch.nn.functional.adaptive_avg_pool2d(written[None], 8)
    assert (coarse - model.maps(on_disk, ["a red thing1"])["block"]).abs().mean() < 0.05
    assert run([*line[:2], *line[3:5], "--maps", str(folder / "other")]) == 2
    err = capfd.readouterr().err
    assert "maps: none of shapes_strict, shapes_graded makes any" in err and err.count("\n") == 1
    assert run([*line[:2], *line[3:], "--maps", str(folder / "red.png")]) == 2
    assert "cannot make the folder" in capfd.readouterr().err


def test_maps_that_cannot_be_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "set.parquet", [marked(one) for one in records(30)])
    save(tmp_path / "plain.parquet", records(30))
    config = FitConfig(epochs=1, held_out=0.4)
    with pytest.raises(InputError, match="no record has 'blok'; did you mean 'block'"):
        fit_reward(tmp_path / "set.parquet", tmp_path / "a", replace(config, maps=("blok",)))
    with pytest.raises(InputError, match="the set has no heat maps"):
        fit_reward(tmp_path / "plain.parquet", tmp_path / "b", replace(config, maps=("block",)))
    with pytest.raises(InputError, match="fitted without heat maps"):
        RewardModel(new_backbone("small", TEXTS), Heads()).maps(torch.zeros(1, 3, 32, 32), TEXTS)
