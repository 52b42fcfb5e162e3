"""A chat server as a judge, over real sockets: order, failures, deadlines, and what it is sent."""

import json
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from chat_server import ChatServer, pictures_in
from pictures import medium, picture

from beholder.errors import InputError
from beholder.judges.load import load_judge
from beholder.judges.server import ServerJudge
from beholder.judges.settings import JudgeConfig

QUICK = JudgeConfig(timeout=5.0, retries=2, backoff=0.01)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()


def judge_of(server: ChatServer, **settings: object) -> ServerJudge:
    judge = load_judge(server.base, replace(QUICK, **settings))  # pyright: ignore[reportArgumentType]
    assert isinstance(judge, ServerJudge)
    return judge


def test_probabilities_come_back_in_the_order_of_the_questions(server: ChatServer) -> None:
    """Later questions are answered sooner: an order of arrival would be seen."""
    shares = [i / 20 for i in range(21)]
    questions = [f"p={p} sleep={0.1 - p / 10:.3f}" for p in shares]
    answers = judge_of(server, concurrency=8).ask(medium(1), questions)
    assert answers.yes_Q.tolist() == pytest.approx(shares, abs=1e-6)
    assert answers.why_Q == ("",) * 21
    assert 1 < server.most_at_once <= 8


def test_one_at_a_time(server: ChatServer) -> None:
    judge_of(server, concurrency=1).ask(medium(1), [f"p=0.{i} sleep=0.01" for i in range(5)])
    assert server.most_at_once == 1


def test_what_is_sent(server: ChatServer) -> None:
    shown = medium(1, 2, 3)
    judge_of(server, top=7).ask(shown, ["p=0.5 [[x]]"])
    (body,) = server.seen
    assert body["model"] == "tiny" and body["temperature"] == 0 and body["max_tokens"] == 1
    assert body["logprobs"] is True and body["top_logprobs"] == 7
    assert body["messages"][0]["role"] == "user"
    assert body["messages"][0]["content"][-1]["text"] == "p=0.5 [[x]]\nAnswer with yes or no."
    for sent, still in zip(pictures_in(body), shown.stills, strict=True):
        assert np.array_equal(np.asarray(sent), np.asarray(still))


def test_large_pictures_are_made_smaller(server: ChatServer) -> None:
    shown = replace(medium(1), stills=(picture(1, 300, 100),))
    judge_of(server, max_side=64).ask(shown, ["p=0.5"])
    assert pictures_in(server.seen[0])[0].size == (64, 21)
    assert shown.stills[0].size == (300, 100)


@pytest.mark.parametrize(("says", "value"), [("Yes.", 1.0), ("no", 0.0), ("Perhaps", math.nan)])
def test_hard_answers_read_the_text(server: ChatServer, says: str, value: float) -> None:
    answers = judge_of(server, answers="hard").ask(medium(1), [f"mute=1 says={says}"])
    assert answers.yes_Q.item() == pytest.approx(value, nan_ok=True)
    assert "logprobs" not in server.seen[0]
    assert answers.why_Q == (("the answer is neither yes nor no",) if math.isnan(value) else ("",))


# ------------------------------------------------------------------------------------------------------- failures


def test_what_may_pass_is_tried_again(server: ChatServer) -> None:
    questions = [f"p=0.9 fail_first=2 status={status}" for status in (429, 500, 503)]
    answers = judge_of(server).ask(medium(1), questions)
    assert answers.yes_Q.tolist() == pytest.approx([0.9] * 3, abs=1e-6)
    assert set(server.asked.values()) == {3}


@pytest.mark.parametrize(
    ("question", "reason", "attempts"),
    [
        ("fail_first=9", "HTTP 500", 3),
        ("status=400", "HTTP 400: {\"error\": \"refused 400\"}", 1),
        ("status=404", "HTTP 404", 1),
        ("raw={\"choices\":", "not JSON", 3),
        ("raw=[]", "no choice", 3),
        ("raw={\"choices\":[]}", "no choice", 3),
        ("raw={\"choices\":[{\"logprobs\":{\"content\":[]}}]}", "not in OpenAI's form", 3),
        ("raw={\"choices\":[{\"logprobs\":{\"content\":[{\"top_logprobs\":[{}]}]}}]}", "not in OpenAI's form", 3),
        ("hang_up=1", "connection failed", 3),
        ("mute=1", "--judge.answers hard", 1),
        ("off=1", "neither yes nor no", 1),
    ],
)  # fmt: skip
def test_a_failure_is_invalid_says_why_and_leaves_the_others_alone(
    server: ChatServer, question: str, reason: str, attempts: int
) -> None:
    answers = judge_of(server).ask(medium(1), ["p=0.75", question, "p=0.25"])
    assert answers.yes_Q.isnan().tolist() == [False, True, False]
    assert answers.yes_Q[[0, 2]].tolist() == pytest.approx([0.75, 0.25], abs=1e-6)
    assert reason in answers.why_Q[1]
    assert server.asked[question] == attempts


@pytest.mark.parametrize("question", ["p=0.5 sleep=30", "drip=1"])
def test_time_is_up(server: ChatServer, question: str) -> None:
    """Also for a server that keeps sending, a byte at a time."""
    started = time.monotonic()
    answers = judge_of(server, timeout=0.2, retries=1).ask(medium(1), [question])
    assert answers.why_Q == ("no answer within 0.2 s",)
    assert time.monotonic() - started < 10
    assert server.asked[question] == 2


def test_the_server_may_say_how_long_to_wait(server: ChatServer) -> None:
    started = time.monotonic()
    answers = judge_of(server).ask(medium(1), ["p=0.9 fail_first=1 status=429 retry_after=1"])
    assert answers.yes_Q.item() == pytest.approx(0.9, abs=1e-6)
    assert time.monotonic() - started >= 1


def test_a_reply_without_end_is_given_up(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beholder.judges.wire.LARGEST_REPLY", 1000)
    answers = judge_of(server).ask(medium(1), ["raw=" + "x" * 2000])
    assert "longer than" in answers.why_Q[0]


def test_a_redirect_is_not_followed_and_the_token_stays_here(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEHOLDER_TOKEN", "secret")
    with ChatServer() as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        answers = judge_of(server).ask(medium(1), [f"redirect={other.base}/chat/completions"])
        assert answers.why_Q[0].startswith("HTTP 307")
        assert other.tokens_seen == []
        other.shutdown()
    assert set(server.tokens_seen) == {"Bearer secret"}


def test_a_broken_token_is_not_repeated(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEHOLDER_TOKEN", "secret\nX-Other: 1")
    with pytest.raises(InputError) as caught:
        judge_of(server)
    assert "secret" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- loading


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        load_judge(name, replace(QUICK, timeout=0.5))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nobody_answers() -> None:
    with ChatServer() as gone:
        base = gone.base
    assert f"no server answers at {base}" in refusal(base)


def test_the_token_is_refused(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "right"
    monkeypatch.setenv("BEHOLDER_TOKEN", "wrong")
    assert "BEHOLDER_TOKEN" in refusal(server.base)
    monkeypatch.setenv("BEHOLDER_TOKEN", "right")
    assert judge_of(server).model == "tiny"


def test_which_of_several_models_must_be_said(server: ChatServer) -> None:
    server.models = {"data": [{"id": "a"}, {"id": "b"}]}
    assert f"{server.base}#a" in refusal(server.base)
    assert "does not serve 'c', but a, b" in refusal(f"{server.base}#c")
    assert load_judge(f"{server.base}/#b", QUICK).name == f"{server.base}#b"


def test_a_server_that_does_not_list_its_models(server: ChatServer) -> None:
    server.models_status = 500
    assert f"{server.base}#NAME" in refusal(server.base)
    assert load_judge(f"{server.base}#any", QUICK).name.endswith("#any")


def test_answers_do_not_depend_on_concurrency(server: ChatServer) -> None:
    questions = [f"p={p / 7:.4f} x={json.dumps(p)}" for p in range(8)]
    one, many = (judge_of(server, concurrency=n).ask(medium(1), questions).yes_Q for n in (1, 8))
    assert one.tolist() == many.tolist()
