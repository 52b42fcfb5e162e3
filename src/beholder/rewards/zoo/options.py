"""Settings behind the # of a reward's name: ``NAME@CHECKPOINT#WORD,key=value,…``."""

from dataclasses import fields, replace
from typing import Any, TypeVar

from beholder.errors import InputError, nearest

Config = TypeVar("Config")


def read_settings(text: str, config: Config) -> tuple[str | None, Config]:
    """The one bare word, if any, and the dataclass ``config`` with the settings; InputError for what it does not know.

    A value is read as the type of the field's default.
    """
    word: str | None = None
    given: Any = config
    known = {field.name: type(getattr(config, field.name)) for field in fields(given)}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            if word is not None:
                raise InputError(f"rewards: {word!r} and {part!r} behind the #; one of them is too many")
            word = part
            continue
        if key not in known:
            raise InputError(f"rewards: unknown setting {key!r} behind the #; {nearest(key, known)}")
        try:
            given = replace(given, **{key: known[key](value)})
        except ValueError as error:
            raise InputError(f"rewards: {part!r} behind the #: give a number") from error
    return word, given
