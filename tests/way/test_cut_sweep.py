"""Whoever is cut off, at whichever step of the scheduler: nothing is left behind and the request is logged once."""

from pathlib import Path

import pytest
import trio

from tests.harness.house import Client
from tests.harness.keys import bearer, key_table, price
from tests.harness.origin import LAST_CHUNK, OK_STREAM, Visit, chunk
from tests.harness.sweep import CUTS, DRAIN, Story, play
from tests.harness.talk import Guest, echo, hosting
from tests.way.test_main_job import EVENTS

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


async def stream(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM)
    for event in EVENTS:
        await trio.sleep(1)
        await visit.send(chunk(event))
    await visit.send(LAST_CHUNK)


async def stream_again(visit: Visit) -> None:
    while True:
        await stream(visit)


async def answer(visit: Visit) -> None:
    await visit.read_request()
    await trio.sleep(1)
    await visit.send(WHOLE[:40])
    await trio.sleep(1)
    await visit.send(WHOLE[40:])


async def refuse_early(visit: Visit) -> None:
    while b"\r\n\r\n" not in visit.received:
        await visit._read()
    await visit.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")


async def post_stream(client: Client) -> None:
    await client.post()
    await client.answer()


async def post_whole(client: Client) -> None:
    await client.post(b'{"model":"m"}', "/v1/embeddings")
    await client.answer()


async def talk(client: Client) -> None:
    guest = Guest(client.stream)
    if not await guest.enter():
        return
    for message in ("word", b"bytes" * 10):
        await guest.send(message)
        if await guest.hear() is None:
            return
    await guest.ping()
    await guest.close()
    await guest.hear()


async def upload(client: Client) -> None:
    await client.send(b"POST /v1/files HTTP/1.1\r\nhost: proxy\r\ncontent-length: 6\r\n\r\nab")
    await trio.sleep(1)
    await client.send(b"cd")
    await trio.sleep(1)
    await client.send(b"ef")
    await client.answer()


async def refused_upload(client: Client) -> None:
    await client.send(b"POST /v1/files HTTP/1.1\r\nhost: proxy\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
    await client.answer()


async def two_in_a_row(client: Client) -> None:
    await client.post()
    await client.post(b'{"model":"m"}', "/v1/embeddings")
    await client.answer()
    await trio.sleep(3)


async def fail(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(b"HTTP/1.1 500 Broken\r\ncontent-length: 2\r\n\r\n")
    await trio.sleep(1)
    await visit.send(b"{}")


async def err_inside(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM)
    await trio.sleep(1)
    await visit.send(chunk(b'data: {"error":{"message":"no","code":429}}\n\n') + LAST_CHUNK)


async def think_first(visit: Visit) -> None:
    await visit.read_request()
    await trio.sleep(3)
    await visit.send(OK_STREAM + chunk(b"".join(EVENTS)) + LAST_CHUNK)


async def fail_late(visit: Visit) -> None:
    await visit.read_request()
    await trio.sleep(3)
    await visit.send(b"HTTP/1.1 429 Slow\r\ncontent-length: 21\r\n\r\n" + b'{"error":')
    await trio.sleep(1)
    await visit.send(b'"slow down"}')


async def post_hurried(client: Client) -> None:
    await client.post(headers="x-trioproxy-deadline-ms: 2500\r\n")
    await client.answer()


async def stall(client: Client) -> None:
    await client.post()
    await client.read_some()
    await trio.sleep(10)


async def close_half(client: Client) -> None:
    await client.post()
    await client.read_some()
    await client.stream.send_eof()  # type: ignore[attr-defined]
    await client.read_raw()


async def fail_at_a(visit: Visit) -> None:
    await visit.read_request()
    if visit.host == "a":
        await visit.send(OK_STREAM + chunk(b'data: {"error":{"message":"no","code":429}}\n\n'))
    else:
        await visit.send(OK_STREAM + chunk(b"".join(EVENTS)) + LAST_CHUNK)


async def be_busy(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}")


async def think_at_a(visit: Visit) -> None:
    """`a` has a head and thinks; `b` is asked beside it and is not quick either."""
    await visit.read_request()
    await visit.send(OK_STREAM)
    await trio.sleep(9 if visit.host == "a" else 1)
    await visit.send(chunk(b"".join(EVENTS)) + LAST_CHUNK)


async def refuse_at_a(visit: Visit) -> None:
    """`a` refuses while `b` is asked beside it."""
    await visit.read_request()
    await trio.sleep(2)
    if visit.host == "a":
        await visit.send(b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n{}")
    else:
        await visit.send(OK_STREAM + chunk(b"".join(EVENTS)) + LAST_CHUNK)


async def be_slow_at_b(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM)
    for event in EVENTS:
        await trio.sleep(2 if visit.host == "b" else 1)
        await visit.send(chunk(event))
    await visit.send(LAST_CHUNK)


ME = "authorization: Bearer me\r\n"
SHARED = ME + "x-trioproxy-share: auto\r\n"


async def post_shared(client: Client) -> None:
    await client.post(headers=SHARED)
    await client.answer()


async def post_keyed(client: Client) -> None:
    await client.post(headers=bearer("ours"))
    await client.answer()


async def post_keyed_shared(client: Client) -> None:
    await client.post(headers=bearer("ours") + "x-trioproxy-share: auto\r\n")
    await client.answer()


async def leave_early(client: Client) -> None:
    await client.post(headers=ME + "x-trioproxy-resume: 60\r\n")
    await client.read_some()
    client.leave()
    await trio.sleep(10)


async def come_back(client: Client) -> None:
    await client.post(headers=ME + "x-trioproxy-resume: 60\r\n")
    answer = await client.answer()
    stream = answer.headers.get("x-trioproxy-stream", "none")  # stopped before there was one
    for method, where in (("GET", "?after=1"), ("DELETE", ""), ("GET", "")):
        await client.send(f"{method} /v1/streams/{stream}{where} HTTP/1.1\r\nhost: proxy\r\n{ME}\r\n".encode())
        await client.answer(method)


async def block(client: Client) -> None:
    await client.post(headers=SHARED + "x-trioproxy-slow: block\r\n")
    await client.read_some()
    await trio.sleep(10)


EARLY = (("stream__commit_before_head_s", 0.7), ("stream__heartbeat_s", 0.7))

TWO = """
[[upstream]]
base_url = "http://a/v1"
max_concurrent = 1
[[upstream]]
base_url = "http://b/v1"
max_concurrent = 1
"""

HEDGED = (
    TWO
    + """
[[route]]
models = ["*"]
hedge = { after_s = 1, budget = 1 }
"""
)
ONE_PLACE = """
[[upstream]]
base_url = "http://a/v1"
max_concurrent = 1
"""
BESIDE_ITSELF = (
    ONE_PLACE
    + """
[[route]]
models = ["*"]
targets = [{ upstream = "a" }, { upstream = "a", model = "other" }]
hedge = { after_s = 1, budget = 1 }
"""
)
SHADOWED = (
    TWO
    + """
[[route]]
models = ["*"]
targets = [{ upstream = "a" }]
shadow = { upstream = "b", share = 1 }
"""
)

# Money is limited, so that everything is taken, asked for and settled.
KEYED = (
    key_table("ours", "limits = { rpm = 9, tpm = 9_999, streams = 1, tokens_per_day = 9_999, usd_per_month = 9 }")
    + price("*")
    + ONE_PLACE
)

STORIES = [
    Story("a streaming request", stream, post_stream, drains=True),
    Story("a request that does not stream", answer, post_whole, drains=True),
    Story("an upload", answer, upload, drains=True),
    Story("an upload that is refused early", refuse_early, refused_upload),
    Story(
        "heartbeats in a slow stream",
        stream,
        post_stream,
        (("stream__heartbeat_s", 0.7), ("stream__commit_after_s", 0.2)),
    ),
    Story("a stream whose clocks run out", stream, post_stream, (("deadlines__idle_s", 0.5),)),
    Story("a request whose whole time is over", stream, post_stream, (("deadlines__total_s", 2.5),)),
    Story("two requests in one breath", stream, two_in_a_row),
    Story("an origin that fails", fail, post_stream),
    Story("an origin that cannot be reached", stream, post_stream, refuses=True),
    Story("an error inside a stream", err_inside, post_stream),
    Story("a head before the origin's", think_first, post_stream, EARLY, drains=True),
    Story("an origin that fails behind the head", fail_late, post_stream, EARLY, drains=True),
    Story("an origin that is late behind the head", think_first, post_stream, (*EARLY, ("deadlines__head_s", 2))),
    Story("a request in a hurry", stream, post_hurried),
    Story("a client that stalls", stream, stall, (("deadlines__client_stall_s", 3),), lockstep=True),
    Story("a client that closes half", stream, close_half),
    Story("a second try at another target", fail_at_a, post_stream, config=TWO),
    Story("the sleep before a second try", be_busy, post_whole, config=TWO),
    Story("two tries side by side", think_at_a, post_stream, config=HEDGED, drains=True),
    Story("two tries side by side, one refused", refuse_at_a, post_stream, config=HEDGED, drains=True),
    Story("a second try that waits for the place of the first", think_first, post_stream, config=BESIDE_ITSELF),
    Story("a shadow beside a stream", be_slow_at_b, post_stream, config=SHADOWED, drains=True),
    Story("a wait for a place", stream_again, post_stream, config=ONE_PLACE, has_rival=True, drains=True),
    Story("a WebSocket session", hosting(echo), talk, drains=True),
    Story("a WebSocket session with messages that wait", hosting(echo), talk, lockstep=True, drains=True),
    Story("a shared stream", stream, post_shared, has_rival=True, rival_headers=SHARED, drains=True),
    Story("a stream that goes on without its client", stream, leave_early, drains=True, linger_s=61),
    Story("a stream that is come back to", stream, come_back, drains=True, linger_s=61),
    Story(
        "a reader that is waited for",
        stream,
        block,
        (("hub__max_events", 1), ("deadlines__client_stall_s", 3)),
        lockstep=True,
        drains=True,
    ),
    Story("a shared stream whose origin fails", fail, post_shared, has_rival=True, rival_headers=SHARED),
    Story("a shared stream of two tries side by side", think_at_a, post_shared, config=HEDGED, drains=True),
    Story("a request of a key with limits", stream, post_keyed, config=KEYED, drains=True),
    Story("a shared stream of a key with limits", stream, post_keyed_shared, config=KEYED, drains=True),
    Story("a client that closes half and reads on", stream, close_half, (("server__half_close", "keep"),)),
]


SWEEPS = [(story, cut) for story in STORIES for cut in (*CUTS, *([DRAIN] if story.drains else []))]


@pytest.mark.parametrize(("story", "cut"), SWEEPS, ids=[f"{story.name}-{cut}" for story, cut in SWEEPS])
def test_nothing_is_left_behind(story: Story, cut: str, tmp_path: Path) -> None:
    file: Path | None = None
    if story.config:
        file = tmp_path / "trioproxy.toml"
        file.write_text(story.config)
    steps = play(story, cut, 0, file).steps
    assert steps > 10
    for step in range(1, steps + 1):
        outcome = play(story, cut, step, file)
        ids = [line["request_id"] for line in outcome.exchanges]
        assert len(ids) == len(set(ids)), f"step {step}: logged twice"
        assert bool(ids) or outcome.origins == 0, f"step {step}: the origin was asked and nothing was logged"
