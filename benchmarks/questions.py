"""What it saves to encode a picture once for all questions of a checklist.

    python benchmarks/questions.py [--model NAME] [--side 448] [--repeats 3]

Three ways to put the published image checklist to one picture: one generation a question, as the released script does
(here of one token, where it generates until the end of the text); one pass a question; and the judge, which encodes the
picture and the beginning of the conversation once and puts the questions behind it in batches. Time is the processor's,
all cores together, the least of the repeats; floating-point operations are counted by torch and do not depend on the
machine. Without ``--model``, a Qwen2.5-VL with random weights: what it says means nothing, what it costs does.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import tyro
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from beholder.judges.checklist_file import load_checklist
from beholder.judges.load import load_judge
from beholder.judges.local import LocalJudge
from beholder.judges.medium import Medium
from beholder.judges.prefix import whole
from beholder.judges.settings import JudgeConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny_vlms


@dataclass
class Options:
    model: str | None = None
    """A folder or hub name; none builds one with random weights."""
    side: int = 448
    """Height and width of the picture."""
    repeats: int = 3


def main() -> None:
    options = tyro.cli(Options)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        name = options.model or str(build(Path(folder)))
        judge = load_judge(name, JudgeConfig(top=10**6, device="cpu"))
        assert isinstance(judge, LocalJudge)
    noise = np.random.default_rng(0).integers(0, 256, (options.side, options.side, 3), np.uint8)
    shown = Medium((Image.fromarray(noise),))
    questions = load_checklist("visionreward-image").needed().texts("a red circle and a blue square")
    alone = LocalJudge(name, judge.model, judge.processor, replace(judge.config, share_prefix=False))
    ways: dict[str, Callable[[], Any]] = {
        "one generation a question": lambda: generate(judge, shown, questions),
        "one pass a question": lambda: alone.ask(shown, questions).yes_Q,
        "shared prefix, batched": lambda: judge.ask(shown, questions).yes_Q,
    }
    tokens = whole(judge.processor, shown.stills, judge.render(questions[0], 1))["input_ids"].shape[1]
    weights = sum(p.numel() for p in judge.model.parameters())
    print(
        f"{judge.family}, {weights / 1e6:.0f} M parameters; {len(questions)} questions, {tokens} tokens with the first"
    )
    answers = ways["shared prefix, batched"]()
    print(f"largest difference of probabilities: {(answers - ways['one pass a question']()).abs().max():.1e}")
    seconds = {way: min(timed(run) for _ in range(options.repeats)) for way, run in ways.items()}
    operations = {way: counted(run) for way, run in ways.items()}
    slowest = next(iter(ways))
    for way in ways:
        gain, less = seconds[slowest] / seconds[way], operations[slowest] / operations[way]
        print(f"{way:26s} {seconds[way]:7.2f} s ({gain:4.1f}×)  {operations[way] / 1e9:8.1f} GFLOP ({less:4.1f}×)")


def generate(judge: LocalJudge, shown: Medium, questions: list[str]) -> list[str]:
    """The first generated token of every question, each from the picture on."""
    said = []
    for question in questions:
        inputs = whole(judge.processor, shown.stills, judge.render(question, 1))
        with torch.inference_mode():
            ids = judge.model.generate(**inputs, max_new_tokens=1, do_sample=False, pad_token_id=0)
        said.append(judge.processor.tokenizer.decode(ids[0, -1]))
    return said


def timed(run: Callable[[], Any]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def counted(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def build(folder: Path) -> Path:
    """A Qwen2.5-VL of about 30 million parameters: 256 visual tokens for 448×448 pixels, as the published ones.

    Its tokenizer is trained on the checklist, so that a word is a token, as in a published one.
    """
    tiny_vlms.save_vlm("qwen2_5_vl", folder)
    words: Any = transformers.AutoTokenizer.from_pretrained(folder)
    template = words.chat_template
    words = words.train_new_from_iterator([load_checklist("visionreward-image").texts("") * 9 + ["yes no"] * 99], 2000)
    words.chat_template = template
    words.save_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    text = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}
    text |= {"layer_types": ["full_attention"] * 8, "vocab_size": len(words)}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}}
    vision = {"hidden_size": 256, "intermediate_size": 768, "depth": 8, "num_heads": 4, "patch_size": 14}
    vision |= {"window_size": 112, "fullatt_block_indexes": [3, 7], "out_hidden_size": 512}
    tokens = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    tokens |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    own = {name: words.convert_tokens_to_ids(token) for name, token in tokens.items()}
    for part, settings in ((config.text_config, text), (config.vision_config, vision), (config, own)):
        for name, value in settings.items():
            setattr(part, name, value)
    torch.manual_seed(0)
    transformers.Qwen2_5_VLForConditionalGeneration(config).eval().save_pretrained(folder)
    transformers.Qwen2VLImageProcessorPil(patch_size=14, merge_size=2).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
