"""Too much at once: what a connection beyond the limit is told, and how often the log hears of it.

Such a connection costs as little as can be: its request is not parsed, and the answer goes out at once. Its bytes are
read away for a moment, because closing before would reset what the client has not read; only so many get that, and the
rest are just closed.
"""

import ssl
from secrets import token_hex

import trio

from trioproxy.errors import Overloaded
from trioproxy.net.tcp import close_nowait
from trioproxy.net.tls import accept_tls, end_tls
from trioproxy.wire import render
from trioproxy.wire.dialect import Dialect

MAX_TOLD = 64
"""How many are being told at a time."""
_TELL_S = 2.0
"""How long telling one may take, a TLS handshake and the reading away included."""
_READ_BYTES = 65536
_MAX_READS = 16
_QUIET_S = 10.0


class Burst:
    """Things of one kind that come in bursts, of which each is worth one line in the log."""

    def __init__(self) -> None:
        self._last: float | None = None

    def is_new(self) -> bool:
        """Note one, and say whether it is the first for ten seconds."""
        now = trio.current_time()
        is_new = self._last is None or now > self._last + _QUIET_S
        self._last = now
        return is_new


class Overflow:
    """Turns connections away.

    Attributes:
        turned_away: how many so far.
    """

    def __init__(self) -> None:
        self.turned_away = 0
        self._told = 0

    async def turn_away(self, stream: trio.abc.HalfCloseableStream, tls: ssl.SSLContext | None) -> None:
        """Answer 503, if not too many are being answered already, and close; always closes, also if cancelled."""
        self.turned_away += 1
        if self._told >= MAX_TOLD:
            close_nowait(stream)
            return
        self._told += 1
        try:
            with trio.move_on_after(_TELL_S):
                await _tell(stream, tls)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._told -= 1
            close_nowait(stream)


async def _tell(stream: trio.abc.HalfCloseableStream, tls: ssl.SSLContext | None) -> None:
    answer = _answer()
    if tls is None:
        await stream.send_all(answer)
    else:
        secured = accept_tls(stream, tls)
        await secured.send_all(answer)
        await end_tls(secured)
    await stream.send_eof()
    for _ in range(_MAX_READS):
        if not await stream.receive_some(_READ_BYTES):
            break


def _answer() -> bytes:
    error = Overloaded("This server has too many connections; try again in a moment.")
    status, headers, body = render.response(error, Dialect.OTHER, f"req_{token_hex(12)}")
    lines = [b"HTTP/1.1 %d Service Unavailable" % status, *(b"%b: %b" % header for header in headers)]
    return b"\r\n".join([*lines, b"connection: close", b"", body])
