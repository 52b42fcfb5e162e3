"""Configurations as YAML, read strictly: an unknown key is an error that names the nearest one."""

import types
import typing
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from beholder.config import RunConfig
from beholder.errors import InputError, nearest


def to_yaml(config: RunConfig) -> str:
    """Every setting, in the order of the dataclasses."""
    return yaml.dump(_plain(asdict(config)), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """PyYAML's, with Unicode's rarer line breaks escaped: its single quotes would fold them into a space."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if set(text) & set("\x85\u2028\u2029") else None
    )


_Dumper.add_representer(str, _text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def from_yaml(text: str, origin: str = "config") -> RunConfig:
    """The configuration in ``text``; missing keys keep their defaults. InputError names the key and the remedy."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # PyYAML answers an impossible date with ValueError
        raise InputError(f"{origin}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise InputError(f"{origin}: expected a mapping of settings, got {type(data).__name__}")
    return build(RunConfig, data, origin)


def read_config(path: Path) -> RunConfig:
    try:
        return from_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise InputError(f"config: no file {str(path)!r}") from error
    except OSError as error:
        raise InputError(f"config: {str(path)!r} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"config: {str(path)!r} is not UTF-8") from error


def build(kind: type, data: dict[str, Any], where: str) -> Any:
    """An instance of the dataclass ``kind`` from plain data."""
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for key in data:
        if key not in known:
            raise InputError(f"{where}: unknown setting {key!r}; {nearest(str(key), known)}")
    try:
        return kind(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in data.items()})
    except TypeError as error:
        raise InputError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise InputError(f"{where}: expected a mapping of settings, got {value!r}")
        return build(hint, value, where)  # pyright: ignore[reportArgumentType]
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{where}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where}: expected a list, got {value!r}")
        return tuple(_value(arguments[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where}: expected a mapping of names to values, got {value!r}")
        return {str(key): _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _scalar(hint, value, where)


def _scalar(hint: type, value: Any, where: str) -> Any:
    # YAML 1.1 reads 1e-4 as a string; a number written so is still a number here.
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise InputError(f"{where}: expected {hint.__name__}, got {value!r}")
