"""The crash barrier: a bug, or input that finds one, ends one connection or request and never the process.

One of the three places with a broad `except`. What it catches is logged with its traceback and counted; cancellation
passes through untouched.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

log = structlog.get_logger()

RenderCrash = Callable[[Any], tuple[int, list[tuple[bytes, bytes]], bytes]]
"""ASGI scope to the status, headers and body of the answer to a request whose handler crashed."""

_LAST_WORD_S = 1.0


class CrashBarrier:
    """Runs connections and requests. `crashes` counts what it had to catch."""

    def __init__(self, render_crash: RenderCrash) -> None:
        self.crashes = 0
        self._render_crash = render_crash

    async def run_connection(self, run: Callable[[], Awaitable[None]], close: Callable[[], None]) -> None:
        """Run a connection's task; whatever it raises is logged and the connection closed hard."""
        try:
            await run()
        except BaseException as error:
            close()
            self._report(error, "connection crashed")

    async def run_job(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run what no connection waits for: a bug in it ends it, and nothing else."""
        try:
            await run()
        except BaseException as error:
            self._report(error, "background job crashed")

    async def run_request(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        """Run the ASGI app for one request. If it crashes before its answer began, the client is told; an answer that
        is left unfinished is cut."""
        stream = send.__self__
        try:
            await app.app(scope, receive, send)
        except BaseException as error:
            self._report(error, "request crashed")
            with trio.move_on_after(_LAST_WORD_S, shield=True):
                await stream.answer(*self._render_crash(scope))
        finally:
            with trio.move_on_after(_LAST_WORD_S, shield=True):
                await send(None)
            stream.forget()

    def _report(self, error: BaseException, what: str) -> None:
        """Log and count a crash. Raises what is none: cancellation, Ctrl-C, the interpreter's own exits."""
        crash: BaseException | None = error
        rest: BaseException | None = None
        if isinstance(error, BaseExceptionGroup):
            crash, rest = error.split(Exception)
        elif not isinstance(error, Exception):
            crash, rest = None, error
        if crash is not None:
            self.crashes += 1
            log.error(what, exc_info=crash)
        if rest is not None:
            raise rest
