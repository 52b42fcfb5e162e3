"""The JSON that a reward server speaks. The models are its documentation (``GET /openapi.json``) and its validation.

Media travel as base64: the bytes of a PNG, JPEG or WebP file, or raw numbers where rounding to 8 bits would matter.
"""

import base64
import binascii
import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from beholder.errors import nearest
from beholder.serving.problem import Problem, excerpt
from beholder.serving.worker import Item

BYTES = {"float32": 4, "uint8": 1}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class RawArray(Strict):
    """Numbers in C order, little-endian."""

    data: str = Field(description="base64")
    shape: list[int] = Field(description="[3, H, W], or [F, 3, H, W] for a video", min_length=3, max_length=4)
    dtype: Literal["float32", "uint8"] = Field(description="float32 in 0..1, or uint8 in 0..255")


class Medium(Strict):
    """One image or video with its prompt: either ``image`` or ``array``."""

    prompt: str
    image: str | None = Field(None, description="base64 of the bytes of a PNG, JPEG or WebP file")
    array: RawArray | None = None

    @model_validator(mode="after")
    def one_of_both(self) -> "Medium":
        if (self.image is None) == (self.array is None):
            raise ValueError("give either image or array")
        return self


class ScoreRequest(Strict):
    """``POST /score``."""

    items: list[Medium] = Field(min_length=1)
    rewards: list[str] | None = Field(None, description="names as GET /rewards lists them; absent or null: all")


class Failed(BaseModel):
    """Why a value is null."""

    item: int = Field(description="index in items")
    reward: str | None = Field(description="null: every reward, the medium itself is at fault")
    field: str
    value: str
    remedy: str


class ScoreReply(BaseModel):
    """The answer to `ScoreRequest`, in its order."""

    values: dict[str, list[float | None]] = Field(description="by reward, one value an item; null where it failed")
    failed: list[Failed]


def read_request(body: bytes, served: list[str]) -> ScoreRequest:
    """The request in a body; Problem 400 for what is no JSON, not of this schema, or asks for an unknown reward."""
    try:
        request = ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        said = first["msg"].removeprefix("Value error, ")
        if first["type"] == "json_invalid":
            raise Problem(400, "body", body[:SHOWN_BYTES].decode("utf-8", "replace"), f"send JSON; {said}") from None
        raise Problem(400, field or "body", first["input"], f"{said}; see GET /openapi.json") from None
    for i, name in enumerate(request.rewards or []):
        if name not in served:
            raise Problem(400, f"rewards[{i}]", name, f"not served here; {nearest(name, served)}")
    if request.rewards == []:
        raise Problem(400, "rewards", "[]", "name one or more, or leave it out for all")
    return request


SHOWN_BYTES = 200


def items_of(request: ScoreRequest, served: list[str]) -> list[Item | Failed]:
    """What the worker gets; a medium that is no base64, or not as long as its shape says, has failed already."""
    names = tuple(dict.fromkeys(request.rewards or served))
    return [_item(i, medium, names) for i, medium in enumerate(request.items)]


def _item(i: int, medium: Medium, names: tuple[str, ...]) -> Item | Failed:
    kind = "image" if medium.image is not None else "array.data"
    text = medium.image if medium.image is not None else medium.array.data if medium.array else ""
    field = f"items[{i}].{kind}"
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return Failed(item=i, reward=None, field=field, value=excerpt(text), remedy="send standard base64")
    array = medium.array
    if array is None:
        return Item(medium.prompt, data, names)
    shape = tuple(array.shape)
    if shape[-3] != 3 or min(shape) < 1:
        remedy = "send [3, H, W], or [F, 3, H, W] for a video"
        return Failed(item=i, reward=None, field=f"items[{i}].array.shape", value=str(list(shape)), remedy=remedy)
    wanted = math.prod(shape) * BYTES[array.dtype]
    if len(data) != wanted:
        remedy = f"send the {wanted} bytes of shape {list(shape)} in {array.dtype}"
        return Failed(item=i, reward=None, field=field, value=f"{len(data)} bytes", remedy=remedy)
    return Item(medium.prompt, data, names, shape, array.dtype)
