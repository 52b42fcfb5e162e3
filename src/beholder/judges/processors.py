"""Processors of vision-language models, also where torchvision is missing.

transformers builds the processor of Qwen-VL, SmolVLM, InternVL and others only with a video part, and that part only
with torchvision. Judges show a video as stills, so here such a processor goes without its video part.
"""

import json
import os
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils.import_utils import is_torchvision_available

from beholder.errors import InputError
from beholder.judges.judge import said_in_short

PARTS = {"image_processor": AutoImageProcessor, "tokenizer": AutoTokenizer}


def load_processor(name: str, config: Any, trust_remote_code: bool) -> Any:
    """The processor of the model ``name`` with this config; InputError where it has none for pictures and text."""
    kind: Any = PROCESSOR_MAPPING.get(type(config), None)
    try:
        if kind is None or is_torchvision_available() or "video_processor" not in kind.get_attributes():
            processor: Any = AutoProcessor.from_pretrained(name, trust_remote_code=trust_remote_code)
        else:
            parts = [PARTS[part].from_pretrained(name) if part in PARTS else None for part in kind.get_attributes()]
            settings = kind.get_processor_dict(name)[0]
            processor = _without_video(kind).from_args_and_dict(parts, dict(settings))
            processor.settings_on_disk = settings
    except ImportError as error:  # e.g. num2words, which SmolVLM's asks for
        raise InputError(f"model: the processor of {name!r} needs a package: {' '.join(str(error).split())}") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"model: {name!r} has no usable processor for pictures and text ({said_in_short(error)})"
        ) from error
    if not all(hasattr(processor, part) for part in PARTS):
        raise InputError(f"model: the processor of {name!r} is a {type(processor).__name__}, not one for pictures")
    return processor


def save_processor(processor: Any, folder: Path) -> None:
    """Writes what `load_processor` reads; a processor without its video part is written without one."""
    if not hasattr(processor, "settings_on_disk"):
        processor.save_pretrained(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    processor.tokenizer.chat_template = processor.chat_template or processor.tokenizer.chat_template
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    settings = {"processor_class": type(processor).__name__, **processor.settings_on_disk}
    kept = {name: value for name, value in settings.items() if name not in ("chat_template", "auto_map")}
    temporary = folder / "processor_config.json.tmp"
    temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "processor_config.json")


def _without_video(kind: type) -> Any:
    class Stills(kind):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor":
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    Stills.__name__ = kind.__name__  # transformers looks some things up by the class name
    return Stills
