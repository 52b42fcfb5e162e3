"""A picture encoded once for all its questions gives the answers of one whole pass per question."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pictures import medium

from beholder.judges.local import LocalJudge, load_local
from beholder.judges.prefix import SHARING, encode, whole
from beholder.judges.settings import JudgeConfig

QUESTIONS = (
    "Is it red?",
    "Are there three very large crosses in the picture, or none at all?",
    "no",
    "Is it red, green or blue?",
    "Is the text “日本語” in it?",
)
ALL = JudgeConfig(top=10_000)
"""Every answer counts: random models rarely have yes or no among the likeliest tokens."""


@pytest.fixture(scope="session", params=SHARING)
def judge(request: pytest.FixtureRequest, vlm: Callable[[str], Path]) -> LocalJudge:
    loaded = load_local(str(vlm(request.param)), ALL)
    assert isinstance(loaded, LocalJudge) and loaded.shares_prefix
    return loaded


def unshared(judge: LocalJudge) -> LocalJudge:
    return LocalJudge(judge.name, judge.model, judge.processor, JudgeConfig(top=10_000, share_prefix=False))


@pytest.mark.parametrize("stills", [(1,), (1, 2, 3)], ids=["image", "video"])
def test_sharing_changes_nothing(judge: LocalJudge, stills: tuple[int, ...]) -> None:
    shared, alone = (one.ask(medium(*stills), QUESTIONS).yes_Q for one in (judge, unshared(judge)))
    assert (shared - alone).abs().max() <= 1e-5
    assert alone.std() > 1e-3, "the questions must matter, or the test shows nothing"


def test_answers_depend_on_the_picture_and_the_order_of_stills(judge: LocalJudge) -> None:
    answers = [judge.ask(medium(*seeds), QUESTIONS).yes_Q for seeds in ((1,), (2,), (1, 2), (2, 1))]
    for i, one in enumerate(answers):
        assert all((one - other).abs().max() > 1e-4 for other in answers[:i])


@pytest.mark.parametrize("batch", [1, 2])
def test_answers_do_not_depend_on_batch_order_or_company(judge: LocalJudge, batch: int) -> None:
    whole_list = judge.ask(medium(1), QUESTIONS).yes_Q
    small = LocalJudge(judge.name, judge.model, judge.processor, JudgeConfig(top=10_000, batch=batch))
    assert (small.ask(medium(1), QUESTIONS).yes_Q - whole_list).abs().max() <= 1e-5
    assert (judge.ask(medium(1), QUESTIONS[::-1]).yes_Q.flip(0) - whole_list).abs().max() <= 1e-5
    for i, question in enumerate(QUESTIONS):
        assert (judge.ask(medium(1), [question]).yes_Q - whole_list[i]).abs() <= 1e-5


def test_tokens_are_those_of_the_processor(judge: LocalJudge) -> None:
    """The questions after the first never meet the processor, yet have the tokens it would give them."""
    stills = medium(1, 2).stills
    texts = [judge.render(question, 2) for question in QUESTIONS]
    encoded = encode(judge.processor, stills, texts, judge.model.config.image_token_id)
    assert encoded is not None
    for ids, text in zip(encoded.ids_Q, texts, strict=True):
        assert list(ids) == whole(judge.processor, stills, text)["input_ids"][0].tolist()
    last_placeholder = max(i for i, t in enumerate(encoded.ids_Q[0]) if t == judge.model.config.image_token_id)
    assert last_placeholder < encoded.shared() < min(map(len, encoded.ids_Q))


def test_the_picture_is_seen_once(judge: LocalJudge) -> None:
    """The vision tower runs once for all questions, and once for each where nothing is shared."""
    calls: list[int] = []
    tower = next(m for name, m in judge.model.named_modules() if name.rsplit(".", 1)[-1] in TOWERS)
    hook = tower.register_forward_hook(lambda *_: calls.append(1))
    try:
        judge.ask(medium(1), QUESTIONS)
        assert len(calls) == 1
        unshared(judge).ask(medium(1), QUESTIONS)
        assert len(calls) == 1 + len(QUESTIONS)
    finally:
        hook.remove()


TOWERS = ("visual", "vision_tower", "vision_model")


# ---------------------------------------------------------------------------------------- where it cannot be shared


def test_an_unknown_family_encodes_every_time_and_says_so_once(
    vlm: Callable[[str], Path], capsys: pytest.CaptureFixture
) -> None:
    judge = load_local(str(vlm("vipllava")), ALL)
    assert isinstance(judge, LocalJudge) and not judge.shares_prefix
    first = judge.ask(medium(1), QUESTIONS).yes_Q
    judge.ask(medium(1), QUESTIONS)
    assert capsys.readouterr().err.count("vipllava is not known to share") == 1
    assert not first.isnan().any() and first.std() > 1e-3


def test_a_template_with_the_question_first_encodes_every_time_and_says_so_once(
    vlm: Callable[[str], Path], capsys: pytest.CaptureFixture
) -> None:
    judge = load_local(str(vlm("llava")), ALL)
    assert isinstance(judge, LocalJudge)
    judge.processor.chat_template = (
        "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'text' %}"
        "{{ part['text'] }}{% endif %}{% endfor %}<image>\n{% endfor %}Answer:"
    )
    answers = [judge.ask(medium(1), QUESTIONS).yes_Q for _ in range(2)]
    assert capsys.readouterr().err.count("puts the question before the picture") == 1
    assert torch.equal(*answers) and answers[0].std() > 1e-3


def test_not_sharing_can_be_asked_for_silently(vlm: Callable[[str], Path], capsys: pytest.CaptureFixture) -> None:
    judge = load_local(str(vlm("llava")), JudgeConfig(share_prefix=False))
    judge.ask(medium(1), QUESTIONS)
    assert "encodes it again" not in capsys.readouterr().err
