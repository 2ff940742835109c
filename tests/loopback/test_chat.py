"""`trioproxy chat` on a terminal and in a pipe: what it shows, what it sends, and what Ctrl-C stops."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.processes import START_S, Server, until
from tests.loopback.raw_http import LAST_CHUNK, Head, Wire, ask, chunk, event_stream_head, open_origin
from tests.loopback.terminal import CTRL_C, Terminal, on_terminal

ROOT = Path(__file__).resolve().parents[2]
ENTER = "\r"
CTRL_D = "\x04"


@contextmanager
def chatting(base_url: str, *arguments: str) -> Iterator[Terminal]:
    """A chat on a terminal, once it waits for a question."""
    with on_terminal("chat", "--base-url", base_url, *arguments, columns=100) as terminal:
        terminal.wait_for_start(">")
        yield terminal


def piped(question: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A chat whose question comes from a pipe, at its end."""
    return subprocess.run(
        [sys.executable, "-m", "trioproxy", "chat", *arguments],
        input=question,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
        env={"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "PATH": "/usr/bin:/bin", **environ},
    )


def wait_for_count(terminal: Terminal, text: str, count: int) -> None:
    """Wait until a text is so often on the screen."""
    until(lambda: "\n".join(terminal.lines).count(text) == count, f"{count} times '{text}'", START_S)


def leave(terminal: Terminal) -> None:
    """Say that there are no more questions, once one is asked for: before, it would be no end of anything."""
    until(lambda: "".join(terminal.lines).endswith(">"), "the prompt", START_S)
    terminal.type(CTRL_D)
    assert terminal.wait() == 0
    assert terminal.is_as_before()


class Echo:
    """An origin that notes what it is asked, and answers with the same pieces of text each time."""

    def __init__(self, *pieces: str) -> None:
        self._pieces = pieces
        self.asked: list[tuple[Head, dict[str, Any]]] = []

    def __call__(self, wire: Wire) -> None:
        head, body = wire.read_request()
        self.asked.append((head, json.loads(body)))
        wire.send(event_stream_head())
        for piece in self._pieces:
            event = {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
            wire.send(chunk(f"data: {json.dumps(event)}\n\n".encode()))
        wire.send(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)


def test_an_answer_is_shown_with_its_figures_below(proxy: Server) -> None:
    with chatting(proxy.base_url, "--model", "m-n20-i20-t100") as terminal:
        terminal.type(f"Hello{ENTER}")
        figures = terminal.wait_for("tokens/s", START_S)
        assert figures.startswith("first token after 0.1")
        assert ", 20 tokens in 0." in figures
        leave(terminal)


@pytest.mark.parametrize("model", ["m-n2000-i20-t0", "m-mute"])
def test_ctrl_c_stops_the_answer_and_not_the_program(proxy: Server, upstream: Server, model: str) -> None:
    def stats() -> dict[str, int]:
        found: dict[str, int] = ask(upstream.port, "GET", "/stats").json
        return found

    aborted = stats()["aborted"]
    with chatting(proxy.base_url, "--model", model) as terminal:
        for number in (1, 2):
            terminal.type(f"Hello{ENTER}")
            until(lambda: stats()["streams"] == 1, "the origin is at it", START_S)
            terminal.type(CTRL_C)
            wait_for_count(terminal, "stopped", number)
            until(lambda: stats()["streams"] == 0, "the origin is let go")
        leave(terminal)
    assert stats()["aborted"] == aborted + 2


def test_ctrl_c_where_nothing_is_to_stop_says_how_to_end(proxy: Server) -> None:
    with chatting(proxy.base_url, "--model", "m") as terminal:
        terminal.type(CTRL_C)
        terminal.wait_for("Ctrl-D ends")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        assert terminal.is_as_before()


def test_what_was_said_before_goes_along() -> None:
    echo = Echo("One", " two")
    with open_origin(echo) as origin, chatting(origin.base_url, "--model", "m") as terminal:
        for number in (1, 2):
            terminal.type(f"Question {number}{ENTER}")
            wait_for_count(terminal, "tokens in", number)
        prompts = "".join(terminal.lines).count(">")
        terminal.type(ENTER)  # an empty question is none
        until(lambda: "".join(terminal.lines).count(">") > prompts, "another prompt", START_S)
        leave(terminal)
    first, second = (body for _, body in echo.asked)
    question, answer = {"role": "user", "content": "Question 1"}, {"role": "assistant", "content": "One two"}
    assert first == {"model": "m", "messages": [question], "stream": True}
    assert second["messages"] == [question, answer, {"role": "user", "content": "Question 2"}]


def test_a_terminal_does_not_obey_what_a_model_says() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\x9b31m\x08\x08\u202etxt.exe\r[end]"
    echo = Echo(hostile, "\ud83d")
    with open_origin(echo) as origin, chatting(origin.base_url, "--model", "m") as terminal:
        terminal.type(f"Hello{ENTER}")
        terminal.wait_for("tokens in")
        assert "]0;owned[2J31mtxt.exe[end]" in terminal.lines
        assert not {"\x1b]", "\x07", "\x1b[2J", "\x9b", "\x08", "\u202e"} & set(terminal.screen.unknown)
        leave(terminal)


def test_a_refusal_is_shown_and_the_question_can_be_asked_again(proxy: Server) -> None:
    with chatting(proxy.base_url, "--model", "m-e429") as terminal:
        terminal.type(f"Hello{ENTER}")
        terminal.wait_for("HTTP 429 rate_limit_exceeded: Simulated error 429.")
        leave(terminal)


def test_in_a_pipe_there_is_the_answer_alone(proxy: Server) -> None:
    ended = piped("Hello\n", "--base-url", proxy.base_url)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.split()) > 5 and ended.stdout.endswith("\n")
    first, second = ended.stderr.splitlines()
    assert first == "model gpt-4o-mini; choose another with --model"
    assert "tokens/s" in second


@pytest.mark.parametrize(
    ("model", "says"),
    [("m-n5-i1-x3", "connection cut"), ("m-n5-i1-error2", "in the stream: overloaded: The model is overloaded.")],
)
def test_in_a_pipe_half_an_answer_is_a_failure(upstream: Server, model: str, says: str) -> None:
    ended = piped("Hello", "--base-url", upstream.base_url, "--model", model)
    assert (ended.returncode, ended.stderr) == (1, f"{says}\n")
    assert ended.stdout


def test_a_key_goes_along_and_is_not_shown() -> None:
    echo = Echo("hi")
    with open_origin(echo) as origin:
        arguments = ("--base-url", origin.base_url, "--model", "m", "--key", "env:MY_KEY")
        ended = piped("Hello", *arguments, MY_KEY="tpk_secret")
    ((head, _),) = echo.asked
    assert head.headers["authorization"] == "Bearer tpk_secret"
    assert (ended.returncode, ended.stdout) == (0, "hi\n")
    assert "tpk_secret" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--base-url", "127.0.0.1:1"), 1, "http://127.0.0.1:1/v1: cannot connect; is it running"),
        (("--base-url", "127.0.0.1:1", "--model", "m"), 1, "cannot connect"),
        (("--base-url", "ftp://a"), 2, "--base-url: has to begin with http"),
        (("--key", "sk-secret"), 2, "--key: must not be written here"),
    ],
)
def test_what_cannot_work_is_said(arguments: tuple[str, ...], code: int, says: str) -> None:
    ended = piped("Hello", *arguments)
    assert ended.returncode == code
    assert ended.stderr.startswith(says)
    assert "Traceback" not in ended.stderr and "sk-secret" not in ended.stderr
    assert piped("", "--model", "m").returncode == 2
