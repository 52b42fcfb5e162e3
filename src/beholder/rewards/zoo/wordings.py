"""The texts that published judges were trained to read; see prompts/SOURCES.md for their authors and licences."""

from functools import cache
from importlib.resources import files


@cache
def wording(name: str) -> str:
    """The text ``prompts/{name}.txt``, with ``{text_prompt}`` where the prompt goes."""
    return files("beholder.rewards.zoo").joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")


def worded(name: str, prompt: str) -> str:
    """That text about one prompt; braces in the prompt mean nothing."""
    return wording(name).replace("{text_prompt}", prompt)
