"""Checklists as data: what is refused, what is read back, and the authors' own files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beholder.errors import InputError
from beholder.judges.checklist import Checklist, Question
from beholder.judges.checklist_file import bundled_checklists, load_checklist, save_checklist
from beholder.judges.official import IMAGE_LINES, PRESENCE, VIDEO_LINES, import_official

FACE = Question("face", "Is there a face?", "fidelity")
GOOD = Question("good", 'Is "[[prompt]]" good?', "quality", weight=2.0)
SMILE = Question("smile", "Is the face good?", "fidelity", weight=1.0, only_if="face")
LIST = Checklist("mine", "image", (FACE, SMILE, GOOD))

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    str.strip
)


def test_what_is_derived() -> None:
    assert LIST.needs_prompt and LIST.dimensions == ("fidelity", "quality") and LIST.divisor == 1
    assert replace(LIST, reduction="mean").divisor == 2
    assert LIST.texts("a [[prompt]] b") == ["Is there a face?", "Is the face good?", 'Is "a [[prompt]] b" good?']
    with pytest.raises(InputError, match="asks about the prompt"):
        LIST.texts(None)
    unmasked = replace(LIST, questions=(FACE, GOOD, replace(GOOD, id="idle", weight=0.0)))
    assert [q.id for q in unmasked.needed().questions] == ["good"]
    assert LIST.needed() == LIST, "the mask of a question with a weight is needed"


MISTAKES = {
    "two questions are called 'good'": (GOOD, GOOD),
    "no question has a weight": (FACE,),
    "asks nothing": (replace(GOOD, ask=" "),),
    "finite number": (replace(GOOD, weight=float("inf")),),
    "'fase', which is no question of it; did you mean 'face'": (FACE, replace(SMILE, only_if="fase")),
    "a condition of its own": (FACE, SMILE, replace(GOOD, only_if="smile")),
    "'loop', which has a condition": (GOOD, replace(GOOD, id="loop", only_if="loop")),
}


@pytest.mark.parametrize("said", MISTAKES)
def test_a_wrong_checklist_is_refused(said: str) -> None:
    with pytest.raises(InputError) as caught:
        Checklist("mine", "image", MISTAKES[said])
    assert said in str(caught.value) and "'mine'" in str(caught.value)


@given(
    st.lists(st.tuples(words, words, words, st.floats(-9, 9)), min_size=1, max_size=5, unique_by=lambda q: q[0]),
    st.sampled_from(["signed", "binary", "probability"]),
    st.sampled_from(["sum", "mean"]),
    st.floats(-3, 3),
)
def test_a_saved_checklist_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list, coding: str, reduction: str, intercept: float
) -> None:
    questions = [Question(name, ask, dimension, weight=weight) for name, ask, dimension, weight in rows]
    made = Checklist("any", "video", (GOOD, *(q for q in questions if q.id != "good")), coding, reduction, intercept)  # pyright: ignore[reportArgumentType]
    file = tmp_path_factory.mktemp("lists") / "list.yaml"
    save_checklist(made, file)
    assert load_checklist(file) == made


def test_json_is_read_too(tmp_path: Path) -> None:
    data = {
        "name": "mine",
        "media": "image",
        "questions": [{"id": "a", "ask": "Is it?", "dimension": "d", "weight": 1}],
    }
    (tmp_path / "list.json").write_text(json.dumps(data))
    assert load_checklist(tmp_path / "list.json").questions[0].weight == 1.0


FILES = {
    "[1, 2]": "expected the fields of a checklist",
    "name: [": "not YAML or JSON",
    "name: x\nmedia: sound\nquestions: []": "'sound' is not one of image, video",
    "name: x\nmedia: image\nquestons: []": "did you mean 'questions'",
    "name: x\nmedia: image\nquestions: [{id: a, ask: b, dimension: c, wieght: 1}]": "did you mean 'weight'",
    "name: x\nmedia: image\nquestions: [{id: a, ask: b, weight: 1}]": "dimension",
    "name: x\nmedia: image\nquestions: [{id: a, ask: b, dimension: c, weight: heavy}]": "expected float",
}


@pytest.mark.parametrize("text", FILES)
def test_a_wrong_file_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_checklist(tmp_path / "list.yaml")
    assert FILES[text] in str(caught.value) and "list.yaml" in str(caught.value)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'visionreward-image'"):
        load_checklist("visionreward-images")


# ------------------------------------------------------------------------------------------------------- bundled


@pytest.mark.parametrize("name", bundled_checklists())
def test_every_bundled_checklist_says_where_it_comes_from(name: str) -> None:
    checklist = load_checklist(name)
    assert checklist.name == name and checklist.source
    assert all(q.weight >= 0 for q in checklist.questions), "every question is phrased so that yes is better"


def test_the_published_image_checklist() -> None:
    """Counts of the paper's table (5 dimensions; one lighting question belongs to two sub-dimensions there, 61 in all),
    and the weights of the released file.
    """
    checklist = load_checklist("visionreward-image")
    count = {name: sum(q.dimension == name for q in checklist.questions) for name in checklist.dimensions}
    assert count == {"alignment": 1, "composition": 13, "quality": 13, "safety and emotion": 8, "fidelity": 25}
    assert len({q.sub_dimension for q in checklist.questions}) == 18
    weight = {q.id: q.weight for q in checklist.questions}
    assert sum(w > 0 for w in weight.values()) == 28
    assert weight["alignment"] == 2.3542882631150923
    assert sum(weight.values()) == pytest.approx(2.5369059108958987 + 2.3542882631150923, abs=1e-12)
    assert weight["richness-4"] == 0.5828223926159606 and weight["clarity-4"] == 0.3247595671294795
    guarded = {q.id: q.only_if for q in checklist.needed().questions if q.only_if}
    assert sorted(guarded.values()) == ["body"] * 5 + ["face"] * 2 + ["hands"]
    assert guarded["safety-3"] == guarded["safety-4"] == "body", "the released script asks for a body first"


def test_the_published_video_checklist() -> None:
    checklist = load_checklist("visionreward-video")
    count = {d: sum(q.dimension == d for q in checklist.questions) for d in {q.dimension for q in checklist.questions}}
    expected = {"alignment": 4, "composition": 2, "quality": 14, "fidelity": 9, "safety": 4, "stability": 12}
    assert count == expected | {"dynamic": 8, "physics": 4, "preservation": 7}
    assert len({q.sub_dimension for q in checklist.questions}) == 20
    sums = {d: round(sum(q.weight for q in checklist.questions if q.dimension == d), 4) for d in count}
    assert sums == {
        **{"alignment": 2.3486, "fidelity": 1.2069, "preservation": 0.8647, "quality": 0.8189, "stability": 0.4202},
        **{"physics": 0.3942, "dynamic": 0.1634, "composition": 0.0602, "safety": 0.0},
    }
    assert checklist.divisor == len(checklist.needed().questions) == 29
    assert [q.id for q in checklist.questions if "[[prompt]]" in q.ask] == [f"alignment-{i}" for i in range(1, 5)]


# ----------------------------------------------------------------------------------------- the authors' own files


def official_files(folder: Path, media: str, selected: bool) -> tuple[Path, Path]:
    """The bundled questions and weights in the form of the released files."""
    questions = [q for q in load_checklist(f"visionreward-{media}").questions if q.id != "alignment"]
    lines = (IMAGE_LINES if media == "image" else VIDEO_LINES) if selected else range(1, len(questions) + 1)
    chosen = [questions[n - 1] for n in lines]
    (folder / "qa.txt").write_text("\n".join(q.ask + " " * (n % 2) for n, q in enumerate(chosen)))
    if media == "image":
        coefficients = [q.weight for q in chosen if q.id not in PRESENCE.values()]
        data = {"coef": [2.3542882631150923, *coefficients], "intercept": [0.0]}
    else:
        data = [q.weight for q in questions if q.weight]
    (folder / "weight.json").write_text(json.dumps(data))
    return folder / "qa.txt", folder / "weight.json"


@pytest.mark.parametrize(
    ("media", "selected", "lines", "weights"),
    [("image", False, 59, 55), ("image", True, 30, 28), ("video", False, 64, 29), ("video", True, 29, 29)],
)
def test_official_files_are_read(tmp_path: Path, media: str, selected: bool, lines: int, weights: int) -> None:
    questions, weight_file = official_files(tmp_path, media, selected)
    data = json.loads(weight_file.read_text())
    assert len(questions.read_text().split("\n")) == lines
    assert len(data["coef"] if media == "image" else data) == weights
    bundled = load_checklist(f"visionreward-{media}")
    read = import_official(questions, weight_file, "image" if media == "image" else "video")
    assert read == (bundled.needed() if selected else bundled)
    assert read.needed() == bundled.needed(), "the long and the short list give the same score"


def test_files_of_different_releases_are_refused(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("long", "short", "video")}
    for folder in folders.values():
        folder.mkdir()
    long, _ = official_files(folders["long"], "image", False)
    short, few = official_files(folders["short"], "image", True)
    of_video, plain = official_files(folders["video"], "video", True)
    with pytest.raises(InputError, match="holds 28 weights, not 55 for 59 questions"):
        import_official(long, few, "image")
    with pytest.raises(InputError, match="holds 30 questions, not 29 or 64"):
        import_official(short, plain, "video")
    with pytest.raises(InputError, match="a list of numbers"):
        import_official(of_video, few, "video")
    plain.write_text("[0.5, 0.5]")
    with pytest.raises(InputError, match="holds 2 weights, not 29"):
        import_official(of_video, plain, "video")


@pytest.mark.parametrize(
    "data", [[0.1] * 28, {"coef": [1.0] * 28}, {"coef": ["x"], "intercept": [0.0]}, {"coef": [1.0], "intercept": 0.0}]
)
def test_wrong_weights_are_refused(tmp_path: Path, data: object) -> None:
    questions, weights = official_files(tmp_path, "image", True)
    weights.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"weight\.json"):
        import_official(questions, weights, "image")
