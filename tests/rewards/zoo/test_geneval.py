"""GenEval's rules in closed form, its prompts and metadata, and tiny real detectors and colour classifiers."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from published import save_clip
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2Processor,
    SwinConfig,
)
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

from beholder.errors import InputError
from beholder.rewards import load_reward
from beholder.rewards.zoo.detectors import Mask2Former, class_names, load_detector, mask2former_pixels
from beholder.rewards.zoo.geneval import ClipColours, GenevalReward, cut_out
from beholder.rewards.zoo.geneval_prompts import OBJECTS, Asked, Clause, from_record, parse, read_metadata
from beholder.rewards.zoo.geneval_rules import Detection, correct, graded, relations, select
from tiny import clip_tokenizer

Boxes = list[tuple[str, float, float]]


def at(name: str, x: float, y: float, score: float = 0.95, size: float = 20) -> Detection:
    """An object of a class, centred."""
    return Detection(name, (x - size / 2, y - size / 2, x + size / 2, y + size / 2), score)


def judge(text: str, found: Sequence[Detection], colours: Sequence[str] = ()) -> tuple[bool, float, float]:
    """Verdict and both dense forms; the i-th colour is that of the i-th object found."""
    asked = parse(text)
    names = {id(one): colour for one, colour in zip(found, colours, strict=False)}
    selected = select(found, asked.tag)

    def colours_of(objects: Sequence[Detection]) -> list[str]:
        return [names[id(one)] for one in objects]

    return (
        correct(asked, selected, colours_of),
        graded(asked, selected, colours_of),
        graded(asked, selected, colours_of, as_released=False),
    )


@pytest.mark.parametrize(
    ("text", "found", "colours", "verdict", "released", "corrected"),
    [
        ("a photo of a dog", [at("dog", 50, 50)], [], True, 1, 1),
        ("a photo of a dog", [at("cat", 50, 50)], [], False, 0, 0),
        ("a photo of a dog", [at("dog", 50, 50, 0.3)], [], False, 0, 0),
        ("a photo of a dog", [at("dog", 50, 50), at("cat", 9, 9)], [], True, 1, 1),
        ("a photo of a dog", [at("dog", 50, 50), at("dog", 9, 9)], [], True, 0, 0),
        ("a photo of a dog", [at("dog", 50, 50)] * 3, [], True, -1, -1),
        ("a photo of a dog and a cat", [at("dog", 50, 50)], [], False, 1 / 2, 1 / 2),
        ("a photo of a dog and a cat", [at("dog", 50, 50), at("cat", 9, 9)], [], True, 1, 1),
        ("a photo of a red dog", [at("dog", 50, 50)], ["red"], True, 1, 1),
        ("a photo of a red dog", [at("dog", 50, 50)], ["blue"], False, 1 / 2, 1 / 2),
        ("a photo of a red dog", [], [], False, 0, 0),
        ("a photo of a red dog and a blue cat", [at("dog", 50, 50), at("cat", 9, 9)], ["red", "blue"], True, 1, 1),
        ("a photo of a red dog and a blue cat", [at("dog", 5, 5), at("cat", 9, 9)], ["red", "red"], False, 0.75, 0.75),
        ("a photo of a dog left of a cat", [at("dog", 20, 50), at("cat", 80, 50)], [], True, 1, 1),
        ("a photo of a dog right of a cat", [at("dog", 20, 50), at("cat", 80, 50)], [], False, 0.75, 2 / 3),
        ("a photo of a dog above a cat", [at("dog", 50, 10), at("cat", 50, 90)], [], True, 1, 1),
        ("a photo of a dog below a cat", [at("dog", 50, 10), at("cat", 50, 90)], [], False, 0.75, 2 / 3),
        ("a photo of a dog left of a cat", [at("dog", 20, 50)], [], False, 1 / 3, 1 / 3),
        ("a photo of a dog left of a cat", [at("cat", 20, 50)], [], False, 1 / 3, 1 / 3),
    ],
)
def test_verdicts_and_grades_by_hand(
    text: str, found: list[Detection], colours: list[str], verdict: bool, released: float, corrected: float
) -> None:
    assert judge(text, found, colours) == (verdict, pytest.approx(released), pytest.approx(corrected))


def test_counting_asks_for_surer_detections_and_no_more_of_them() -> None:
    values = {}
    for found in range(8):
        dogs = [at("dog", 10 * i, 50) for i in range(found)] + [at("dog", 5, 5, 0.89)] * 3
        values[found] = judge("a photo of two dogs", dogs)
    assert {n for n, (verdict, _, _) in values.items() if verdict} == {2}
    assert [grade for _, grade, _ in values.values()] == [0, 0.5, 1, 0.5, 0, -0.5, -1, -1.5]


def test_only_the_surest_objects_of_a_class_are_looked_at() -> None:
    sure = [at("dog", 20, 50, 0.9 - i / 100) for i in range(20)]
    assert [len(found) for found in select(sure[::-1], "position").values()] == [16]
    stray = [at("dog", 80, 50, 0.4), at("dog", 20, 50, 0.8), at("cat", 50, 50)]
    assert judge("a photo of a dog left of a cat", stray)[0]


@given(st.floats(-200, 200), st.floats(-200, 200), st.floats(1, 60), st.floats(1, 60))
def test_relations_are_opposite_and_scale_free(dx: float, dy: float, a: float, b: float) -> None:
    first, second = at("dog", 300 + dx, 300 + dy, size=a), at("cat", 300, 300, size=b)
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    held = relations(first, second)
    assert {opposite[one] for one in held} == relations(second, first)
    length = math.hypot(dx, dy)
    wanted = {
        name
        for name, along in (("left of", -dx), ("right of", dx), ("above", -dy), ("below", dy))
        if length and along - 0.1 * (a + b) > max(0.5 * length, 1e-3)
    }
    assert held == wanted or any(
        abs(abs(along) - 0.1 * (a + b) - 0.5 * length) < 1e-6 or abs(abs(along) - 0.1 * (a + b)) < 2e-3
        for along in (dx, dy)
    )


# -------------------------------------------------------------------------------------------------------------- prompts

RECORDS = [
    {"tag": "single_object", "include": [{"class": "hot dog", "count": 1}], "prompt": "a photo of a hot dog"},
    {"tag": "single_object", "include": [{"class": "orange", "count": 1}], "prompt": "a photo of an orange"},
    {
        "tag": "two_object",
        "include": [{"class": "tv remote", "count": 1}, {"class": "elephant", "count": 1}],
        "prompt": "a photo of a tv remote and an elephant",
    },
    {
        "tag": "counting",
        "include": [{"class": "scissors", "count": 3}],
        "exclude": [{"class": "scissors", "count": 4}],
        "prompt": "a photo of three scissorses",
    },
    {
        "tag": "colors",
        "include": [{"class": "orange", "count": 1, "color": "orange"}],
        "prompt": "a photo of an orange orange",
    },
    {
        "tag": "position",
        "include": [{"class": "cow", "count": 1}, {"class": "bed", "count": 1, "position": ["left of", 0]}],
        "prompt": "a photo of a bed left of a cow",
    },
    {
        "tag": "color_attr",
        "include": [{"class": "bus", "count": 1, "color": "red"}, {"class": "cup", "count": 1, "color": "pink"}],
        "prompt": "a photo of a red bus and a pink cup",
    },
]


def test_texts_are_parsed_into_what_the_metadata_say(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(record) for record in RECORDS))
    read = read_metadata(tmp_path / "metadata.jsonl")
    assert list(read) == [record["prompt"] for record in RECORDS]
    assert {text: parse(text) for text in read} == read


@pytest.mark.parametrize(
    "text",
    [
        "a dragon",
        "a photo of five dogs",
        "a photo of a dog and a red cat",
        "a photo of dogs",
        "three sheep",
        "",
        "a red",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="not of GenEval's form"):
        parse(text)


@pytest.mark.parametrize(
    ("include", "said"),
    [
        ([], "asks for nothing"),
        ([{"class": "dog", "count": 0}], "1 or more"),
        ([{"class": "dog", "count": 1, "color": "mauve"}], "'mauve'"),
        ([{"class": "dog", "count": 1, "position": ["left of", 0]}], "position"),
        ([{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["beside", 0]}], "beside"),
    ],
)
def test_metadata_that_make_no_sense_are_refused(tmp_path: Path, include: list[dict], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_record({"include": include})
    (tmp_path / "bad.jsonl").write_text(json.dumps({"prompt": "x", "include": include}))
    with pytest.raises(InputError, match="line 1"):
        read_metadata(tmp_path / "bad.jsonl")


# ------------------------------------------------------------------------------------------------- detector and colours


class Injected:
    """A detector that sees what it is told."""

    def detect(self, image: np.ndarray, names: Sequence[str]) -> list[Detection]:
        return [at(name, 4, 4, size=4) for name in names if image.mean() > 100]


def test_the_reward_takes_metadata_first_and_parses_the_rest() -> None:
    metadata = {"ein Hund": Asked("single_object", (Clause("dog"),))}
    reward = GenevalReward(lambda: (Injected(), lambda image, objects: ["red"]), False, metadata)
    images = torch.stack([torch.ones(3, 8, 8), torch.zeros(3, 8, 8), torch.full((3, 8, 8), torch.nan)])
    assert reward(images[:2], ["ein Hund", "ein Hund"]).tolist() == [1, 0]
    values = reward(images, ["a photo of a red dog"] * 3)
    assert values[:2].tolist() == [1, 0] and values[2].isnan()
    assert reward(images[:1], ["a photo of a blue dog"]).tolist() == [0]
    with pytest.raises(InputError, match="metadata=FILE"):
        reward(images[:1], ["eine Katze"])


def test_an_object_is_cut_out_grey_outside_its_mask() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = True
    cut = cut_out(image, Detection("dog", (1, 1, 3, 3), 1.0, mask))
    assert cut.shape == (2, 2, 3) and (cut[0, 1] == image[1, 2]).all()
    assert (np.delete(cut.reshape(4, 3), 1, 0) == 0x99).all()
    assert (cut_out(image, Detection("dog", (-3, -1, 2.4, 9))) == image[:, :2]).all()
    assert cut_out(image, Detection("dog", (5, 4, 5, 4))).shape == (1, 1, 3)


def tiny_mask2former() -> Mask2FormerForUniversalSegmentation:
    small = {"encoder_layers": 1, "decoder_layers": 2, "feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32}
    backbone = SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4)
    backbone._out_features, backbone._out_indices = [f"stage{i}" for i in range(1, 5)], [1, 2, 3, 4]
    config = Mask2FormerConfig(
        backbone_config=backbone,
        **small,
        num_attention_heads=2,
        dim_feedforward=16,
        encoder_feedforward_dim=16,
        num_queries=6,
        id2label={i: f"class {i}" for i in range(80)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Mask2FormerForUniversalSegmentation(config).eval()


def test_what_mask2former_sees_is_scaled_and_padded_at_the_bottom_right() -> None:
    pixels, size = mask2former_pixels(np.full((100, 150, 3), 255, np.uint8))
    assert size == (800, 1200) and pixels.shape == (1, 3, 800, 1216)
    assert pixels[0, 0, :, :1200].allclose(torch.tensor((1 - 0.485) / 0.229)) and (pixels[..., 1200:] == 0).all()
    assert mask2former_pixels(np.zeros((100, 1000, 3), np.uint8))[1] == (133, 1333)


def test_a_mask2former_loads_from_a_folder_and_its_masks_become_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beholder.rewards.zoo.detectors.SHORT", 64)
    tiny_mask2former().save_pretrained(tmp_path / "detector")
    save_clip(tmp_path / "clip")
    detector = load_detector(str(tmp_path / "detector"), torch.device("cpu"))
    assert isinstance(detector, Mask2Former) and detector.names == dict(enumerate(OBJECTS))
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    assert detector.detect(image, OBJECTS) == [], "of 80 classes none is sure in a network that knows nothing"
    with torch.no_grad():
        detector.model.class_predictor.weight.zero_()
        detector.model.class_predictor.bias.fill_(0)[OBJECTS.index("dog")] = 20
    found = detector.detect(image, ["dog", "cat"])
    assert found and {one.name for one in found} == {"dog"} and detector.detect(image, ["cat"]) == []
    for one in found:
        assert one.mask is not None and one.mask.shape == (48, 64) and 0.5 <= one.score <= 1
        rows, columns = np.nonzero(one.mask)
        assert one.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    reward = load_reward(f"geneval@{tmp_path}/detector#clip={tmp_path}/clip")
    assert reward.score(torch.rand(1, 3, 48, 64), ["a photo of a red dog"]).tolist() == [0]


def test_an_owlv2_looks_for_the_names_it_is_given(tmp_path: Path) -> None:
    words = clip_tokenizer()
    half = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**half, "vocab_size": len(words), "max_position_embeddings": 16}
    config = Owlv2Config(text_config=text, vision_config={**half, "image_size": 32, "patch_size": 8}, projection_dim=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Owlv2ForObjectDetection(config).eval()
    with torch.no_grad():  # every box is sure of everything
        model.class_head.logit_shift.weight.zero_()
        model.class_head.logit_shift.bias.fill_(50)
        model.class_head.logit_scale.weight.zero_()
        model.class_head.logit_scale.bias.zero_()
    model.save_pretrained(tmp_path)
    Owlv2Processor(Owlv2ImageProcessorPil(size={"height": 32, "width": 32}), words).save_pretrained(tmp_path)
    detector = load_detector(str(tmp_path), torch.device("cpu"))
    image = np.random.default_rng(0).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    found = detector.detect(image, ["dog", "cat"])
    assert [one.name for one in found] == ["dog"] * 16 + ["cat"] * 16 and all(one.score > 0.9 for one in found)


def test_colours_are_the_nearest_of_ten_texts(tmp_path: Path) -> None:
    from transformers import CLIPModel

    from beholder.rewards.zoo.clip import Clip, find_model, find_tokenizer, read_clip, read_tokenizer

    save_clip(tmp_path)
    model = read_clip(CLIPModel, *find_model(str(tmp_path))).eval()
    clip = Clip(model, read_tokenizer(find_tokenizer(str(tmp_path)), model))
    colours = ClipColours(clip)
    with torch.no_grad():
        bank = colours._texts("dog")
        one = clip.texts([f"a photo of a pink {end}" for end in ("dog", "object")], torch.device("cpu"))
        one = torch.cat([one, clip.texts(["a photo of a pink-colored dog"], torch.device("cpu"))]).mean(0)
    assert bank.shape == (10, 48) and torch.allclose(bank[6], one / one.norm(), atol=1e-5)
    image = np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8)
    assert len(colours(image, [at("dog", 8, 8), at("dog", 12, 12)])) == 2


def test_class_names_go_by_place_for_coco_and_by_word_elsewhere() -> None:
    assert class_names({i: str(i) for i in range(80)})[64] == "computer mouse"
    assert class_names({0: "Dog", 1: "Cat"}) == {0: "dog", 1: "cat"}


def test_names_that_cannot_work_are_refused_at_once(tmp_path: Path) -> None:
    save_clip(tmp_path / "clip")
    for name, said in (
        (f"geneval@{tmp_path}/nothing", "no file or folder"),
        (f"geneval@{tmp_path}/clip#form=other", "known: corrected, released"),
        (f"geneval@{tmp_path}/clip#metadata={tmp_path}/none.jsonl", "no file"),
        (f"geneval@{tmp_path}/clip#x.jsonl", "is no setting"),
    ):
        with pytest.raises(InputError, match=said):
            load_reward(name)
    with pytest.raises(InputError, match="is a clip; name a Mask2Former"):
        load_detector(str(tmp_path / "clip"), torch.device("cpu"))
