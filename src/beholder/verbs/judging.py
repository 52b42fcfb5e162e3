"""`beholder rewards`, `score`, `serve`, `ask` and `compare`."""

from dataclasses import dataclass, fields
from pathlib import Path

from beholder.arguments import leading_paths, leading_words, parse


@dataclass
class RewardsOptions:
    json: bool = False
    """Print as JSON."""


def rewards(arguments: list[str]) -> None:
    options: RewardsOptions = parse(RewardsOptions, arguments, "rewards", "The rewards one can name.")
    from beholder.rewards.show import show_rewards

    show_rewards(options.json)


@dataclass
class ScoreOptions:
    prompt: str | None = None
    """The prompt of all images."""
    prompts: Path | None = None
    """A JSONL file of {"image": path, "prompt": text} lines, instead of images on the command line."""
    reward: tuple[str, ...] = ("shapes_strict", "shapes_graded")
    """Rewards by name (see `beholder rewards`), NAME@CHECKPOINT, or package.module:function."""
    output: Path | None = None
    """A JSONL file for the rows, written as they come; what is there already is kept and not scored again."""
    batch: int = 16
    """Images that are scored together."""
    maps: Path | None = None
    """A folder for the heat maps of rewards that make some (learned@FOLDER), as grey PNGs."""
    json: bool = False
    """Print one JSON object per image."""


def score(arguments: list[str]) -> None:
    images = leading_paths(arguments)
    said = "Score images and videos (files, folders or quoted globs) with rewards."
    options: ScoreOptions = parse(ScoreOptions, arguments, "score IMAGE ...", said)
    from beholder.evaluation.scoring import score_on_terminal

    given = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("json", "reward")}
    score_on_terminal(images, list(options.reward), **given, as_json=options.json)


def serve(arguments: list[str]) -> None:
    from beholder.serving.settings import ServeConfig

    names = leading_words(arguments)
    said = "Serve rewards (by name, see `beholder rewards`) over HTTP: GET /health, GET /rewards, POST /score."
    config: ServeConfig = parse(ServeConfig, arguments, "serve REWARD ...", said)
    from beholder.serving.run import serve

    serve(names, config)


def ask(arguments: list[str]) -> None:
    from beholder.judges.options import AskOptions

    media = leading_paths(arguments)
    said = "Put yes-no questions about images or videos (files, folders or quoted globs) to a judge."
    options: AskOptions = parse(AskOptions, arguments, "ask IMAGE ...", said)
    from beholder.evaluation.asking import ask_on_terminal

    settings = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("question", "json")}
    ask_on_terminal(media, list(options.question), options.json, **settings)


def compare(arguments: list[str]) -> None:
    from beholder.judges.options import CompareOptions

    media = leading_paths(arguments)
    said = "Say which of two images or videos (or of the files in two folders) is the better one, and in what."
    options: CompareOptions = parse(CompareOptions, arguments, "compare A B", said)
    from beholder.evaluation.comparing import compare_on_terminal, find_pairs

    settings = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("prompt", "pairs", "json")}
    compare_on_terminal(find_pairs(media, options.prompt, options.pairs), options.json, **settings)
