"""The README's picture from a run: ``python benchmarks/before_after.py RUN docs/images/before_after.png``."""

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS, ZOOM, GAP, TEXT = 6, 3, 10, 18
INK, PAPER, RIGHT, WRONG = "#1b1b1b", "#ffffff", "#1a7f37", "#c0392b"


def cells(run: Path, iteration: str) -> list[Image.Image]:
    """The pictures of one evaluation, cut out of its grid and enlarged crisply."""
    layout = json.loads((run / "samples" / "layout.json").read_text(encoding="utf-8"))
    width, height = layout["width"], layout["height"]
    with Image.open(run / "samples" / f"{iteration}.png") as grid:
        whole = grid.convert("RGB")
    corners = [(x, y) for y in range(0, whole.height, height) for x in range(0, whole.width, width)]
    crops = [whole.crop((x, y, x + width, y + height)) for x, y in corners]
    return [crop.resize((width * ZOOM, height * ZOOM), Image.Resampling.NEAREST) for crop in crops]


def main() -> None:
    run, target = Path(sys.argv[1]), Path(sys.argv[2])
    iterations = sorted(p.stem for p in (run / "samples").glob("iteration_*.png"))
    prompts = json.loads((run / "samples" / "prompts.json").read_text(encoding="utf-8"))
    pictures = [cells(run, iteration) for iteration in (iterations[0], iterations[-1])]
    verdicts = [
        json.loads((run / "samples" / f"{iteration}.json").read_text(encoding="utf-8"))
        for iteration in (iterations[0], iterations[-1])
    ]
    side = pictures[0][0].width
    step_x, step_y = 2 * side + 3 + GAP, side + 2 * TEXT + GAP
    rows = -(-len(prompts) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * step_x + GAP, rows * step_y + GAP), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    for i, prompt in enumerate(prompts):
        x, y = GAP + i % COLUMNS * step_x, GAP + i // COLUMNS * step_y
        for k in (0, 1):
            good = verdicts[k][i]["shapes_strict"] == 1
            canvas.paste(pictures[k][i], (x + k * (side + 3), y))
            label = f"{('before', 'after')[k]}: {'right' if good else 'wrong'}"
            draw.text((x + k * (side + 3), y + side + 1), label, fill=RIGHT if good else WRONG, font=font)
        draw.text((x, y + side + TEXT), prompt["text"], fill=INK, font=font)
    target.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(target, optimize=True)


if __name__ == "__main__":
    main()
