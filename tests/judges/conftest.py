"""Small vision-language models on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tiny_vlms import save_vlm


@pytest.fixture(scope="session")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's small model, made when first asked for; not to be written to."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = save_vlm(family, tmp_path_factory.mktemp(family))
        return made[family]

    return folder
