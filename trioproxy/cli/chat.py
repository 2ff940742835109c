"""`trioproxy chat`: talk to a model in the terminal, as its answer comes. Ctrl-C stops the answer, not the program.

Each answer has an event loop and a connection of its own: when it is stopped, its connection is closed, and the service
sees that its client has left. What was said so far stays part of the conversation.
"""

import sys
from collections.abc import Callable
from typing import Annotated

import trio
import typer

from trioproxy.bench.events import read_models
from trioproxy.bench.http_client import Connection, Failed, Url
from trioproxy.bench.talk import Talk, request_body, stream_chat
from trioproxy.cli.running import EXIT_FAILED, EXIT_INTERRUPTED, fail
from trioproxy.cli.target import KeyReference, key_or_fail, plain, url_or_fail

try:
    import readline  # noqa: F401 - input() then has a history, and keys that move
except ImportError:
    pass  # a Python without it

_PROMPT = "> "
_LIST_S = 15.0
_STOPPED = "stopped"


def chat(
    base_url: Annotated[str, typer.Option(help="Where the API is.")] = "http://127.0.0.1:8080/v1",
    model: Annotated[str | None, typer.Option(help="The model; without it the first that is listed.")] = None,
    key: KeyReference = None,
) -> None:
    """Talk to a model. Ctrl-C stops an answer, Ctrl-D ends. From a pipe: one question, one answer."""
    url = url_or_fail(base_url, "--base-url")
    conversation = _Conversation(url, key_or_fail(key), model or "")
    if model is None:
        conversation.model = _first_model_or_fail(conversation)
        _remark(f"model {plain(conversation.model)}; choose another with --model")
    if sys.stdin.isatty():
        _talk_on(conversation)
    else:
        question = sys.stdin.read().strip()
        if not question:
            fail("there is no question on standard input")
        answer = conversation.ask(question)
        if answer is None:
            raise typer.Exit(EXIT_INTERRUPTED)
        if answer.error is not None:
            raise typer.Exit(EXIT_FAILED)


class _Conversation:
    """What was said so far, by whom."""

    def __init__(self, url: Url, key: str | None, model: str) -> None:
        self.url = url
        self.key = key
        self.model = model
        self._messages: list[dict[str, str]] = []

    def ask(self, question: str) -> Talk | None:
        """Ask, and print the answer as it comes, with its figures behind it. None: it was stopped."""
        said: list[str] = []
        messages = [*self._messages, {"role": "user", "content": question}]
        body = request_body(self.model, messages, streams=True)

        def hear(text: str) -> None:
            said.append(text)
            typer.echo(plain(text), nl=False)

        talk: Talk | None = None
        try:
            talk = trio.run(_asked, self, body, hear)
        except* KeyboardInterrupt:
            pass  # that was for the answer
        if said:
            typer.echo()
            self._messages = [*messages, {"role": "assistant", "content": "".join(said)}]
        _remark(_STOPPED if talk is None else _figures(talk))
        return talk


def _talk_on(conversation: _Conversation) -> None:
    """Questions and answers until there are no more."""
    was_interrupted = False
    while True:
        try:
            question = input(_PROMPT).strip()
            was_interrupted = False
            if question:
                conversation.ask(question)
        except EOFError:
            typer.echo()
            return
        except KeyboardInterrupt:  # no answer was under way: there is only the program to end, and that on purpose
            typer.echo()
            if was_interrupted:
                raise typer.Exit(EXIT_INTERRUPTED) from None
            was_interrupted = True
            _remark("nothing to stop; Ctrl-D ends, and so does Ctrl-C once more")


async def _asked(conversation: _Conversation, body: bytes, hear: Callable[[str], None]) -> Talk:
    connection = Connection(conversation.url, conversation.key)
    try:
        return await stream_chat(connection, body, hear)
    finally:
        connection.close()


def _first_model_or_fail(conversation: _Conversation) -> str:
    """The first model that is listed."""
    try:
        models = trio.run(_listed, conversation)
    except* KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except* Failed as failures:
        fail(f"{conversation.url.text}: {failures.exceptions[0]}; is it running, and is --base-url right?", EXIT_FAILED)
    if not models:
        fail(f"{conversation.url.text} lists no models; choose one with --model")
    return models[0]


async def _listed(conversation: _Conversation) -> list[str]:
    connection = Connection(conversation.url, conversation.key)
    try:
        with trio.fail_after(_LIST_S):
            status = await connection.ask("GET", "/models")
            body = b""
            while piece := await connection.read():
                body += piece
        return read_models(body) if status == 200 else []
    except trio.TooSlowError:
        raise Failed("does not list its models in time") from None
    finally:
        connection.close()


def _figures(talk: Talk) -> str:
    """What is said of an answer below it."""
    if talk.error is not None:
        return plain(f"{talk.error}: {talk.message}" if talk.message else talk.error)
    count = talk.tokens or talk.contents
    said = [f"{count} tokens in {talk.total_s:.2f} s"]
    if talk.first_content_s is not None:
        said.insert(0, f"first token after {talk.first_content_s:.3f} s")
    if talk.tokens_per_s is not None:
        said.append(f"{talk.tokens_per_s:.1f} tokens/s")
    return ", ".join(said)


def _remark(text: str) -> None:
    """A line about the conversation, and no part of it: on standard error, so that a pipe gets the answer alone."""
    typer.secho(text, dim=True, err=True)
