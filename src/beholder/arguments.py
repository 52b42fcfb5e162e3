"""A command line as a dataclass of settings: unknown options name the nearest one, errors are one line."""

import contextlib
import io
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from beholder.errors import InputError, nearest


def parse(kind: type, arguments: list[str], prog: str, description: str, default: Any = None) -> Any:
    """The dataclass ``kind`` from command-line arguments; an option of many values may be given several times."""
    import tyro

    check_options(arguments, kind)
    for option, hint in _options(kind, "--").items():
        arguments = _gathered(arguments, option) if _is_several(hint) else arguments
    said, settings = io.StringIO(), {"description": description, "default": default, "registry": _registry()}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog=f"beholder {prog}", args=arguments, **settings)
    except SystemExit as request:
        if request.code:
            raise InputError(f"{_first_sentence(said.getvalue())}; see beholder {prog} --help") from None
        raise


def _registry() -> Any:
    """Names with weights are written `--rewards NAME WEIGHT ...` and replace the preset's, whatever it holds."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def pairs(info: Any) -> Any:
        if info.type_origin is not dict:
            return None
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar="NAME WEIGHT ...",
            instance_from_str=_weights,
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda value: [word for name, weight in value.items() for word in (name, f"{weight:g}")],
        )

    return registry


def _weights(words: list[str]) -> dict[str, float]:
    try:
        return {name: float(weight) for name, weight in zip(words[::2], words[1::2], strict=True)}
    except ValueError as error:
        raise ValueError(f"expected NAME WEIGHT pairs, e.g. shapes 1.0, got {' '.join(words)!r}") from error


def _first_sentence(box: str) -> str:
    """What tyro says in its box, without frame, help text and hints."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()]
    rules = [i for i, line in enumerate(lines) if line.startswith("─")]
    body = lines[1 : rules[1]] if len(rules) > 1 else lines
    return " ".join(" ".join(body).split()).rstrip(".")


def check_options(arguments: list[str], kind: type) -> None:
    """An unknown option is an error that names the nearest one."""
    known = {"-h", "--help", *_options(kind, "--")}
    for argument in arguments:
        name = argument.split("=", 1)[0].replace("_", "-")
        if name.startswith("-") and name not in ("-", "--") and name not in known and not _is_number(argument):
            raise InputError(f"unknown option {argument.split('=', 1)[0]}; {nearest(name, known)}")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _options(kind: type, prefix: str) -> dict[str, Any]:
    """The type of each option."""
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for field in fields(kind):
        hint, name = hints[field.name], prefix + field.name.replace("_", "-")
        if is_dataclass(hint):
            found |= _options(hint, f"{name}.")  # pyright: ignore[reportArgumentType]
        else:
            found[name] = hint
            if hint is bool:
                found[f"{prefix}no-{field.name.replace('_', '-')}"] = hint
    return found


def _is_several(hint: Any) -> bool:
    return get_origin(hint) in (dict, list) or (get_origin(hint) is tuple and Ellipsis in get_args(hint))


def _gathered(arguments: list[str], option: str) -> list[str]:
    """The arguments with the values of every ``option`` behind a single one."""
    rest: list[str] = []
    values: list[str] = []
    kept = rest
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name.replace("_", "-") == option:
            kept = values
            values += [value] if value else []
        else:
            kept = rest if argument.startswith("--") else kept
            kept.append(argument)
    return [*rest, option, *values] if values else arguments


def take_option(arguments: list[str], name: str) -> str | None:
    """Removes ``--name VALUE`` (or ``--name=VALUE``) from the arguments; its value, None when it is not there."""
    for i, argument in enumerate(arguments):
        if argument == f"--{name}":
            if i + 1 == len(arguments):
                raise InputError(f"--{name}: no value given")
            value = arguments[i + 1]
            del arguments[i : i + 2]
            return value
        if argument.startswith(f"--{name}="):
            del arguments[i]
            return argument.partition("=")[2]
    return None


def leading_paths(arguments: list[str]) -> list[Path]:
    """Removes the arguments before the first option; they are paths."""
    return [Path(word) for word in leading_words(arguments)]


def leading_words(arguments: list[str]) -> list[str]:
    words = []
    while arguments and not arguments[0].startswith("-"):
        words.append(arguments.pop(0))
    return words
