"""`beholder demo`, `methods`, `align`, `sample`, `report` and `compare-methods`."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from beholder.arguments import parse, take_option
from beholder.errors import InputError


@dataclass
class DemoOptions:
    output: Path = Path("runs/demo")
    """Folder of the run; an earlier demo there is replaced."""
    seed: int = 0
    hack: bool = False
    """Show reward hacking instead: train on redness alone, without and with a KL term; two to four minutes."""
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
        if value is not None and take_option(list(arguments), option[2:]) is not None:
            raise InputError(f"--{short}: is short for {option}, which is given too; leave one of them out")
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
