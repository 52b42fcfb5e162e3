"""TFRecord files of `tf.train.Example` without TensorFlow: the framing, its checksums, and the few fields of protobuf.

A record is its length (u64), the length's masked CRC-32C (u32), the payload and the payload's masked CRC-32C, all
little-endian. An Example is a map from names to lists of bytes, floats or integers.
"""

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from beholder.errors import InputError

LARGEST = 2**30
Feature = list[bytes] | list[float] | list[int]


def read_examples(path: Path) -> Iterator[dict[str, Feature]]:
    """The Examples of a file; InputError naming the record that is cut or damaged."""
    for number, payload in enumerate(_payloads(path)):
        try:
            yield parse_example(payload)
        except (ValueError, IndexError, struct.error) as error:
            raise InputError(f"{path}, row {number}: not a tf.train.Example ({error})") from error


def _payloads(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        number = 0
        while head := file.read(12):
            size = int.from_bytes(head[:8], "little")
            if len(head) < 12 or size > LARGEST or masked_crc(head[:8]) != int.from_bytes(head[8:], "little"):
                raise InputError(
                    f"{path}, row {number}: no TFRecord begins here; is the file cut, or a Git LFS pointer?"
                )
            payload, crc = file.read(size), file.read(4)
            if len(crc) < 4 or masked_crc(payload) != int.from_bytes(crc, "little"):
                raise InputError(f"{path}, row {number}: the record is damaged (checksum); download the file again")
            yield payload
            number += 1


def parse_example(data: bytes) -> dict[str, Feature]:
    """The features of a serialised `tf.train.Example`."""
    features: dict[str, Feature] = {}
    for _, entries in _fields(data, {1}):
        for _, entry in _fields(entries, {1}):
            name, value = "", b""
            for number, part in _fields(entry, {1, 2}):
                name, value = (part.decode(), value) if number == 1 else (name, part)
            features[name] = _values(value)
    return features


def _values(data: bytes) -> Feature:
    for kind, content in _fields(data, {1, 2, 3}):
        if kind == 1:
            return [part for _, part in _fields(content, {1})]
        packed = b"".join(part for _, part in _fields(content, {1}))
        if kind == 2:
            return list(struct.unpack(f"<{len(packed) // 4}f", packed))
        return list(_varints(packed))
    return []


def _fields(data: bytes, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message; numbers outside a packed list come as their bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 2:
            size, at = _varint(data, at)
            end = at + size
        elif wire == 0:
            end = _varint(data, at)[1]
        elif wire in (1, 5):
            end = at + (8 if wire == 1 else 4)
        else:
            raise ValueError(f"wire type {wire}")
        if end > len(data):
            raise ValueError("a field ends after its message")
        if number in wanted:
            yield number, data[at:end]
        at = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value - (1 << 64) if value >= 1 << 63 else value


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated by 15 bits and offset as TFRecord stores it."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    """The 256 remainders of Castagnoli's polynomial, reflected."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)
