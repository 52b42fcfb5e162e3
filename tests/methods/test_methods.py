"""The method table: complete, documented, and true to its presets."""

import re
from pathlib import Path

import pytest

from beholder.config_file import from_yaml, to_yaml
from beholder.errors import InputError
from beholder.methods import METHODS, Method, find_method
from beholder.methods.show import methods_markdown

DOCUMENT = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_documentation_holds_the_generated_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = re.search(r"keeps it true -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert shown is not None
    assert shown.group(1) == methods_markdown(), "run python -m beholder.methods.show and paste its output"


@pytest.mark.parametrize("row", METHODS.values(), ids=METHODS)
def test_a_row_names_itself_its_paper_and_its_published_settings(row: Method) -> None:
    assert re.search(r"\d{4}\.\d{5}|20\d\d\)", row.paper)
    assert {"published", "shapes"} <= set(row.presets)
    for preset in row.presets.values():
        assert preset.method == row.name
        assert from_yaml(to_yaml(preset)) == preset


def test_an_unknown_method_or_preset_names_the_nearest() -> None:
    with pytest.raises(InputError, match="flow-grpo"):
        find_method("flow-gpro")
    with pytest.raises(InputError, match="published"):
        find_method("flow-grpo").preset("publishd")
