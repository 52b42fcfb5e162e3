"""Public data sets, each from a small file in exactly its format."""

import json
import math
import sqlite3
from pathlib import Path

import numpy as np
import public_files as files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_sets import number_of, numbered, picture

from beholder.errors import InputError
from beholder.media import read_image
from beholder.preferences.decoding import check_media, decode
from beholder.preferences.readers import READERS, read_public, sources
from beholder.preferences.readers.sources import find, json_rows, split_of
from beholder.preferences.readers.tfrecord import masked_crc, parse_example, read_examples
from beholder.preferences.schema import Medium, Record, RowError
from beholder.preferences.selection import choose


def read(name: str, path: Path, join: Path | None = None) -> list[Record]:
    """The records, every medium of which is there."""
    found = []
    for row, record in read_public(name, path, join):
        assert isinstance(record, Record), record
        check_media(record, row.file, row.number)
        found.append(record)
    return found


def problems(name: str, path: Path, join: Path | None = None) -> list[tuple[int, str, str]]:
    wrong = [r.problem for _, r in read_public(name, path, join) if isinstance(r, RowError)]
    return [(p.row, p.field, p.reason) for p in wrong]


def first_pixel(medium: Medium) -> int:
    return round(float(decode(medium, "", 0, "")[0, 0, 0]) * 255)


# ------------------------------------------------------------------------------------------------ Pick-a-Pic


def test_pick_a_pic(tmp_path: Path) -> None:
    rows = [
        files.pick_a_pic_row(0),
        files.pick_a_pic_row(1, (0.0, 1.0)),
        files.pick_a_pic_row(2, (0.5, 0.5)),
        files.pick_a_pic_row(3, (0.5, 0.5), has_label=False, are_different=False),
    ]
    first, second, tie, unjudged = read("pick-a-pic", files.write_pick_a_pic(tmp_path, rows))
    assert (first.prompt, first.votes, first.ties, first.annotator) == ("a picture, no. 0", (1, 0), 0, "7")
    assert (first.split, first.source, second.votes, second.annotator) == ("train", "pick-a-pic", (0, 1), "8")
    assert choose(tie) == [(0, 1, 0.5)] and not unjudged.judged
    assert unjudged.meta["are_different"] is False and unjudged.ties == 0
    assert first.meta["num_example_per_prompt"] == 3 and first.meta["image_1_uid"] == "uid-1"
    assert number_of(read_image(second.media[1].data or b"")) == pytest.approx(3, abs=2)


def test_pick_a_pic_with_odd_labels(tmp_path: Path) -> None:
    rows = [files.pick_a_pic_row(0), files.pick_a_pic_row(1, (1.0, 1.0)), files.pick_a_pic_row(2)]
    path = files.write_pick_a_pic(tmp_path, rows, "validation_unique-00000-of-00001.parquet")
    assert problems("pick-a-pic", path) == [
        (1, "label_0, label_1", "(1.0, 1.0) is none of (1, 0), (0, 1) and (0.5, 0.5)")
    ]


def test_pick_a_pic_without_images(tmp_path: Path) -> None:
    files.write_pick_a_pic(tmp_path, [files.pick_a_pic_row(0)])
    (path,) = tmp_path.iterdir()
    pq.write_table(pq.read_table(path).drop_columns(["jpg_0", "jpg_1"]), path)
    with pytest.raises(InputError, match="no column 'jpg_0'"):
        read("pick-a-pic", path)


# ------------------------------------------------------------------------------------------------ HPD


def test_hpd_v1(tmp_path: Path) -> None:
    rows = [files.hpd_v1_row(0, 1), files.hpd_v1_row(1, 2, images=4)]
    files.write_images(tmp_path, [name for row in rows for name in row["file_path"]])
    pair, four = read("hpd-v1", files.write_json(tmp_path / "preference_train.json", rows))
    assert (pair.votes, pair.annotator, pair.group, pair.meta) == ((0, 1), "0a1b", "500", {"contain_name": False})
    assert choose(four) == [(2, 0, 1.0), (2, 1, 1.0), (2, 3, 1.0)]
    assert [first_pixel(m) for m in four.media] == pytest.approx([2, 3, 4, 5], abs=2)


@pytest.mark.parametrize("chosen", [2, -1, "0", None, [1, 0], True])
def test_hpd_v1_with_an_odd_choice(chosen: object, tmp_path: Path) -> None:
    row = {**files.hpd_v1_row(0, 0), "human_preference": chosen}
    ((number, field, said),) = problems("hpd-v1", files.write_json(tmp_path / "a.json", [row]))
    assert (number, field) == (0, "human_preference") and "must be 0..1" in said


def test_hpd_v2(tmp_path: Path) -> None:
    train = [
        {"human_preference": [0, 1], "prompt": "a fox", "file_path": ["0.jpg", "1.jpg"]},
        {"human_preference": [1, 0], "prompt": "a fox", "file_path": ["1.jpg", "2.jpg"]},
    ]
    test = [
        {
            "prompt": "a boat",
            "image_path": ["3.jpg", "4.jpg", "5.jpg"],
            "rank": [2.5, 1.0, 2.5],
            "raw_annotations": [{"rank": [3, 1, 2], "user_hash": "x"}, {"rank": [2, 1, 3], "user_hash": "y"}],
        }
    ]
    files.write_images(tmp_path, [f"{'train' if i < 3 else 'test'}/{i}.jpg" for i in range(6)])
    files.write_json(tmp_path / "train.json", train)
    files.write_json(tmp_path / "test.json", test)
    ranking, first, second = read("hpd-v2", tmp_path)
    assert (first.votes, second.votes, first.split, ranking.split) == ((0, 1), (1, 0), "train", "test")
    assert choose(ranking) == [(1, 0, 1.0), (0, 2, 0.5), (1, 2, 1.0)]
    assert ranking.meta["raw_annotations"][1]["user_hash"] == "y"
    assert [first_pixel(m) for m in second.media] == pytest.approx([1, 2], abs=2)


def test_hpd_v2_ranks_may_begin_at_zero(tmp_path: Path) -> None:
    row = {"prompt": "x", "image_path": ["0.jpg", "1.jpg"], "rank": [1, 0]}
    ((_, record),) = read_public("hpd-v2", files.write_json(tmp_path / "test.json", [row]))
    assert isinstance(record, Record) and record.ranks == (2, 1)


# ------------------------------------------------------------------------------------------------ ImageRewardDB


@pytest.mark.parametrize("packed", [True, False])
def test_image_reward_db(packed: bool, tmp_path: Path) -> None:
    one, two = files.image_reward_rows(1, [3, 1, 1, 4]), files.image_reward_rows(2, [2, 1])
    mixed = [one[0], two[0], *one[1:], two[1]]
    first, second = read("imagerewarddb", files.write_image_reward_db(tmp_path, mixed, packed))
    assert (first.prompt, first.group, first.split) == ("prompt 1", "000861-0061", "train")
    assert first.ranks == (3, 1, 1, 4) and second.ranks == (2, 1)
    assert first.ratings == {"overall": (4, 6, 6, 3), "alignment": (5, 7, 7, 4), "fidelity": (6, 8, 8, 5)}
    assert [c for c in choose(first) if c.p == 0.5] == [(1, 2, 0.5)]
    assert [first_pixel(m) for m in first.media] == [0, 2, 3, 4] and first.meta == {"classification": "People"}


def test_image_reward_db_as_lists(tmp_path: Path) -> None:
    """The JSON inside the zips, and the repository's own test list."""
    rows = files.image_reward_rows(1, [1, 2])
    files.write_images(tmp_path, [row["image_path"] for row in rows])
    folder = tmp_path / "images" / "train" / "train_1"
    (record,) = read("imagerewarddb", files.write_json(folder / "train_1.json", rows))
    assert (record.ranks, record.split) == ((1, 2), "train")
    listed = {"id": "000904-0035", "prompt": "x", "generations": ["images/a.webp", "images/b.webp"], "ranking": [2, 2]}
    files.write_images(tmp_path, listed["generations"])
    (record,) = read("imagerewarddb", files.write_json(tmp_path / "test.json", [listed]))
    assert choose(record) == [(0, 1, 0.5)] and record.group == "000904-0035"


# ------------------------------------------------------------------------------------------------ RichHF-18k


def rich_hf(folder: Path) -> Path:
    examples = [files.rich_hf_example("uid-1", "1 0 1 0"), files.rich_hf_example("uid-4", "1 1 1 1")]
    folder.mkdir()
    (folder / "train.tfrecord").write_bytes(files.tfrecord(examples))
    return folder


def test_rich_hf_with_pick_a_pic(tmp_path: Path) -> None:
    join = files.write_pick_a_pic(tmp_path / "pick", [files.pick_a_pic_row(i) for i in range(3)])
    first, second = read("richhf-18k", rich_hf(tmp_path / "rich"), join)
    assert (first.prompt, first.k, first.split) == ("a picture, no. 0", 1, "train")
    assert number_of(decode(first.media[0], "", 0, "")) == pytest.approx(1, abs=2)
    assert first.ratings == {"aesthetics": (0.5,), "artifact": (0.25,), "misalignment": (0.75,), "overall": (1.0,)}
    assert first.misaligned == ((1, 3),) and second.misaligned == ((),)
    artifact, misalignment = first.maps
    assert (artifact.name, artifact.medium, misalignment.name) == ("artifact", 0, "misalignment")
    heat = read_image(artifact.image.data or b"")
    assert heat.shape == (3, 512, 512) and heat.sum() == 3 * 20 * 20


def test_rich_hf_with_a_list_of_images(tmp_path: Path) -> None:
    files.write_images(tmp_path / "images", ["uid-4.png"])
    listed = tmp_path / "list.jsonl"
    listed.write_text(json.dumps({"image": "images/uid-4.png", "prompt": "a, b c d"}) + "\n")
    path = rich_hf(tmp_path / "rich")
    found = [r for _, r in read_public("richhf-18k", path, listed)]
    assert isinstance(found[0], Record) and found[0].prompt == "a, b c d"
    ((number, field, said),) = problems("richhf-18k", path, listed)
    assert (number, field) == (0, "filename") and "uid-1.png" in said


def test_rich_hf_labels_must_fit_the_prompt(tmp_path: Path) -> None:
    join = files.write_pick_a_pic(tmp_path / "pick", [files.pick_a_pic_row(0, caption="only three words")])
    wrong = problems("richhf-18k", rich_hf(tmp_path / "rich"), join)
    assert (0, "prompt_misalignment_label", "4 labels for the words of 'only three words'") in wrong
    with pytest.raises(InputError, match="no images and no prompts"):
        read("richhf-18k", tmp_path / "rich")


def test_tfrecord_values() -> None:
    features = {"a": b"\x00bytes", "b": 1.5, "c": [0, 1, 300, -2], "d": b""}
    parsed = parse_example(files.example(features))
    assert parsed == {"a": [b"\x00bytes"], "b": [1.5], "c": [0, 1, 300, -2], "d": [b""]}
    unpacked = b"".join(b"\x0d" + np.float32(v).tobytes() for v in (0.5, 2.0))  # floats one by one: wire type 5
    entry = files.delimited(1, b"x") + files.delimited(2, files.delimited(2, unpacked))
    assert parse_example(files.delimited(1, files.delimited(1, entry))) == {"x": [0.5, 2.0]}


def test_the_checksum_is_castagnolis() -> None:
    """The check value of CRC-32C is E3069283 (RFC 3720)."""
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert files.masked(b"\x05hello") == masked_crc(b"\x05hello").to_bytes(4, "little")


EXAMPLES = [files.example({"n": [i], "s": b"text"}) for i in range(3)]


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, len(files.tfrecord(EXAMPLES)) - 1), flip=st.integers(1, 255))
def test_a_damaged_tfrecord_is_never_read_as_another(
    place: int, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(files.tfrecord(EXAMPLES))
    damaged[place] ^= flip
    path, seen = tmp_path_factory.mktemp("records") / "a.tfrecord", []
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputError, match=r"a.tfrecord, row \d"):
        for parsed in read_examples(path):
            seen.append(parsed)
    assert seen == [{"n": [i], "s": [b"text"]} for i in range(len(seen))]
    assert len(seen) == place // len(files.tfrecord(EXAMPLES[:1]))


@pytest.mark.parametrize("kept", range(0, len(files.tfrecord(EXAMPLES)), 5))
def test_a_cut_tfrecord_gives_what_is_whole(kept: int, tmp_path: Path) -> None:
    one = len(files.tfrecord(EXAMPLES[:1]))
    (tmp_path / "a.tfrecord").write_bytes(files.tfrecord(EXAMPLES)[:kept])
    examples = read_examples(tmp_path / "a.tfrecord")
    for i in range(kept // one):
        assert next(examples) == {"n": [i], "s": [b"text"]}
    with pytest.raises(InputError if kept % one else StopIteration):
        next(examples)


def test_a_git_lfs_pointer_is_no_tfrecord(tmp_path: Path) -> None:
    (tmp_path / "train.tfrecord").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 150\n")
    with pytest.raises(InputError, match="Git LFS pointer"):
        list(read_examples(tmp_path / "train.tfrecord"))


# ------------------------------------------------------------------------------------------------ Simulacra


def test_simulacra(tmp_path: Path) -> None:
    """Of five ratings one is not verified and one is empty."""
    first, second, third = read("simulacra", files.write_simulacra(tmp_path / "sac_public_2022_06_29.sqlite"))
    assert [r.ratings["aesthetic"] for r in (first, second, third)] == [(8,), (3,), (1,)]
    assert [r.annotator for r in (first, second, third)] == ["31", "32", "33"]
    assert (first.prompt, first.group, first.meta) == ("a lake", "10", {"method": 2}) and third.prompt == "a mountain"
    assert first_pixel(third.media[0]) == 2


def test_simulacra_with_an_odd_rating(tmp_path: Path) -> None:
    path = files.write_simulacra(tmp_path / "sac.sqlite")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE ratings SET rating = 11 WHERE sid = 32")
    assert problems("simulacra", tmp_path) == [(1, "rating", "11 is not 1..10")]


@pytest.mark.parametrize("content", [b"no database", None], ids=["text", "other tables"])
def test_another_sqlite_file_is_said(content: bytes | None, tmp_path: Path) -> None:
    if content is None:
        sqlite3.connect(tmp_path / "a.sqlite").close()
        (tmp_path / "a.sqlite").touch()
    else:
        (tmp_path / "a.sqlite").write_bytes(content * 100)
    with pytest.raises(InputError, match=r"a.sqlite: not the SQLite file of the set"):
        read("simulacra", tmp_path / "a.sqlite")


# ------------------------------------------------------------------------------------------------ VisionRewardDB


@pytest.mark.parametrize("old", [False, True])
def test_vision_reward_image(old: bool, tmp_path: Path) -> None:
    path = files.write_vision_reward_image(tmp_path / "data" / "train-00000-of-00010.parquet", old)
    (record,) = read("visionrewarddb-image", tmp_path)
    names = ("adjective", "color_aes") if old else ("symmetry", "color aesthetic")
    assert record.ratings == {names[0]: (-1,), names[1]: (1,)} and record.prompt == ("" if old else "a room")
    assert [record.answers[q][0] for q in "12"] == [1, 0] and math.isnan(record.answers["3"][0])
    assert record.meta["meta_result"] == [1, -1, 1] and record.meta["meta_mask"] == [1, 1, 0]
    assert number_of(decode(record.media[0], "", 0, "")) == 5 and record.split == "train" and path.exists()


def test_vision_reward_video(tmp_path: Path) -> None:
    first, second, tie, graded = read("visionrewarddb-video", files.write_vision_reward_video(tmp_path))
    assert [choose(r) for r in (first, second, tie)] == [[(0, 1, 1.0)], [(1, 0, 1.0)], [(0, 1, 0.5)]]
    assert graded.ratings == {"alignment": (5,), "camera movement": (3,), "shape throughout": (0,)}
    assert graded.answers == {"1": (1,), "2": (0,)} and graded.kind == tie.kind == "video"
    assert (first.split, graded.split) == ("test", "train")
    assert first.media[1].path == str((tmp_path / "videos" / "b.mp4").resolve())


def test_vision_reward_video_with_an_odd_answer(tmp_path: Path) -> None:
    rows = [{"internal_id": "a", "prompt": "x", "video1_path": "a", "video2_path": "b", "standard_answer": "first"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    assert problems("visionrewarddb-video", tmp_path) == [
        (0, "standard_answer", "'first' is none of video1, video2, tie")
    ]


# ------------------------------------------------------------------------------------------------ RLHF-V, RLAIF-V


def test_rlhf_v(tmp_path: Path) -> None:
    (record,) = read("rlhf-v", files.write_rlhf_v(tmp_path / "RLHF-V-Dataset.parquet"))
    assert (record.kind, record.prompt) == ("text", "What is it?")
    assert record.texts == ("A red cup.", "Two red cups.") and choose(record) == [(0, 1, 1.0)]
    assert record.context is not None and number_of(decode(record.context, "", 0, "")) == 3
    assert record.group == "0" and record.meta["image_path"] == "llava1.5_dataset/3.png"


def test_rlaif_v(tmp_path: Path) -> None:
    (record,) = read("rlaif-v", files.write_rlaif_v(tmp_path / "RLAIF-V-Dataset_000.parquet"))
    assert record.texts == ("A blue cup.", "A dog.") and record.votes == (1, 0) and record.group == "7"
    assert record.context is not None and number_of(decode(record.context, "", 0, "")) == 4


def test_rlhf_v_with_broken_text(tmp_path: Path) -> None:
    path = files.write_rlhf_v(tmp_path / "a.parquet")
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([{**rows[0], "text": "{"}, {**rows[0], "text": '{"question": "?"}'}]), path)
    wrong = problems("rlhf-v", path)
    assert wrong[0][:2] == (0, "text") and wrong[1] == (1, "row", "no field 'chosen'")


# ------------------------------------------------------------------------------------------------ sources


def test_every_format_has_a_test_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in READERS if f'read("{name}"' not in here] == []


def test_unknown_formats_and_missing_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown format 'pickapic'; did you mean 'pick-a-pic'"):
        read_public("pickapic", tmp_path)
    with pytest.raises(InputError, match="no file or folder"):
        read_public("hpd-v1", tmp_path / "nowhere")
    with pytest.raises(InputError, match="--join: hpd-v1 holds its own images"):
        read_public("hpd-v1", tmp_path, join=tmp_path)
    for name in READERS:
        with pytest.raises(InputError, match="no "):
            list(read_public(name, tmp_path, tmp_path / "x.jsonl" if name == "richhf-18k" else None))


def test_json_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": "x" * i, "list": [i, {"ä": None}], "end": i / 3} for i in range(60)]
    for chunk in (1, 7, 1000, 10**6):
        monkeypatch.setattr(sources, "CHUNK", chunk)
        files.write_json(tmp_path / "a.json", rows)
        assert [row.values for row in json_rows(tmp_path / "a.json")] == rows
    (tmp_path / "a.json").unlink()
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    assert [(row.number, row.values) for row in json_rows(tmp_path)] == list(enumerate(rows))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'[{"a": 1}, {"b"', "not JSON after"),
        (b"[1, 2]", "row 0: '1' is not a JSON object"),
        (b'["\xff"]', "not UTF-8"),
    ],
)
def test_broken_json_is_said(text: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(InputError, match=said):
        list(json_rows(tmp_path / "a.json"))


SPLITS = {
    "train-00000-of-00010-abc.parquet": "train",
    "validation_unique-00000-of-00001.parquet": "validation_unique",
    "metadata-test.parquet": "test",
    "train.json": "train",
    "train_7.json": "train",
    "preference_test.json": "preference_test",
    "pairs.parquet": None,
}


@pytest.mark.parametrize("name", SPLITS)
def test_splits_are_in_file_names(name: str) -> None:
    assert split_of(f"/data/{name}") == SPLITS[name]


def test_an_image_that_is_nowhere_keeps_its_name(tmp_path: Path) -> None:
    assert find(str(tmp_path / "a.json"), "b/c.png").path == str(tmp_path / "b" / "c.png")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y.png").write_bytes(picture())
    assert find(str(tmp_path / "lists" / "a.json"), "x/y.png").path == str(tmp_path / "x" / "y.png")
    with pytest.raises(ValueError, match="no image path"):
        find(str(tmp_path / "a.json"), "")


def test_a_broken_zip_is_said(tmp_path: Path) -> None:
    rows = files.image_reward_rows(1, [1, 2])
    files.write_image_reward_db(tmp_path, rows, packed=True)
    (tmp_path / "images" / "train" / "train_1.zip").write_bytes(b"PK half")
    ((_, _, said),) = problems("imagerewarddb", tmp_path)
    assert "train_1.zip is not a whole zip file" in said


def test_a_picture_of_the_tests_is_its_number() -> None:
    assert number_of(read_image(numbered(300))) == 300
    assert Image.new("RGB", (1, 1)).size == (1, 1)
