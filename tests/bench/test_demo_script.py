"""What is written when: every fault as a sequence of steps, with no socket and no clock."""

import itertools

import pytest

from trioproxy.bench import demo_script
from trioproxy.bench.demo_events import Answer, Dialect
from trioproxy.bench.demo_model import parse_model
from trioproxy.bench.demo_script import Pause, Reply, Send, Step, Then


def answer(model: str, dialect: Dialect = Dialect.CHAT) -> Answer:
    return Answer(dialect, model, parse_model(model), b"{}", 1)


def steps_of(model: str, dialect: Dialect = Dialect.CHAT) -> list[Step]:
    return list(demo_script.stream(answer(model, dialect)).steps)


def sent(steps: list[Step]) -> list[bytes]:
    return [step.data for step in steps if isinstance(step, Send)]


def pauses(steps: list[Step]) -> list[float]:
    return [step.seconds for step in steps if isinstance(step, Pause)]


def test_a_good_stream_pauses_sends_and_finishes() -> None:
    steps = steps_of("demo-n2-t100-i20")
    kinds = [type(step).__name__ if not isinstance(step, Then) else step.name for step in steps]
    assert kinds == ["Pause", "Send", "Send", "Pause", "Send", "Send", "Send", "TERMINAL", "FINISH"]
    assert pauses(steps) == [0.1, 0.02]
    assert sent(steps)[-1] == b"data: [DONE]\n\n"


def test_no_gap_is_no_pause() -> None:
    assert pauses(steps_of("demo-n5-t0-i0")) == []


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    ("word", "last"), [("x", Then.CLOSE), ("reset", Then.RESET), ("silent", Then.STAY), ("error", Then.FINISH)]
)
@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_fault_comes_after_n_content_events(word: str, last: Then, number: int, dialect: Dialect) -> None:
    steps = steps_of(f"demo-n5-{word}{number}", dialect)
    opened = len(sent(steps_of("demo-n0-nodone", dialect)))
    assert steps[-1] is last
    assert len(sent(steps)) == opened + number + (word == "error")


@pytest.mark.parametrize("word", ["x0", "reset0"])
def test_a_death_after_no_event_shows_the_head_alone(word: str) -> None:
    steps = steps_of(f"demo-{word}")
    assert sent(steps) == [] and steps[-2] is Then.FLUSH


def test_silence_shows_its_head_at_once() -> None:
    assert steps_of("demo-silent") == [Then.FLUSH, Then.STAY]


def test_an_error_is_the_first_event_and_the_last() -> None:
    (event,) = sent(steps_of("demo-error"))
    assert b'"code":"overloaded"' in event
    assert sent(steps_of("demo-error", Dialect.MESSAGES))[0].startswith(b"event: error\n")


@pytest.mark.parametrize("number", [0, 1, 4, 5])
def test_a_cut_leaves_half_of_the_next_event(number: int) -> None:
    good, bad = sent(steps_of("demo-n5")), sent(steps_of(f"demo-n5-cut{number}"))
    full = good[len(bad) - 1].replace(b"demo-n5", f"demo-n5-cut{number}".encode())
    assert bad[-1] == full[: len(full) // 2] and not bad[-1].endswith(b"\n\n")


def test_a_fault_behind_the_end_never_comes() -> None:
    assert steps_of("demo-n5-x6")[-1] is Then.FINISH


@pytest.mark.parametrize("dialect", Dialect)
def test_an_end_without_terminal_lacks_the_last_event_only(dialect: Dialect) -> None:
    good, bad = (len(sent(steps_of(model, dialect))) for model in ("demo-n5", "demo-n5-nofinal"))
    assert bad == good - 1


def test_an_end_without_anything_has_no_finish_reason() -> None:
    steps = steps_of("demo-n5-nodone")
    assert steps[-1] is Then.FINISH and len(sent(steps)) == 6
    assert all(b'"finish_reason":null' in part for part in sent(steps))


def test_a_comment_is_before_each_event() -> None:
    parts = sent(steps_of("demo-n2-comments-crlf"))
    assert parts[::2] == [b": ping\r\n\r\n"] * 5 and all(part.startswith(b"data: ") for part in parts[1::2])


def test_byte_sends_the_same_bytes_singly() -> None:
    parts = sent(steps_of("demo-n2-byte"))
    assert {len(part) for part in parts} == {1}
    assert b"".join(parts) == b"".join(sent(steps_of("demo-n2"))).replace(b"demo-n2", b"demo-n2-byte")


def test_a_flood_has_no_end_and_events_of_a_kibibyte() -> None:
    steps = list(itertools.islice(demo_script.stream(answer("demo-flood-t0")).steps, 2000))
    assert all(isinstance(step, Send) for step in steps)
    assert all(1024 <= len(part) < 1500 for part in sent(steps)[1:])


def test_a_lingering_stream_is_complete_before_it_lingers() -> None:
    assert steps_of("demo-n1-linger")[-3:] == [Then.TERMINAL, Pause(30.0), Then.FINISH]


def test_a_whole_answer_takes_as_long_as_its_stream() -> None:
    reply = demo_script.whole(answer("demo-n11-t100-i20"))
    assert pauses(list(reply.steps)) == [pytest.approx(0.3)]


@pytest.mark.parametrize(
    ("model", "last"),
    [("x2", Then.CLOSE), ("cut2", Then.CLOSE), ("reset2", Then.RESET), ("silent2", Then.STAY)],
)
def test_a_whole_answer_dies_half_way(model: str, last: Then) -> None:
    reply = demo_script.whole(answer(model))
    steps = list(reply.steps)
    length = int(dict(reply.headers)["content-length"])
    assert steps[-1] is last and len(b"".join(sent(steps))) == length // 2


def test_a_whole_answer_can_be_an_error_that_looks_like_a_success() -> None:
    reply = demo_script.whole(answer("demo-error"))
    assert reply.status == 200 and b'"error"' in sent(list(reply.steps))[0]


def special(model: str, dialect: Dialect | None = None) -> Reply:
    reply = demo_script.instead(parse_model(model), dialect, "req_1")
    assert reply is not None
    return reply


def test_a_status_has_an_envelope_and_the_wait() -> None:
    reply = special("e429-r7")
    assert reply.status == 429 and ("retry-after", "7") in reply.headers
    assert b'"code":"rate_limit_exceeded"' in sent(list(reply.steps))[0]
    assert b'"request_id":"req_1"' in sent(list(special("e529", Dialect.MESSAGES).steps))[0]


def test_a_plain_name_has_nothing_in_place_of_its_answer() -> None:
    assert demo_script.instead(parse_model("gpt-4o"), None, "req_1") is None


def test_sound_is_256_kibibytes() -> None:
    assert len(b"".join(sent(list(demo_script.audio(parse_model("tts-1")).steps)))) == 256 * 1024
