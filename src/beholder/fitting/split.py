"""Which records train, which choose when to stop, and which are reported on: a prompt is in one of them only."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from beholder.errors import InputError


class Split(NamedTuple):
    """Numbers of records."""

    train: list[int]
    stop: list[int]
    report: list[int]


def split_by_prompt(prompts: Sequence[str], held_out: float, seed: int, report: bool = True) -> Split:
    """Prompts in the order of a hash go to `stop` and `report` by turns, until each has half of ``held_out``.

    A prompt too frequent to fit is passed over. With ``report`` off `stop` has all of it: another set is reported on.
    Prompts that differ only in case and spaces are the same. InputError where one of them would be empty.
    """
    by_prompt: dict[str, list[int]] = {}
    for r, prompt in enumerate(prompts):
        by_prompt.setdefault(" ".join(prompt.lower().split()), []).append(r)
    room = [held_out * len(prompts) / 2] * 2 if report else [held_out * len(prompts), 0.0]
    held: list[list[int]] = [[], []]
    train: list[int] = []
    for turn, text in enumerate(sorted(by_prompt, key=lambda text: _digest(text, seed))):
        rows = by_prompt[text]
        fits = [side for side in ((turn % 2), (turn + 1) % 2) if len(held[side]) + len(rows) <= room[side]]
        (held[fits[0]] if fits else train).extend(rows)
    if not train or not held[0] or (report and not held[1]):
        raise InputError(
            f"held_out: {len(by_prompt)} prompts in {len(prompts)} records cannot be split with {held_out:g}; give a "
            "set of more prompts, or a larger share"
        )
    return Split(sorted(train), sorted(held[0]), sorted(held[1]))


def _digest(text: str, seed: int) -> bytes:
    return blake2b(f"{seed}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
