"""Small files in exactly the formats of the public data sets: names, types and layout of the originals."""

import json
import sqlite3
import struct
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from small_sets import encoded, numbered

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

# ------------------------------------------------------------------------------------------------ Pick-a-Pic

PICK_A_PIC = pa.schema(
    [
        *(("are_different", pa.bool_()), ("best_image_uid", pa.string()), ("caption", pa.string())),
        *(("created_at", pa.timestamp("ns")), ("has_label", pa.bool_())),
        *(("image_0_uid", pa.string()), ("image_0_url", pa.string())),
        *(("image_1_uid", pa.string()), ("image_1_url", pa.string())),
        *(("jpg_0", pa.binary()), ("jpg_1", pa.binary())),
        *(("label_0", pa.float64()), ("label_1", pa.float64())),
        *(("model_0", pa.string()), ("model_1", pa.string())),
        *(("ranking_id", pa.int64()), ("user_id", pa.int64())),
        *(("num_example_per_prompt", pa.int64()), ("__index_level_0__", pa.int64())),
    ]
)


def pick_a_pic_row(i: int, labels: tuple[float, float] = (1.0, 0.0), **changed) -> dict[str, Any]:
    row = {
        "are_different": True,
        "best_image_uid": f"uid-{2 * i}",
        "caption": f"a picture, no. {i}",
        "created_at": 1_680_000_000_000_000_000,
        "has_label": True,
        "ranking_id": 1000 + i,
        "user_id": 7 + i % 2,
        "num_example_per_prompt": 3,
        "__index_level_0__": i,
    }
    for side in (0, 1):
        row |= {
            f"image_{side}_uid": f"uid-{2 * i + side}",
            f"image_{side}_url": "https://gone",
            f"jpg_{side}": numbered(2 * i + side, "JPEG"),
            f"label_{side}": labels[side],
            f"model_{side}": "dreamlike-art/dreamlike-photoreal-2.0",
        }
    return row | changed


def write_pick_a_pic(folder: Path, rows: list[dict], name: str = "train-00000-of-00645-abc123.parquet") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=PICK_A_PIC), folder / name)
    return folder


# ------------------------------------------------------------------------------------------------ lists of images


def write_images(folder: Path, names: list[str]) -> None:
    """Numbered images; lossless WebP where the name says so."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        form = {"webp": "WEBP", "png": "PNG"}.get(path.suffix[1:], "JPEG")
        settings = {"lossless": True} if form == "WEBP" else {}
        path.write_bytes(encoded(Image.new("RGB", (4, 3), (i, 0, 7)), form, **settings))


def write_json(path: Path, rows: list[dict]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def hpd_v1_row(i: int, chosen: int, images: int = 2) -> dict[str, Any]:
    return {
        "human_preference": chosen,
        "prompt": f"prompt {i}",
        "id": 500 + i,
        "file_path": [f"preference_images/{i}_{j}.jpg" for j in range(images)],
        "user_hash": "0a1b",
        "contain_name": False,
    }


# ------------------------------------------------------------------------------------------------ ImageRewardDB

GRADES = ("overall_rating", "image_text_alignment_rating", "fidelity_rating")


def image_reward_rows(prompt: int, ranks: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "image_path": f"images/train/train_1/uuid-{prompt}-{j}.webp",
            "prompt_id": f"00086{prompt}-0061",
            "prompt": f"prompt {prompt}",
            "classification": "People",
            "image_amount_in_total": len(ranks),
            "rank": rank,
            **{name: 7 - rank + g for g, name in enumerate(GRADES)},
        }
        for j, rank in enumerate(ranks)
    ]


def write_image_reward_db(folder: Path, rows: list[dict], packed: bool) -> Path:
    """The hub's layout: metadata beside `images/train/train_1.zip`, or with the zip unpacked."""
    names = [row["image_path"] for row in rows]
    write_images(folder, names)
    if packed:
        with ZipFile(folder / "images" / "train" / "train_1.zip", "w") as archive:
            for name in names:
                archive.write(folder / name, Path(name).name)
                (folder / name).unlink()
    pq.write_table(pa.Table.from_pylist(rows), folder / "metadata-train.parquet")
    return folder


# ------------------------------------------------------------------------------------------------ RichHF-18k


def crc32c(data: bytes) -> int:
    """Bit by bit, to check the table against."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def delimited(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, n = b"", len(content)
    while True:
        size += bytes([n & 127 | (128 if n > 127 else 0)])
        n >>= 7
        if not n:
            return bytes([number << 3 | 2]) + size + content


def example(features: dict[str, bytes | float | list[int]]) -> bytes:
    """A serialised tf.train.Example."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = delimited(1, delimited(1, value))
        elif isinstance(value, float):
            feature = delimited(2, delimited(1, struct.pack("<f", value)))
        else:
            packed = b"".join(_varint(v % 2**64) for v in value)
            feature = delimited(3, delimited(1, packed))
        entries += delimited(1, delimited(1, name.encode()) + delimited(2, feature))
    return delimited(1, entries)


def _varint(n: int) -> bytes:
    return bytes([n & 127 | 128]) + _varint(n >> 7) if n > 127 else bytes([n])


def tfrecord(payloads: list[bytes]) -> bytes:
    framed = b""
    for payload in payloads:
        size = struct.pack("<Q", len(payload))
        framed += size + masked(size) + payload + masked(payload)
    return framed


def rich_hf_example(uid: str, labels: str) -> bytes:
    heat = Image.new("L", (512, 512), 0)
    heat.paste(255, (10, 20, 30, 40))
    return example(
        {
            "filename": f"train/{uid}.png".encode(),
            "aesthetics_score": 0.5,
            "artifact_score": 0.25,
            "misalignment_score": 0.75,
            "overall_score": 1.0,
            "artifact_map": encoded(heat),
            "misalignment_map": encoded(Image.new("L", (512, 512), 0)),
            "prompt_misalignment_label": labels.encode(),
        }
    )


# ------------------------------------------------------------------------------------------------ Simulacra


def write_simulacra(path: Path) -> Path:
    database = sqlite3.connect(path)
    database.executescript(
        """
        CREATE TABLE generations (id INTEGER PRIMARY KEY, sid INTEGER, method INTEGER, prompt TEXT, verified INTEGER);
        CREATE TABLE images (id INTEGER PRIMARY KEY, gid INTEGER, idx INTEGER);
        CREATE TABLE ratings (sid INTEGER, iid INTEGER, rating INTEGER, verified INTEGER);
        CREATE TABLE paths (iid INTEGER, path TEXT);
        CREATE TABLE upscales (iid INTEGER, method INTEGER);
        CREATE TABLE surveys (id INTEGER PRIMARY KEY, qid INTEGER, rating INTEGER);
        INSERT INTO generations VALUES (1, 31, 2, 'a lake', 1), (2, 32, 3, 'a mountain', 1);
        INSERT INTO images VALUES (10, 1, 0), (11, 1, 1), (12, 2, 0);
        INSERT INTO paths VALUES (10, 'home/lake_0.png'), (11, 'home/lake_1.png'), (12, 'home/mountain.png');
        INSERT INTO ratings VALUES (31, 10, 8, 1), (32, 10, 3, 1), (31, 11, 10, 0), (33, 12, NULL, 1), (33, 12, 1, 1);
        """
    )
    database.commit()
    database.close()
    write_images(path.parent, ["home/lake_0.png", "home/lake_1.png", "home/mountain.png"])
    return path


# ------------------------------------------------------------------------------------------------ VisionRewardDB


def write_vision_reward_image(path: Path, old: bool = False) -> Path:
    """The present revision, or the old one: raw bytes, no prompt, other names."""
    names = ("adjective", "color_aes") if old else ("symmetry", "color aesthetic")
    row = {
        "image": numbered(5) if old else {"bytes": numbered(5), "path": "5.png"},
        "internal_id": "n9",
        "url": "https://gone",
        "annotation": dict(zip(names, (-1, 1), strict=True)),
        "meta_result": [1, -1, 1],
        "meta_mask": [1, 1, 0],
    }
    row |= {} if old else {"prompt": "a room"}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row]), path)
    return path


def write_vision_reward_video(folder: Path) -> Path:
    """Graded videos in `train/`, pairs in `test/`; the videos beside."""
    train = {
        "video_path": "videos/a.mp4",
        "internal_id": "v1",
        "prompt": "a dog runs",
        "url": "https://gone",
        "annotation": {"alignment": 5, "camera movement": 3, "shape throughout": 0},
        "meta_result": [1, 0],
        "meta_mask": [1, 1],
    }
    pairs = [
        {
            "internal_id": f"p{i}",
            "prompt": "a dog",
            "standard_answer": answer,
            "video1_path": "videos/a.mp4",
            "video2_path": "videos/b.mp4",
        }
        for i, answer in enumerate(("video1", "video2", "tie"))
    ]
    for name, rows in {
        "train/train-00000-of-00001.parquet": [train],
        "test/test-00000-of-00001.parquet": pairs,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / name)
    (folder / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / "videos" / name).write_bytes(b"frames")
    return folder


# ------------------------------------------------------------------------------------------------ RLHF-V, RLAIF-V


def write_rlhf_v(path: Path) -> Path:
    text = {"question": "What is it?", "chosen": "A red cup.", "rejected": "Two red cups."}
    columns = {
        "ds_name": pa.array(["RLHF-V"]),
        "image": pa.array([{"bytes": numbered(3), "path": "3.png"}], IMAGE),
        "text": pa.array([json.dumps(text)]),
        "origin_dataset": pa.array(["LCS-558K"]),
        "origin_split": pa.array([json.dumps({"model": "Muffin", "type": "question_answering"})]),
        "idx": pa.array([0], pa.int64()),
        "image_path": pa.array(["llava1.5_dataset/3.png"]),
    }
    pq.write_table(pa.table(columns), path)
    return path


def write_rlaif_v(path: Path) -> Path:
    columns = {
        "ds_name": pa.array(["MSCOCO"]),
        "image": pa.array([{"bytes": numbered(4), "path": "4.jpg"}], IMAGE),
        "question": pa.array(["What is it?"]),
        "chosen": pa.array(["A blue cup."]),
        "rejected": pa.array(["A dog."]),
        "origin_dataset": pa.array(["RLAIF-V"]),
        "origin_split": pa.array([json.dumps({"model": "LLaVA"})]),
        "idx": pa.array(["7"]),
        "image_path": pa.array(["coco/4.jpg"]),
    }
    pq.write_table(pa.table(columns), path)
    return path
