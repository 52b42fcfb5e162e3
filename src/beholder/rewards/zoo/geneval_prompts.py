"""What a GenEval prompt asks (2310.11513): its metadata, from the benchmark's JSONL or from its regular texts.

A line of ``evaluation_metadata.jsonl``: ``{"tag": …, "include": [{"class": …, "count": …, "color": …, "position":
[relation, index]}], "exclude": [{"class": …, "count": …}], "prompt": …}``. ``position`` says how the objects of its
clause lie to those of the clause with that index.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from beholder.errors import InputError

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = {"two": 2, "three": 3, "four": 4}
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,computer mouse,tv remote,computer keyboard,cell phone,microwave,"
    "oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
OBJECTS = tuple(COCO.split(","))
"""The 80 classes of COCO in its order, as GenEval calls them."""


@dataclass(frozen=True)
class Clause:
    """Objects of one class."""

    name: str
    count: int = 1
    colour: str | None = None
    relation: str | None = None
    to: int = 0
    """The clause in `include` that ``relation`` speaks of."""


@dataclass(frozen=True)
class Asked:
    tag: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The classes it speaks of."""
        return tuple(dict.fromkeys(clause.name for clause in (*self.include, *self.exclude)))


def read_metadata(path: Path) -> dict[str, Asked]:
    """By prompt; InputError with the line for what is not of GenEval's form."""
    if not path.is_file():
        raise InputError(f"metadata: no file {str(path)!r}; name GenEval's evaluation_metadata.jsonl or one like it")
    asked: dict[str, Asked] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"metadata: {str(path)!r} is not UTF-8 (byte {error.start}); convert it with iconv") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            asked[row["prompt"]] = from_record(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise InputError(f"{path}, line {number}: no GenEval metadata ({said})") from error
    return asked


def from_record(row: dict[str, Any]) -> Asked:
    """One line; InputError (a ValueError) for an unknown relation, an index out of reach, or counts below 1."""
    include = tuple(_clause(one) for one in row["include"])
    exclude = tuple(_clause(one) for one in row.get("exclude", []))
    if not include:
        raise InputError("include: [] asks for nothing; name an object")
    for i, clause in enumerate(include):
        if clause.count < 1:
            raise InputError(f"count: {clause.count} of {clause.name!r}; ask for 1 or more")
        if clause.colour is not None and clause.colour not in COLOURS:
            raise InputError(f"color: {clause.colour!r} is not one of {', '.join(COLOURS)}")
        if clause.relation is not None and (clause.relation not in RELATIONS or not 0 <= clause.to < i):
            raise InputError(f"position: {[clause.relation, clause.to]}; one of {RELATIONS} to an earlier clause")
    return Asked(str(row.get("tag", "")), include, exclude)


def _clause(one: dict[str, Any]) -> Clause:
    relation, to = one.get("position", (None, 0))
    return Clause(str(one["class"]), int(one["count"]), one.get("color"), relation, int(to))


def parse(prompt: str) -> Asked:
    """The metadata behind one of GenEval's texts; InputError for any other."""
    text = " ".join(prompt.split()).rstrip(".").removeprefix("a photo of ")
    found = _counting(text) or _position(text) or _several(text)
    if found is None:
        raise InputError(
            f"prompt: {prompt!r} is not of GenEval's form (a photo of: a dog; a dog and a cat; three dogs; a red dog; "
            "a dog left of a cat; a red dog and a blue cat); give its metadata, geneval@DETECTOR#metadata=FILE.jsonl"
        )
    return found


def _counting(text: str) -> Asked | None:
    number, _, plural = text.partition(" ")
    name = _plurals().get(plural)
    if number not in NUMBERS or name is None:
        return None
    n = NUMBERS[number]
    return Asked("counting", (Clause(name, n),), (Clause(name, n + 1),))


def _position(text: str) -> Asked | None:
    for relation in RELATIONS:
        first, found, second = text.partition(f" {relation} ")
        a, b = _thing(first), _thing(second)
        if found and a and b and not (a.colour or b.colour):
            return Asked("position", (b, Clause(a.name, 1, None, relation, 0)))
    return None


def _several(text: str) -> Asked | None:
    things = [_thing(part) for part in text.split(" and ")]
    clauses = tuple(thing for thing in things if thing is not None)
    if len(clauses) != len(things) or len(things) > 2:
        return None
    coloured = {clause.colour is not None for clause in clauses}
    if len(coloured) == 2:
        return None
    tags = {(1, False): "single_object", (2, False): "two_object", (1, True): "colors", (2, True): "color_attr"}
    return Asked(tags[len(clauses), coloured.pop()], clauses)


def _thing(text: str) -> Clause | None:
    """``a dog``, ``an orange``, ``an orange dog``."""
    article, _, rest = text.partition(" ")
    if article not in ("a", "an"):
        return None
    if rest in OBJECTS:
        return Clause(rest)
    colour, _, name = rest.partition(" ")
    return Clause(name, 1, colour) if colour in COLOURS and name in OBJECTS else None


@cache
def _plurals() -> dict[str, str]:
    """GenEval's own: ``es`` behind an s, else ``s`` (knifes, scissorses)."""
    return {name + ("es" if name.endswith("s") else "s"): name for name in OBJECTS}
