"""Chaos: thousands of streams, each with a random fate at both ends, and what must hold afterwards.

    python -m tests.chaos.chaos [--streams N] [--clients N] [--seed S]

A client stays, leaves at a random byte by a FIN or by a reset, or stalls and then leaves; an origin finishes, resets,
closes, cuts, stalls, floods, says nonsense or an error. What is promised:

*   who stays with an origin that finishes gets every byte of it;
*   who stays with one that does not is never told that it did;
*   afterwards the proxy lives, and holds no task, socket or file descriptor more than before;
*   the origin is free of streams;
*   the memory of the process that serves is that of the first tenth of the streams, give or take a tenth.

The exit code is 1 if a promise was broken, and the first offending streams are shown. The same seed gives the same
fates, though not the same race between them.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from tests.loopback.crowd import Received, allow_files, is_beginning, sent_by_demo, streams
from tests.loopback.processes import Server, demo_upstream, serving
from tests.loopback.raw_http import Answer, Ended, request_bytes

IDLE_S: Final = 4.0
STALL_S: Final = 1.5
HANGS_S: Final = 30.0
"""A stream that has not ended after this was forgotten."""
QUIET_S: Final = 15.0
"""How long the proxy gets to let go of everything; a connection to the origin may wait some seconds for its next use.
"""
GROWTH: Final = 1.10
SHOWN: Final = 10
ENV: Final = {
    "TRIOPROXY_DEADLINES__HEAD_S": str(IDLE_S),
    "TRIOPROXY_DEADLINES__FIRST_CONTENT_S": str(2 * IDLE_S),
    "TRIOPROXY_DEADLINES__IDLE_S": str(IDLE_S),
    "TRIOPROXY_DEADLINES__CLIENT_STALL_S": str(STALL_S),
    "TRIOPROXY_STREAM__HEARTBEAT_S": "0.5",
    "TRIOPROXY_STREAM__COMMIT_AFTER_S": "0.5",
}
TARGETS: Final = ("/v1/chat/completions", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
HEARTBEATS: Final = (b": keep-alive\n\n", b": keep-alive\r\n\r\n", b": keep-alive\r\r")


@dataclass(frozen=True)
class Plan:
    """One stream's fates, and how it is asked for."""

    number: int
    target: str
    origin: "OriginFate"
    model: str
    client: str
    at_byte: int
    """After how many bytes of the answer the client leaves or stalls; -N: after N bytes of its request."""
    pause_s: float

    @property
    def body(self) -> bytes:
        return json.dumps({"model": self.model, "stream": True, "messages": [], "prompt": str(self.number)}).encode()

    def __str__(self) -> str:
        return f"stream {self.number}: {self.target} {self.model}, client {self.client} at byte {self.at_byte}"


# What a client that stayed must have seen. Each returns what is wrong, or "".


def whole(plan: Plan, answer: Answer) -> str:
    """Every byte, and a clean end."""
    if answer.status != 200 or not answer.is_clean:
        return f"a false failure: status {answer.status}, clean: {answer.is_clean}, {answer.body[-200:]!r}"
    sent = b"".join(sent_by_demo(plan.target, plan.body, answer.headers["x-request-id"]))
    if _without_heartbeats(answer.body) != sent:
        return f"not what was sent: {len(answer.body)} bytes for {len(sent)}, {answer.body[-200:]!r}"
    return ""


def broken(plan: Plan, answer: Answer) -> str:
    """An error, as a status or in band behind a true beginning; never a clean end."""
    if answer.status in (502, 504):
        return "" if answer.is_clean and b'"error"' in answer.body else f"no envelope: {answer.body!r}"
    if answer.status != 200 or answer.is_clean or b"[DONE]" in answer.body:
        return f"a false success: status {answer.status}, clean: {answer.is_clean}, {answer.body[-200:]!r}"
    received = _without_heartbeats(answer.body)
    events, _, error = received.rpartition(b"event: error\n" if b"event: error\n" in received else b"data: ")
    if b"upstream_" not in error and b"api_error" not in error and b"timeout_error" not in error:
        return f"the cut was not explained: {answer.body[-300:]!r}"
    # An event that was broken off is ended first, by two line ends.
    if not any(is_beginning(part, _sent(plan, answer)) for part in (events, events.removesuffix(b"\n\n"))):
        return f"not the beginning of what was sent: {events[-300:]!r}"
    return ""


def error_in_band(plan: Plan, answer: Answer) -> str:
    """The origin's own error, behind a true beginning. Nothing final follows it, so the end is no clean one either."""
    if answer.status != 200 or answer.is_clean or b"[DONE]" in answer.body:
        return f"a false success: status {answer.status}, clean: {answer.is_clean}, {answer.body[-200:]!r}"
    return "" if b"verloaded" in answer.body else f"the error is missing: {answer.body[-200:]!r}"


def status(*allowed: int) -> Callable[[Plan, Answer], str]:
    """A whole answer with one of these statuses."""

    def check(plan: Plan, answer: Answer) -> str:
        return "" if answer.is_clean and answer.status in allowed else f"status {answer.status}, {answer.body[-200:]!r}"

    return check


def cut_or_stalled(plan: Plan, answer: Answer) -> str:
    """Nobody stays with an endless stream; who was let go of it saw no clean end."""
    return f"a false success: {answer.body[-200:]!r}" if answer.is_clean else ""


def _sent(plan: Plan, answer: Answer) -> Iterator[bytes]:
    return sent_by_demo(plan.target, plan.body, answer.headers["x-request-id"])


def _without_heartbeats(body: bytes) -> bytes:
    for heartbeat in HEARTBEATS:
        body = body.replace(heartbeat, b"")
    return body


@dataclass(frozen=True)
class OriginFate:
    """What an origin does; `word(random)` are its words in the model's name, `share` is its weight.

    The other dialects repeat the text in their last events: byte by byte, or large, they would look like a stall.
    """

    name: str
    share: int
    word: Callable[[random.Random], str]
    check: Callable[[Plan, Answer], str]
    is_endless: bool = False
    targets: tuple[str, ...] = TARGETS


def _after(word: str, most: int = 25) -> Callable[[random.Random], str]:
    """The word with a number of events behind it, zero among them; the stream would have thirty."""
    return lambda draw: f"n30-{word}{draw.choice((0, draw.randint(1, most)))}"


ORIGINS: Final = (
    OriginFate("finishes", 36, lambda draw: f"n{draw.randint(0, 60)}", whole),
    OriginFate(
        "finishes oddly",
        14,
        lambda draw: f"n{draw.randint(1, 30)}-{draw.choice(('crlf', 'cr', 'comments', 'usage', 'tools', 'linger'))}",
        whole,
    ),
    OriginFate("byte by byte", 2, lambda draw: f"n{draw.randint(1, 4)}-byte", whole, targets=TARGETS[:3]),
    OriginFate("one large event", 2, lambda draw: "n3-big", whole, targets=TARGETS[:3]),
    OriginFate("resets", 6, _after("reset"), broken),
    OriginFate("closes", 6, _after("x"), broken),
    OriginFate("cuts an event", 6, _after("cut"), broken),
    OriginFate("truncates", 5, lambda draw: f"n{draw.randint(1, 30)}-nodone", broken),
    OriginFate("stalls", 5, _after("silent"), broken),
    OriginFate("is mute", 3, lambda draw: "mute", status(504)),
    OriginFate("says nonsense", 4, lambda draw: draw.choice(("nohead", "garbage", "refusehead")), status(502)),
    OriginFate("answers an error", 4, lambda draw: draw.choice(("e429", "e500", "e503-r1")), status(429, 500, 503)),
    OriginFate("errs at once", 2, lambda draw: "error", status(500, 503, 529)),
    OriginFate("errs in mid-stream", 2, lambda draw: f"n30-error{draw.randint(1, 25)}", error_in_band),
    OriginFate("floods", 3, lambda draw: "flood", cut_or_stalled, is_endless=True),
)
CLIENTS: Final = {"stays": 50, "leaves by FIN": 15, "leaves by reset": 15, "stalls, leaves": 12, "leaves asking": 8}


def plans(count: int, seed: int) -> Iterator[Plan]:
    """The fates of so many streams: the same for the same seed."""
    draw = random.Random(seed)
    for number in range(count):
        origin = draw.choices(ORIGINS, [fate.share for fate in ORIGINS])[0]
        client = draw.choices(list(CLIENTS), list(CLIENTS.values()))[0]
        if origin.is_endless and client == "stays":
            client = "stalls, leaves"
        model = f"m-{origin.word(draw)}-i{draw.choice((0, 0, 1, 5))}-t{draw.choice((0, 0, 5, 50))}"
        at_byte = -draw.randint(1, 150) if client == "leaves asking" else int(10 ** draw.uniform(0, 4.3)) - 1
        pause_s = draw.choice((0.05, 0.3, 2.5)) if client == "stalls, leaves" else 0.0
        yield Plan(number, draw.choice(origin.targets), origin, model, client, at_byte, pause_s)


@dataclass
class Outcome:
    """What came of all streams."""

    fates: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(origin, client) → streams."""
    stayed: Counter[str] = field(default_factory=Counter)
    """Origin → streams whose client saw the end."""
    wrong: list[str] = field(default_factory=list)
    """The streams, and what was wrong with them."""
    memory_kib: dict[int, int] = field(default_factory=dict)
    """Streams so far → the memory of the process that serves."""
    ended: int = 0


async def play(plan: Plan, port: int, outcome: Outcome) -> None:
    """Be the client of one stream."""
    received = b""
    with trio.move_on_after(HANGS_S) as patience:
        try:
            received = await _converse(plan, port)
        except (trio.BrokenResourceError, OSError) as error:
            if plan.client == "stays":
                outcome.wrong.append(f"{plan}: {error!r}")
    outcome.fates[plan.origin.name, plan.client] += 1
    if patience.cancelled_caught:
        outcome.wrong.append(f"{plan}: forgotten for {HANGS_S:g} s")
    elif plan.client == "stays" or received.endswith(b"\r\n0\r\n\r\n"):
        outcome.stayed[plan.origin.name] += 1
        try:
            problem = plan.origin.check(plan, Received(received).read_answer())
        except Ended as error:
            problem = f"no answer: {error}"
        if problem:
            outcome.wrong.append(f"{plan}: {problem}")


async def _converse(plan: Plan, port: int) -> bytes:
    """Everything that was received of an answer before either side ended the connection."""
    headers = {"content-type": "application/json"} | ({"connection": "close"} if plan.number % 2 else {})
    request = request_bytes("POST", plan.target, plan.body, headers)
    received = bytearray()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        if plan.client == "leaves asking":
            await stream.send_all(request[: -plan.at_byte])
            _leave(stream, by_reset=bool(plan.number % 3))
            return b""
        await stream.send_all(request)
        limit = sys.maxsize if plan.client == "stays" else plan.at_byte
        try:
            while len(received) < limit and not _is_whole(received):
                data = await stream.receive_some(min(65536, limit - len(received)))
                if not data:
                    return bytes(received)
                received += data
        except trio.BrokenResourceError:
            return bytes(received)
        if plan.client != "stays" and not _is_whole(received):
            await trio.sleep(plan.pause_s)
            if plan.client == "leaves by FIN":
                await _leave_by_fin(stream)
                return b""
            _leave(stream, by_reset=plan.client == "leaves by reset" or bool(plan.number % 2))
            return b""
    return bytes(received)


def _is_whole(received: bytearray) -> bool:
    """Whether an answer has ended by its own framing, so that a client that stays need not wait for more."""
    if received.endswith(b"\r\n0\r\n\r\n"):
        return True
    head, gap, _ = received[:4096].partition(b"\r\n\r\n")
    _, found, length = bytes(head).lower().partition(b"\r\ncontent-length: ")
    return bool(gap and found) and len(received) - len(head) - 4 >= int(length.split(b"\r\n")[0])


async def _leave_by_fin(stream: trio.SocketStream) -> None:
    """Say that there is no more to come, and read away what is on its way, until the proxy has let go as well."""
    try:
        await stream.send_eof()
        while await stream.receive_some(65536):
            pass
    except trio.BrokenResourceError:
        pass


def _leave(stream: trio.SocketStream, *, by_reset: bool) -> None:
    """Close, as a reset if asked. With unread bytes it is one in any case."""
    if by_reset:
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    stream.socket.close()


async def play_all(asked: Iterator[Plan], clients: int, proxy: Server, outcome: Outcome, count: int) -> None:
    """Be all clients, so many at a time."""

    async def client() -> None:
        for plan in asked:
            await play(plan, proxy.port, outcome)
            outcome.ended += 1
            if outcome.ended % max(1, count // 10) == 0:
                outcome.memory_kib[outcome.ended] = proxy.workers_memory_kib()

    async def tell() -> None:
        start = time.monotonic()
        while True:
            await trio.sleep(5)
            print(
                f"{time.monotonic() - start:4.0f} s: {outcome.ended} of {count} streams, "
                f"{proxy.workers_memory_kib() / 1024:.0f} MiB, {len(outcome.wrong)} wrong",
                flush=True,
            )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        async with trio.open_nursery() as crowd:
            for _ in range(clients):
                crowd.start_soon(client)
        nursery.cancel_scope.cancel()


def run(count: int, clients: int, seed: int) -> list[str]:
    """Play it all, print the figures, and return what was broken. Raises AssertionError if a process died."""
    print(f"{count} streams, {clients} clients, seed {seed}", flush=True)
    allow_files(3 * clients + 500)
    outcome = Outcome()
    with demo_upstream() as upstream, serving(upstream.base_url, env=ENV) as proxy:
        before = _held(proxy)
        start = time.monotonic()
        trio.run(partial(play_all, plans(count, seed), clients, proxy, outcome, count))
        took_s = time.monotonic() - start
        broken_promises = _wait_for_quiet(proxy, upstream, before)
    levels = list(outcome.memory_kib.values())
    _print_table(outcome)
    print(f"{took_s:.0f} s, {count / took_s:.0f} streams/s; {sum(outcome.stayed.values())} clients saw the end")
    print("memory in MiB after each tenth:", " ".join(f"{level / 1024:.1f}" for level in levels))
    if max(levels[1:]) > GROWTH * levels[0]:
        broken_promises.append(f"the memory grew from {levels[0]} KiB to {max(levels[1:])} KiB")
    return broken_promises + outcome.wrong


def _held(proxy: Server) -> dict[str, int]:
    """What the proxy holds that it has to give back, by the system's account and by its own."""
    held = {"file descriptors": proxy.open_files(), "sockets": proxy.open_sockets()}
    resources = proxy.resources()
    held |= {"tasks": resources["tasks"], **resources["open"]}
    return held


def _wait_for_quiet(proxy: Server, upstream: Server, before: dict[str, int]) -> list[str]:
    """Wait until everything is given back; returns what was not."""
    deadline = time.monotonic() + QUIET_S
    while True:
        held = _held(proxy) | {"streams at the origin": streams(upstream)}
        kept = {name: number for name, number in held.items() if number > before.get(name, 0)}
        if not kept or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    print(f"quiet after {time.monotonic() - deadline + QUIET_S:.1f} s: {held}, before: {before}")
    return [f"{number} {name} are left, {before.get(name, 0)} before" for name, number in kept.items()]


def _print_table(outcome: Outcome) -> None:
    print(f"{'origin':20}" + "".join(f"{client:>17}" for client in CLIENTS) + f"{'saw the end':>17}")
    for origin in ORIGINS:
        counts = [outcome.fates[origin.name, client] for client in CLIENTS] + [outcome.stayed[origin.name]]
        print(f"{origin.name:20}" + "".join(f"{number:>17}" for number in counts))


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options = parser.parse_args()
    wrong = run(options.streams, options.clients, options.seed)
    for problem in wrong[:SHOWN]:
        print(problem)
    print(f"{len(wrong)} promises broken" if wrong else "every promise kept")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
