"""A judge by name."""

from beholder.errors import InputError
from beholder.judges.judge import Judge
from beholder.judges.settings import ADVICE, PUBLISHED, JudgeConfig, Kind

SHAPES = "shapes"
"""The name of the bundled world's judge: its exact verifier."""


def load_judge(name: str, config: JudgeConfig | None = None) -> Judge:
    """``shapes``, the address of a chat server, a model folder or a hub name; InputError with one line."""
    config = config or JudgeConfig()
    check(config)
    if name == SHAPES:
        from beholder.judges.shapes import ShapesJudge

        return ShapesJudge()
    if name.startswith(("http://", "https://")):
        from beholder.judges.server import load_server

        return load_server(name, config)
    if name == PUBLISHED["image"]:
        raise InputError(
            f"model: {name!r} is published as SwissArmyTransformer weights, which transformers cannot read; {ADVICE}"
        )
    from beholder.judges.local import load_local

    return load_local(name, config)


def load_judge_or_published(name: str | None, kind: Kind, config: JudgeConfig) -> Judge:
    """The judge called ``name``, or where none is named the one that the published checklist was made with."""
    if name is not None:
        return load_judge(name, config)
    try:
        return load_judge(PUBLISHED[kind], config)
    except InputError as error:
        reason = str(error).removeprefix("model: ")
        raise InputError(f"--model: none given, and the default for {kind}s does not load: {reason}") from error


def check(config: JudgeConfig) -> None:
    """InputError for settings that make no sense."""
    for name in ("batch", "top", "concurrency", "timeout", "max_side"):
        if not getattr(config, name) > 0:
            raise InputError(f"judge.{name}: {getattr(config, name)} must be greater than 0")
    for name in ("retries", "backoff"):
        if getattr(config, name) < 0:
            raise InputError(f"judge.{name}: {getattr(config, name)} must not be negative")
    if config.template is not None and "{question}" not in config.template:
        raise InputError(
            f"judge.template: {config.template!r} has no {{question}} in it; put it where the question goes"
        )
