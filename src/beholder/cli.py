"""``beholder VERB …``: parses and calls, holds no logic.

Exit codes: 0 done, 1 a run failed, 2 bad input, 130 Ctrl-C.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from beholder.errors import InputError, RunError, nearest

# Idle threads that spin cost a factor of ten next to one busy neighbour; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Hints about optional packages would stand before every message.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

USAGE = """usage: beholder VERB [options]       (beholder VERB --help for its options)

  demo                align the bundled generator and open the report: ten minutes on a laptop
  methods [NAME]      the table of methods, or one row in full
  align METHOD        align a generator with a method; --resume RUN goes on with a run
  sample              draw images or videos from a generator
  rewards             the rewards one can name
  score IMAGE ...     score images with rewards
  serve REWARD ...    serve rewards over HTTP
  ask IMAGE ...       yes-no questions about images or videos, answered with probabilities
  compare A B         which of two images or videos is the better one, and in what
  prefer              make a preference set: draw images, let simulated annotators judge
  preferences SET     check a preference set, or convert a public one with --from FORMAT
  fit SET             fit a reward model of your own to a preference set
  annotate SET        let a judge answer a checklist about every image or video of a preference set
  weigh SET           fit the weights of a checklist to the preferences of such a set
  bias SET            in what the preferred images or videos of such a set are better
  teach SET           teach a judge of your own the answers in such a set
  report RUN ...      one HTML page from one run, or from several side by side
  compare-methods     run methods on the same budget and seeds; one HTML page about them

  --version           print the version
"""


def main(argv: list[str] | None = None) -> None:
    """Runs the command line ``argv`` and exits with its code."""
    try:
        code = run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:  # `beholder methods | head -1`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def run(argv: list[str]) -> int:
    """The exit code of a command line; errors become one line on stderr."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if argv[0] == "--version":
        from beholder import __version__

        print(f"beholder {__version__}")
        return 0
    verb, *arguments = argv
    try:
        if verb not in VERBS:
            raise InputError(f"unknown verb {verb!r}; {nearest(verb, VERBS)}")
        VERBS[verb](arguments)
    except SystemExit as request:  # --help
        return int(request.code or 0)
    except InputError as error:
        return _say(error, 2)
    except BrokenPipeError:
        raise
    except (RunError, OSError) as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        advice = "; the run goes on with `beholder align --resume RUN`" if verb in ("align", "demo") else ""
        advice = "; the same command goes on with the set" if verb == "prefer" else advice
        advice = "; the same command goes on with the fit" if verb == "fit" else advice
        advice = "; the same command goes on with what is there" if verb in ("annotate", "teach") else advice
        print(f"beholder: interrupted{advice}", file=sys.stderr)
        return 130
    return 0


def _say(error: Exception, code: int) -> int:
    print(f"beholder: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def parse(kind: type, arguments: list[str], prog: str, description: str, default: Any = None) -> Any:
    """The dataclass ``kind`` from command-line arguments."""
    import tyro

    check_options(arguments, kind)
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


def _options(kind: type, prefix: str) -> list[str]:
    hints = get_type_hints(kind)
    found = []
    for field in fields(kind):
        hint, name = hints[field.name], prefix + field.name.replace("_", "-")
        if is_dataclass(hint):
            found += _options(hint, f"{name}.")  # pyright: ignore[reportArgumentType]
        else:
            found += [name, f"{prefix}no-{field.name.replace('_', '-')}" if hint is bool else name]
    return found


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


def gathered(arguments: list[str], name: str) -> list[str]:
    """The arguments with the values of every ``--name`` behind a single one, so that it may be given several times."""
    rest: list[str] = []
    values: list[str] = []
    kept = rest
    for argument in arguments:
        option, _, value = argument.partition("=")
        if option == f"--{name}":
            kept = values
            values += [value] if value else []
        else:
            kept = rest if argument.startswith("--") else kept
            kept.append(argument)
    return [*rest, f"--{name}", *values] if values else rest


# ---------------------------------------------------------------------------------------------------------- verbs


@dataclass
class DemoOptions:
    output: Path = Path("runs/demo")
    """Folder of the run; an earlier demo there is replaced."""
    seed: int = 0
    hack: bool = False
    """Show reward hacking instead: train on redness alone, without and with a KL term; about two minutes."""
    iterations: int | None = None
    """Fewer or more iterations than the preset."""
    minutes: float = 8.0
    """Stop training after this many minutes (a quarter of them for each run of --hack), evaluations apart."""
    json: bool = False
    """Print the summary as JSON."""


def demo(arguments: list[str]) -> None:
    options: DemoOptions = parse(DemoOptions, arguments, "demo", "Align the bundled generator and write a report.")
    from beholder.training.demo import run_demo

    run_demo(options.output, options.seed, options.hack, options.iterations, options.minutes, options.json)


@dataclass
class MethodsOptions:
    json: bool = False
    """Print as JSON."""


def methods(arguments: list[str]) -> None:
    names = [arguments.pop(0)] if arguments and not arguments[0].startswith("-") else []
    options: MethodsOptions = parse(
        MethodsOptions, arguments, "methods [NAME]", "The table of methods, or one row in full."
    )
    from beholder.methods.show import show_methods

    show_methods(names[0] if names else None, options.json)


def align(arguments: list[str]) -> None:
    """``align METHOD``, ``align METHOD --config FILE``, ``align [METHOD] --resume RUN``."""
    run_folder = take_option(arguments, "resume")
    if run_folder is not None:
        left = [a for a in arguments if a.startswith("-")]
        if left:
            raise InputError(f"--resume goes on with the run's own settings; leave out {' '.join(left)}")
        if len(arguments) > 1:
            raise InputError(f"--resume: more than a method is left: {' '.join(arguments)}; leave it out")
        from beholder.training.start import resume_run

        return resume_run(Path(run_folder), arguments[0] if arguments else None)
    if arguments in ([], ["-h"], ["--help"]):
        print(ALIGN_USAGE, end="")
        return None
    if arguments[0].startswith("-"):
        raise InputError("align: name a method first, e.g. beholder align flow-grpo-fast; see beholder methods")
    from beholder.config import RunConfig
    from beholder.training.presets import choose_preset

    method, *arguments = arguments
    preset, file = take_option(arguments, "preset"), take_option(arguments, "config")
    for short, option, more in (("data", "--data.path", []), ("reward", "--rewards", ["1.0"])):
        value = take_option(arguments, short)
        arguments += [] if value is None else [option, value, *more]
    default = choose_preset(method, preset, file, _names_another_model(arguments))
    config = parse(RunConfig, arguments, f"align {method}", f"Align a generator with {method}.", default)
    if config.method != method:
        raise InputError(f"--method: the method is named first, beholder align {config.method}")
    from beholder.training.start import start_run

    return start_run(config)


def _names_another_model(arguments: list[str]) -> bool:
    """Whether ``--policy.model`` asks for another generator than the bundled one."""
    return take_option(list(arguments), "policy.model") not in (None, "shapes")


ALIGN_USAGE = """usage: beholder align METHOD [--preset NAME] [--config FILE] [--option VALUE ...]
       beholder align --resume RUN

  METHOD           a row of `beholder methods`
  --preset NAME    which of the method's presets to start from (default: shapes for the bundled generator,
                   published for any other --policy.model)
  --config FILE    start from a YAML file, e.g. the config.yaml of a run
  --data SET       the preference set to learn from, for rows that do (short for --data.path)
  --reward NAME    the one reward to train on (short for --rewards NAME 1.0)
  --resume RUN     go on with an interrupted run, with its own settings

beholder align METHOD --help lists every option with the preset's values.
"""


@dataclass
class SampleOptions:
    prompt: tuple[str, ...] = ()
    """Prompts to draw; none draws held-out prompts of the bundled world."""
    model: str = "shapes"
    """`shapes`, a diffusers folder or a hub name."""
    adapter: str | None = None
    """Folder of trained weights, e.g. RUN/policy."""
    share: float = 1.0
    """How much of the adapter to apply, between the base (0) and the trained weights (1)."""
    anneal: float | None = None
    """Let the base draw the beginning: the trained weights count by (1 - σ) to this power at noise level σ (AIG)."""
    n: int = 4
    """Images per prompt."""
    steps: int = 10
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 is none."""
    resolution: int | None = None
    """Height and width in pixels; none takes the model's own."""
    width: int | None = None
    """Width in pixels where it differs from the height."""
    frames: int | None = None
    """Frames of a video, where the generator draws videos; none takes the model's own."""
    seed: int = 0
    output: Path = Path("samples")
    """Folder for the images or videos and the grid."""
    json: bool = False
    """Print what was written as JSON."""


def sample(arguments: list[str]) -> None:
    options: SampleOptions = parse(SampleOptions, arguments, "sample", "Draw images or videos from a generator.")
    from beholder.evaluation.sampling import sample_to_folder

    settings = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("json", "prompt")}
    written = sample_to_folder(list(options.prompt), **settings)
    if options.json:
        print(json.dumps(written, indent=1))
    else:
        what = "videos" if written[0]["image"].endswith(".mp4") else "images"
        print(f"{len(written)} {what} in {options.output}, side by side in {options.output / 'grid.png'}")


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
    images = _leading_paths(arguments)
    said = "Score images and videos (files, folders or quoted globs) with rewards."
    options: ScoreOptions = parse(ScoreOptions, arguments, "score IMAGE ...", said)
    from beholder.evaluation.scoring import score_on_terminal

    given = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("json", "reward")}
    score_on_terminal(images, list(options.reward), **given, as_json=options.json)


def serve(arguments: list[str]) -> None:
    from beholder.serving.settings import ServeConfig

    names = _leading_words(arguments)
    said = "Serve rewards (by name, see `beholder rewards`) over HTTP: GET /health, GET /rewards, POST /score."
    config: ServeConfig = parse(ServeConfig, arguments, "serve REWARD ...", said)
    from beholder.serving.run import serve

    serve(names, config)


def ask(arguments: list[str]) -> None:
    from beholder.judges.options import AskOptions

    media = _leading_paths(arguments)
    said = "Put yes-no questions about images or videos (files, folders or quoted globs) to a judge."
    options: AskOptions = parse(AskOptions, gathered(arguments, "question"), "ask IMAGE ...", said)
    from beholder.evaluation.asking import ask_on_terminal

    settings = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("question", "json")}
    ask_on_terminal(media, list(options.question), options.json, **settings)


def compare(arguments: list[str]) -> None:
    from beholder.judges.options import CompareOptions

    media = _leading_paths(arguments)
    said = "Say which of two images or videos (or of the files in two folders) is the better one, and in what."
    options: CompareOptions = parse(CompareOptions, arguments, "compare A B", said)
    from beholder.evaluation.comparing import compare_on_terminal, find_pairs

    settings = {f.name: getattr(options, f.name) for f in fields(options) if f.name in COMPARE_SETTINGS}
    compare_on_terminal(find_pairs(media, options.prompt, options.pairs), options.json, **settings)


COMPARE_SETTINGS = ("model", "checklist", "judge", "frames")


def _leading_paths(arguments: list[str]) -> list[Path]:
    """Removes the arguments before the first option; they are paths."""
    return [Path(word) for word in _leading_words(arguments)]


def _leading_words(arguments: list[str]) -> list[str]:
    words = []
    while arguments and not arguments[0].startswith("-"):
        words.append(arguments.pop(0))
    return words


@dataclass
class ReportOptions:
    output: Path | None = None
    """Where to write the page; none means report.html in the first run's folder."""


def report(arguments: list[str]) -> None:
    runs = []
    while arguments and not arguments[0].startswith("-"):
        runs.append(Path(arguments.pop(0)))
    options: ReportOptions = parse(ReportOptions, arguments, "report RUN ...", "One HTML page from one run or several.")
    if not runs:
        raise InputError("report: give the folder of a run, e.g. beholder report runs/demo")
    from beholder.report import write_report

    try:
        print(write_report(*runs, output=options.output))
    except (FileNotFoundError, ValueError) as error:
        raise InputError(str(error)) from error


@dataclass
class CompareMethodsOptions:
    seeds: tuple[int, ...] = (0, 1, 2)
    budget: int = 40_000
    """Network evaluations in the rollouts of each run."""
    evaluations: int = 4
    """Held-out evaluations during each run."""
    images: int = 384
    """Images of each evaluation."""
    preset: str = "shapes"
    output: Path = Path("runs/methods")
    """Folder of the runs; what is done there is kept, what was interrupted goes on."""
    data: str | None = None
    """Preference set for the methods that read one."""
    iterations: int | None = None
    """Iterations of the methods that read a set, which spend no network evaluations on rollouts; none: the preset's."""
    reward: str | None = None
    """The reward of methods that follow a gradient, e.g. learned@runs/reward; every run is judged by it too."""
    json: bool = False
    """Print the summary of every run as JSON."""


def compare_methods(arguments: list[str]) -> None:
    names, command = [], " ".join(["beholder compare-methods", *arguments])
    while arguments and not arguments[0].startswith("-"):
        names.append(arguments.pop(0))
    options: CompareMethodsOptions = parse(
        CompareMethodsOptions,
        arguments,
        "compare-methods [METHOD ...]",
        "Run methods (when none is named, all that need no set and no learned reward) on the same budget, prompts and "
        "seeds, and compare them on one page.",
    )
    from beholder.training.compare_cli import compare_on_terminal

    given = {f.name: getattr(options, f.name) for f in fields(options) if f.name != "json"}
    compare_on_terminal(names, command, **given, as_json=options.json)


def prefer(arguments: list[str]) -> None:
    from beholder.preferences.settings import PreferOptions, SetConfig

    said = "Make a preference set: draw images, measure them, let simulated annotators judge."
    options: PreferOptions = parse(PreferOptions, arguments, "prefer", said)
    config = SetConfig(**{f.name: getattr(options, f.name) for f in fields(SetConfig)})
    from beholder.preferences.terminal import prefer

    prefer(options.output, config, options.json)


@dataclass
class PreferencesOptions:
    output: Path | None = None
    """With --from: the set that is written, a .parquet file, or a folder for several."""
    join: Path | None = None
    """With --from richhf-18k: Pick-a-Pic v1's parquet files, or a JSONL file of {"image": path, "prompt": text}."""
    embed: bool = False
    """With --from: take the bytes of image files into the set; otherwise it holds their absolute paths."""
    media: bool = True
    """Decode every image; --no-media only reads the judgements."""
    json: bool = False
    """Print as JSON, with every problem."""


def preferences(arguments: list[str]) -> None:
    """``preferences SET`` and ``preferences PATH --from FORMAT --output SET``."""
    source = take_option(arguments, "from")
    paths = [arguments.pop(0)] if arguments and not arguments[0].startswith("-") else []
    options: PreferencesOptions = parse(
        PreferencesOptions,
        arguments,
        "preferences PATH [--from FORMAT]",
        "Check a preference set (a .parquet file, a folder, a pattern) and say what it holds; or convert a public data "
        "set, --from pick-a-pic, hpd-v1, hpd-v2, imagerewarddb, richhf-18k, simulacra, visionrewarddb-image, "
        "visionrewarddb-video, rlhf-v or rlaif-v.",
    )
    if not paths:
        raise InputError("preferences: give a preference set, e.g. beholder preferences runs/pairs")
    from beholder.preferences.terminal import bring_in, look

    if source is not None:
        return bring_in(
            Path(paths[0]), source, options.output, options.join, options.embed, options.media, options.json
        )
    for name in ("output", "join", "embed"):
        if getattr(options, name):
            raise InputError(f"--{name} goes with --from FORMAT; name the format or leave it out")
    return look(Path(paths[0]), options.media, options.json)


def fit(arguments: list[str]) -> None:
    from beholder.fitting.settings import FitConfig, FitOptions

    paths = [arguments.pop(0)] if arguments and not arguments[0].startswith("-") else []
    said = "Fit a reward model of your own to a preference set (a .parquet file, a folder, a pattern)."
    options: FitOptions = parse(FitOptions, arguments, "fit SET", said)
    if not paths:
        raise InputError("fit: give a preference set, e.g. beholder fit runs/pairs; beholder prefer makes one")
    config = FitConfig(**{f.name: getattr(options, f.name) for f in fields(FitConfig)})
    from beholder.fitting.terminal import fit_on_terminal

    fit_on_terminal(Path(paths[0]), options.output, config, options.json)


def annotate(arguments: list[str]) -> None:
    from beholder.checklists.settings import AnnotateOptions

    said = "Let a judge answer a checklist about every image or video of a preference set."
    data, options = _set_and_options("annotate", AnnotateOptions, arguments, said)
    from beholder.checklists.terminal import annotate_on_terminal

    annotate_on_terminal(data, options)


def weigh(arguments: list[str]) -> None:
    from beholder.checklists.settings import WeighOptions

    said = "Fit the weights of a checklist to the preferences of a set whose images or videos have its answers."
    data, options = _set_and_options("weigh", WeighOptions, arguments, said)
    from beholder.checklists.terminal import weigh_on_terminal

    weigh_on_terminal(data, options)


def bias(arguments: list[str]) -> None:
    from beholder.checklists.settings import BiasOptions

    said = "Say in what the preferred images or videos of a set are better: answers to a checklist, by dimension."
    data, options = _set_and_options("bias", BiasOptions, arguments, said)
    from beholder.checklists.terminal import bias_on_terminal

    bias_on_terminal(data, options)


def teach(arguments: list[str]) -> None:
    from beholder.checklists.settings import TeachOptions

    said = "Teach a judge the answers in a set: a small network from scratch, or a vision-language model with LoRA."
    data, options = _set_and_options("teach", TeachOptions, arguments, said)
    from beholder.checklists.terminal import teach_on_terminal

    teach_on_terminal(data, options)


def _set_and_options(verb: str, kind: type, arguments: list[str], said: str) -> tuple[Path, Any]:
    """The preference set that is named first, and the options behind it."""
    paths = _leading_paths(arguments)
    options = parse(kind, arguments, f"{verb} SET", said)
    if len(paths) != 1:
        raise InputError(f"{verb}: give one preference set, e.g. beholder {verb} runs/pairs")
    return paths[0], options


VERBS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "methods": methods,
    "align": align,
    "sample": sample,
    "rewards": rewards,
    "score": score,
    "serve": serve,
    "ask": ask,
    "compare": compare,
    "prefer": prefer,
    "preferences": preferences,
    "fit": fit,
    "annotate": annotate,
    "weigh": weigh,
    "bias": bias,
    "teach": teach,
    "report": report,
    "compare-methods": compare_methods,
}


if __name__ == "__main__":
    main()
