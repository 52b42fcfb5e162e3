"""The HTML report: what it says of a run folder, what it tolerates, what it refuses, how it looks in a browser."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from made_run import EVIL, build_run, page_text, write_json, write_rows

from beholder.errors import InputError
from beholder.report import pictures, write_report
from beholder.report.reading import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("runs") / "first")


# What it says -------------------------------------------------------------------------------------------------------


def test_page_states_the_result_and_the_numbers_of_the_run(run: Path) -> None:
    path = write_report(run)
    text = page_text(path)
    assert path == run / "report.html"
    assert "Flow-GRPO-Fast on shapes" in text
    assert "Strict accuracy 0.50 → 0.78 on 240 held-out images after 61,440 network evaluations, 412 s." in text
    assert "Of 12 prompts, 2 became right and 0 became wrong by the last evaluation" in text
    assert "counting" in text and "40 images per kind" in text and "group: 24" in text
    assert "31 % of the groups taught nothing" in text and "The doctor reports 1 warning" in text
    assert text.index("groups without variance") < text.index("ratio at the first update"), "gravest finding first"
    steps = text[text.index("Clip fraction per denoising step") :]
    assert steps.index("step 1 ") < steps.index("step 2 ") < steps.index("step 10"), "steps in numerical order"


def test_page_needs_nothing_from_outside_and_leaves_no_temporary_file(run: Path) -> None:
    path = write_report(run)
    html = path.read_text("utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert not re.search(r"url\((?!data:)", html) and "@import" not in html
    assert path.stat().st_size < 1_500_000
    assert not list(run.glob(".report*"))


def test_the_same_run_gives_the_same_page(run: Path, tmp_path: Path) -> None:
    one = write_report(run, output=tmp_path / "one.html")
    other = write_report(run, output=tmp_path / "new" / "two.html")
    assert one.read_bytes() == other.read_bytes()


def test_text_of_the_run_folder_is_escaped(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "evil", method=EVIL, reward=EVIL)
    prompts = json.loads((folder / "samples/prompts.json").read_text())
    write_json(folder / "samples/prompts.json", [{**p, "text": EVIL, "kind": EVIL} for p in prompts])
    write_json(folder / "findings.json", [{"check": EVIL, "level": "problem", "message": EVIL}])
    html = write_report(folder).read_text("utf-8")
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert") > len(prompts)


def test_nan_and_missing_fields_show_as_a_dash(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    rows: list[dict[str, Any]] = [
        {
            "event": "evaluation",
            "iteration": 0,
            "network_evaluations": 0,
            "rewards": {"strict": 0.5},
            "per_kind": {"single": float("nan")},
        },
        {"event": "train", "iteration": 1, "network_evaluations": 10, "reward": {"shapes": None}, "kl": float("nan")},
        {"event": "evaluation", "iteration": 1, "rewards": {"strict": float("nan")}, "per_kind": None},
    ]
    write_rows(folder / "metrics.jsonl", rows)
    text = page_text(write_report(folder))
    assert "Strict accuracy 0.50 → – after 10 network evaluations." in text
    assert "nan" not in text.lower() and "single – –" in text
    assert "Not recorded: Training reward · shapes, KL to the reference, Diversity" in text


@pytest.mark.parametrize("rows", [[], [{"event": "evaluation", "iteration": 0, "rewards": {"strict": 0.5}}]])
def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path / "early"
    folder.mkdir()
    write_rows(folder / "metrics.jsonl", rows)
    text = page_text(write_report(folder))
    assert "early" in text and ("Strict accuracy 0.50 → –." in text or "Nothing has been measured yet." in text)


def test_without_evaluations_the_summary_speaks(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").touch()
    base, aligned = {"gold": 0.4, "per_kind": {"two": 0.3}}, {"gold": 0.6, "per_kind": {"two": 0.7}}
    names, cost = {"method": "DPO", "policy": "sd"}, {"network_evaluations": 5000, "seconds": 7200}
    summary = {**names, **cost, "base": base, "aligned": aligned}
    write_json(folder / "summary.json", summary)
    text = page_text(write_report(folder))
    assert "DPO on sd Strict accuracy 0.40 → 0.60 after 5,000 network evaluations, 2 h 00 min." in text
    assert "two 0.30 0.70 +0.40" in text


def test_a_reward_that_is_no_verdict_is_shown_as_its_value(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "run", reward="HPSv3")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["event"] == "evaluation":
            row |= {"rewards": {"HPSv3": 9.5 + row["iteration"] / 10}, "per_kind": {"two": 8.25}, "interval": None}
    write_rows(folder / "metrics.jsonl", rows)
    for path in (folder / "samples").glob("iteration_*.json"):
        write_json(path, [{"HPSv3": 7.5}] * 12)
    text = page_text(write_report(folder))
    assert "Held-out HPSv3 9.50 → 11.50 on 240 images after" in text
    assert "Held-out HPSv3 per kind of prompt" in text and "two 8.25 8.25 0.00" in text
    assert "after 7.50" in text and "✓" not in text and "(gold)" not in text and "accuracy" not in text


def test_several_runs_stand_side_by_side(run: Path, tmp_path: Path) -> None:
    hacked = build_run(tmp_path / "hacked", method="ReFL", reward="redness", gold=(0.5, 0.15), proxy=(0.2, 0.9), seed=3)
    path = write_report(run, hacked, output=tmp_path / "both.html")
    text = page_text(path)
    assert "2 runs side by side" in text
    assert "B ReFL : training reward redness 0." in text and "strict accuracy (gold) 0.50 → 0.17 on 240" in text
    assert (
        "A Flow-GRPO-Fast : training reward shapes 0.49 → 0.76" in text and "strict accuracy (gold) 0.50 → 0.78" in text
    )
    assert "ReFL learned to please its reward" in text and "Flow-GRPO-Fast learned to please" not in text
    assert "Settings that differ A Flow-GRPO-Fast B ReFL method flow-grpo-fast ReFL rewards.shapes" in text
    html = path.read_text("utf-8")
    assert html.count('class="samples"') == 1, "same prompts, seeds and base: one gallery"
    assert html.count('class="panel"') == 12 * 3
    assert 'class="line run-1' in html


def test_pictures_beyond_the_budget_are_left_out_and_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BUDGET", 1)
    path = write_report(run)
    assert re.findall(r"^\.(g\d-\d+) {", path.read_text("utf-8"), re.M) == ["g0-0", "g0-20"], "first and last stay"
    assert "3 further evaluations are in the run folder" in page_text(path)


def test_runs_with_other_prompts_get_their_own_pictures(run: Path, tmp_path: Path) -> None:
    other = build_run(tmp_path / "other", n_prompts=6)
    html = write_report(run, other, output=tmp_path / "both.html").read_text("utf-8")
    assert html.count('class="samples"') == 2
    assert "first" in html and "other" in html, "runs of one method are told apart by their folders"


# What it tolerates and refuses --------------------------------------------------------------------------------------


def test_a_last_line_cut_off_is_left_out_and_said(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "killed")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "itera')
    n = len((folder / "metrics.jsonl").read_text().splitlines())
    assert f"metrics.jsonl line {n} is cut off and was left out" in page_text(write_report(folder))


def test_a_picture_cut_off_is_left_out_and_said(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "killed")
    picture = folder / "samples/iteration_00020.png"
    picture.write_bytes(picture.read_bytes()[:1000])
    path = write_report(folder)
    assert "samples/iteration_00020.png cannot be read and was left out" in page_text(path)
    assert ".g0-15 {" in path.read_text("utf-8")


def test_a_broken_line_in_the_middle_is_an_error_naming_file_and_line(tmp_path: Path) -> None:
    folder = build_run(tmp_path / "broken")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[3] = lines[3][:20]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl line 4: .* is not a JSON object; correct or remove"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder; give the run folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no metrics\.jsonl"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "metrics.jsonl",
            '{"event": "train", "iteration": 1, "reward": {"shapes": "high"}}\n',
            "reward.shapes: 'high' is not a number",
        ),
        ("metrics.jsonl", '{"event": "train"}\n', "line 1: iteration: 'None' is not a whole number"),
        (
            "findings.json",
            '[{"check": "a", "level": "bad"}]',
            "level 'bad' of 'a' is not one of problem, warning, note, ok",
        ),
        ("summary.json", "{", "summary.json: cannot be read"),
        ("samples/layout.json", '{"columns": 5, "height": 32, "width": 32}', "192 x 64 pixels, but layout.json"),
        ("samples/iteration_00005.json", "[]", "0 cells for 12 prompts"),
    ],
)
def test_a_wrong_value_is_refused_by_name(tmp_path: Path, file: str, content: str, message: str) -> None:
    folder = build_run(tmp_path / "wrong")
    (folder / file).write_text(content)
    with pytest.raises(InputError, match=re.escape(message)):
        write_report(folder)


def test_of_two_rows_for_one_iteration_the_later_counts(tmp_path: Path) -> None:
    folder = tmp_path / "resumed"
    folder.mkdir()
    write_rows(folder / "metrics.jsonl", [{"event": "train", "iteration": 1, "kl": kl} for kl in (0.1, 0.2)])
    assert [row.numbers["kl"] for row in read_run(folder).training] == [0.2]


# In a browser -------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_in_a_browser(run: Path, tmp_path: Path, chromium: Any, width: int, scheme: str, several: bool) -> None:
    others = [build_run(tmp_path / "other", method="ReFL", gold=(0.5, 0.15), seed=3)] if several else []
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url),
    )
    page.goto(write_report(run, *others, output=tmp_path / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "no horizontal scroll"
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")

    before, after = page.locator(".samples figure").nth(3).locator(".cell").all()[:2]
    shown = after.screenshot()
    kept = before.screenshot()
    page.locator(".slider input").fill("0")
    assert page.locator(".slider output").inner_text() == "0"
    assert after.screenshot() != shown and before.screenshot() == kept, "the slider moves the aligned pictures only"
    assert after.screenshot() == kept, "at iteration 0 both are the base's"

    assert page.locator(".by-calls svg").first.is_visible() and not page.locator(".by-seconds svg").first.is_visible()
    page.locator("label[for=axis-seconds]").click()
    assert page.locator(".by-seconds svg").first.is_visible() and not page.locator(".by-calls svg").first.is_visible()
    assert not complaints
    page.close()


@pytest.mark.browser
def test_page_without_scripts_shows_before_and_after(run: Path, tmp_path: Path, chromium: Any) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(write_report(run, output=tmp_path / "report.html").as_uri())
    assert not page.locator(".slider").first.is_visible()
    before, after = page.locator(".samples figure").nth(3).locator(".cell").all()
    assert before.screenshot() != after.screenshot()
    context.close()
