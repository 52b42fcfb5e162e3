"""Which preset a run starts from."""

from pathlib import Path

from beholder.config import RunConfig
from beholder.config_file import read_config
from beholder.errors import InputError
from beholder.methods import find_method


def choose_preset(method: str, preset: str | None, file: str | None, other_model: bool) -> RunConfig:
    """A named preset, a YAML file, or by default: `shapes` for the bundled generator, `published` for any other."""
    row = find_method(method)
    if file is not None:
        if preset is not None:
            raise InputError("--preset and --config: give one of them")
        config = read_config(Path(file))
        if config.method != method:
            raise InputError(f"--config: {file!r} is a run of {config.method!r}, not of {method!r}")
        return config
    if preset is None:
        preset = "published" if other_model else "shapes"
    return row.preset(preset)
