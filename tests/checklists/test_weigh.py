"""From a set to a checklist with weights, and to the table of what the preferred ones have more of."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from answered_sets import WEIGHTS, answered_records, answered_set, portraits

from beholder.checklists.answers import read_answered
from beholder.checklists.bias import bias, interval
from beholder.checklists.settings import WeighConfig
from beholder.checklists.weigh import weigh
from beholder.checklists.weights import solve
from beholder.cli import run
from beholder.errors import InputError
from beholder.judges import score_answers
from beholder.judges.checklist_file import load_checklist, save_checklist
from beholder.preferences.schema import Medium, Record
from beholder.preferences.selection import Selection
from beholder.preferences.store import open_preferences, write_preferences

QUICK = WeighConfig(bootstrap=0)


def test_weights_of_people_are_found_and_beat_equal_ones(tmp_path: Path) -> None:
    checklist, report = weigh(
        answered_set(tmp_path / "set.parquet", 3000, seed=2), portraits(), replace(QUICK, ridge=0.0)
    )
    found = {q.id: q.weight for q in checklist.questions}
    assert found["face"] == 0.0
    for name, weight in WEIGHTS.items():
        assert found[name] == pytest.approx(weight, abs=0.25)
    held = report["held_out"]
    assert held["fitted"]["accuracy"] > held["weights_before"]["accuracy"] + 0.03
    assert held["fitted"]["loss"] < held["equal_weights"]["loss"]
    assert report["pairs"]["train"] + report["pairs"]["held_out"] == 3000


def test_the_difference_of_totals_is_the_log_odds(tmp_path: Path) -> None:
    path = answered_set(tmp_path / "set.parquet", 400)
    checklist, report = weigh(path, replace(portraits(), reduction="mean", intercept=3.0), replace(QUICK, held_out=0.0))
    answered = read_answered(open_preferences(path), checklist, Selection())
    total_2P = torch.stack([score_answers(checklist, torch.from_numpy(yes)).total_N for yes in answered.yes_2PQ])
    gap_P = (total_2P[0] - total_2P[1]).numpy()
    loss = (np.logaddexp(0, gap_P) - answered.p_P * gap_P).mean()
    weight_Q = np.array([q.weight for q in checklist.questions])
    assert report["solver"]["loss"] == pytest.approx(loss + QUICK.ridge / 2 * weight_Q @ weight_Q, abs=1e-9)
    assert report["held_out"] is None and report["pairs"] == {"train": 400, "held_out": 0}


def test_a_question_that_does_not_apply_counts_nothing(tmp_path: Path) -> None:
    """Its answers may be anything, null too, where its condition is not met."""
    records = answered_records(60)
    gone = []
    for record in records:
        smile = tuple(
            s if f else float("nan") for s, f in zip(record.answers["smile"], record.answers["face"], strict=True)
        )
        gone.append(replace(record, answers={**record.answers, "smile": smile}))
    write_preferences(tmp_path / "a.parquet", records)
    write_preferences(tmp_path / "b.parquet", gone)
    one, said = weigh(tmp_path / "a.parquet", portraits(), QUICK)
    other, same = weigh(tmp_path / "b.parquet", portraits(), QUICK)
    assert one == other and said["failed"] == same["failed"] == 0


def test_a_failed_answer_leaves_its_pair_out_and_is_counted(tmp_path: Path) -> None:
    records = answered_records(50)
    answers = {**records[7].answers, "bright": (float("nan"), 1.0)}
    broken = [*records[:7], replace(records[7], answers=answers), *records[8:]]
    write_preferences(tmp_path / "a.parquet", broken)
    write_preferences(tmp_path / "b.parquet", [*records[:7], *records[8:]])
    config = replace(QUICK, held_out=0.0)
    one, said = weigh(tmp_path / "a.parquet", portraits(), config)
    other, _ = weigh(tmp_path / "b.parquet", portraits(), config)
    assert said["failed"] == 1 and said["pairs"]["train"] == 49
    assert one == other


def test_ties_are_kept_as_halves_or_dropped(tmp_path: Path) -> None:
    path = answered_set(tmp_path / "set.parquet", 300, ties=0.4)
    kept, said = weigh(path, portraits(), replace(QUICK, held_out=0.0))
    dropped, without = weigh(path, portraits(), replace(QUICK, held_out=0.0, ties="drop"))
    assert said["ties"] > 80 and without["ties"] == 0
    assert said["pairs"]["train"] == 300 and without["pairs"]["train"] == 300 - said["ties"]
    assert sum(q.weight for q in kept.questions) < sum(q.weight for q in dropped.questions)


def test_votes_are_soft_labels(tmp_path: Path) -> None:
    answers = {
        name: (1.0, 0.0) if name == "right" else (0.0, 0.0) for name in ("right", "bright", "idle", "face", "smile")
    }
    media = (Medium(path="a.png"), Medium(path="b.png"))
    write_preferences(tmp_path / "set.parquet", [Record("a", media, votes=(3.0, 1.0), ties=2.0, answers=answers)])
    checklist, _ = weigh(tmp_path / "set.parquet", portraits(), replace(QUICK, held_out=0.0, ridge=0.0))
    assert checklist.questions[0].weight == pytest.approx(np.log(2.0), abs=1e-5)  # 4 of 6


def test_the_papers_solver_agrees(tmp_path: Path) -> None:
    path = answered_set(tmp_path / "set.parquet", 400)
    exact, _ = weigh(path, portraits(), replace(QUICK, ridge=0.0))
    sgd, said = weigh(path, portraits(), replace(QUICK, ridge=0.0, solver="sgd", rate=0.005, tolerance=1e-4))
    assert [q.weight for q in sgd.questions] == pytest.approx([q.weight for q in exact.questions], abs=0.05)
    assert said["solver"]["name"] == "sgd" and 1 < said["solver"]["passes"] < 500


def test_intervals_stand_beside_the_weights(tmp_path: Path) -> None:
    _, report = weigh(answered_set(tmp_path / "set.parquet", 400), portraits(), replace(QUICK, bootstrap=40))
    rows = {row["id"]: row for row in report["questions"]}
    assert list(rows) == ["right", "bright", "idle", "smile"]
    assert all(row["low"] <= row["weight"] <= row["high"] for row in rows.values())
    assert rows["right"]["low"] > 0 == rows["idle"]["low"]


def test_what_is_liked_for_its_no_gets_no_weight(tmp_path: Path) -> None:
    records = [
        replace(r, answers={**r.answers, "idle": tuple(1 - x for x in r.answers["right"])})
        for r in answered_records(200)
    ]
    records = [replace(r, answers={**r.answers, "right": (0.0, 0.0)}) for r in records]
    write_preferences(tmp_path / "set.parquet", records)
    masked, report = weigh(tmp_path / "set.parquet", portraits(), QUICK)
    free, _ = weigh(tmp_path / "set.parquet", portraits(), replace(QUICK, mask=False))
    idle = [q.id for q in masked.questions].index("idle")
    assert masked.questions[idle].weight == 0.0 > -0.5 > free.questions[idle].weight
    row = next(row for row in report["questions"] if row["id"] == "idle")
    assert row["without_mask"] == pytest.approx(free.questions[idle].weight, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: replace(r, answers={}), "beholder annotate"),
        (lambda r: replace(r, ranks=None), "hold no pair"),
        (lambda r: replace(r, answers={k: v for k, v in r.answers.items() if k != "idle"}), "no question 'idle'"),
        (lambda r: replace(r, answers={**r.answers, "bright": (float("nan"),) * 2}), "let the judge answer again"),
        (lambda r: replace(r, answers={k: (1.0, 1.0) for k in r.answers}), "none has a weight"),
    ],
)
def test_a_set_that_cannot_be_weighed_says_why(tmp_path: Path, change, message: str) -> None:
    write_preferences(tmp_path / "set.parquet", [change(r) for r in answered_records(20)])
    with pytest.raises(InputError, match=message):
        weigh(tmp_path / "set.parquet", portraits(), QUICK)


def test_bias_by_hand(tmp_path: Path) -> None:
    """Four pairs; the first is preferred in all, and a fifth is a tie."""

    def record(i: int, face: tuple[float, float], smile: tuple[float, float], tie: bool = False) -> Record:
        answers = {"right": (1.0, 0.0), "bright": (float(i % 2), 1.0), "idle": (0.0, 0.0), "face": face, "smile": smile}
        media = (Medium(path="a.png"), Medium(path="b.png"))
        return Record(f"p{i}", media, ranks=(1.0, 1.0 if tie else 2.0), answers=answers)

    both, one = (1.0, 1.0), (1.0, 0.0)
    records = [record(0, both, one), record(1, both, both), record(2, one, one), record(3, both, (0.0, 1.0))]
    write_preferences(tmp_path / "set.parquet", [*records, record(4, both, one, tie=True)])
    report = bias(tmp_path / "set.parquet", portraits())
    rows = {row["name"]: row for row in report["questions"]}
    assert report["pairs"] == 4 and set(rows) == {"right", "bright", "idle", "smile"}
    assert rows["right"]["difference"] == 1.0 and rows["right"]["better"] == 1.0
    assert rows["bright"]["preferred"] == 0.5 and rows["bright"]["difference"] == -0.5
    assert rows["idle"]["better"] is None and rows["idle"]["differ"] == 0
    assert rows["smile"]["pairs"] == 3 and rows["smile"]["difference"] == 0.0 and rows["smile"]["better"] == 0.5
    beauty = next(row for row in report["dimensions"] if row["name"] == "beauty")
    assert beauty["difference"] == -0.25 and beauty["better"] == 0.0


def test_an_interval_takes_a_prompts_pairs_together() -> None:
    value_P = np.array([1.0, 0.0, 1.0, 1.0])
    mean, low, high = interval(value_P, np.ones(4), np.arange(4))
    assert mean == 0.75 and low is not None and high is not None
    assert (high - low) / 2 / 1.959963984540054 == pytest.approx(value_P.std(ddof=1) / 2)
    twice = interval(np.repeat(value_P, 2), np.ones(8), np.repeat(np.arange(4), 2))
    assert twice == pytest.approx((mean, low, high))
    assert interval(value_P, np.ones(4), np.zeros(4)) == (0.75, None, None)


def test_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = answered_set(tmp_path / "set.parquet", 200)
    save_checklist(portraits(), tmp_path / "portraits.yaml")
    named = ["--checklist", str(tmp_path / "portraits.yaml")]
    out = tmp_path / "new" / "weights.yaml"
    assert run(["weigh", str(data), *named, "--output", str(out), "--bootstrap", "5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    written = load_checklist(out)
    assert {row["id"]: row["weight"] for row in said["questions"]} == {
        q.id: pytest.approx(q.weight) for q in written.questions if q.id != "face"
    }
    assert json.loads((tmp_path / "new" / "weights.report.json").read_text())["pairs"] == said["pairs"]
    assert run(["weigh", str(data), *named, "--output", str(out)]) == 0
    assert "without mask" in capsys.readouterr().out
    assert run(["bias", str(data), *named]) == 0
    assert "alignment" in capsys.readouterr().out
    assert run(["weigh", str(data), *named, "--output", "weights.txt"]) == 2
    assert run(["weigh", str(data), *named, "--ridge", "-1"]) == 2
    assert run(["bias"]) == 2


def test_every_pair_of_a_ranking_is_read(tmp_path: Path) -> None:
    names = ("right", "bright", "idle", "face", "smile")
    answers = {name: (1.0, 0.0, 1.0) for name in names}
    media = tuple(Medium(path=f"{k}.png") for k in range(3))
    write_preferences(
        tmp_path / "set.parquet", [Record("a", media, ranks=(2.0, 3.0, 1.0), answers=answers, weight=2.0)]
    )
    answered = read_answered(open_preferences(tmp_path / "set.parquet"), portraits(), Selection())
    pairs, whole_P = answered.counted()
    assert whole_P.all() and pairs.weight_P.tolist() == [2.0] * 3
    wins = sorted(zip(pairs.gap_PQ[:, 0].tolist(), pairs.p_P.tolist(), strict=True))
    assert wins == [(0.0, 1.0), (1.0, 1.0), (1.0, 1.0)]
    assert solve(pairs, 0.1)[0] > 0
