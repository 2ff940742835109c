"""What goes wrong in other gateways, as far as no other story tells it. tests/README.md has the whole list."""

import json

import pytest
import trio

from tests.harness.house import CHAT, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.way.test_requests import Recorder, ask

CHAT_PATH = "/v1/chat/completions"


async def streams_for_ever(visit: Visit) -> None:
    await visit.read_request()
    await visit.send(OK_STREAM)
    while True:
        await visit.send(chunk(content("x")))
        await trio.sleep(0.1)


async def test_a_permit_comes_back_whenever_the_client_leaves(autojump_clock: trio.testing.MockClock) -> None:
    """Lesson 2: slots that leak on cancel lock everybody out in the end."""
    async with open_house(streams_for_ever, server__max_streams=2) as house:
        for moment in range(60):
            clients = [house.connect() for _ in range(3)]
            for client in clients[:2]:
                await client.post()
            await trio.sleep(moment / 100)
            await clients[2].post()
            for client in clients:
                client.leave()
            await trio.sleep(1)
            assert house.house.service.admission.permits.open == 0
        client = house.connect()
        await client.post()
        assert (await client.read_some()).startswith(b"HTTP/1.1 200 ")
        client.leave()


async def test_too_many_requests_are_refused_on_the_plain_and_on_the_streaming_path(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Lesson 24: a rule that is enforced on one path is easily forgotten on the others."""
    async with open_house(streams_for_ever, server__max_streams=1) as house:
        first = house.connect()
        await first.post()
        await trio.sleep(1)
        for line, body in (
            (f"POST {CHAT_PATH}", CHAT),
            (f"POST {CHAT_PATH}", b'{"model":"m"}'),
            ("POST /v1/embeddings", b'{"model":"m"}'),
            ("POST /v1/files", b"x"),
            ("GET /v1/models", b""),
        ):
            refused = await ask(house, line, body=body)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1"), line
            assert json.loads(refused.body)["error"]["code"] == "overloaded"
        assert len(house.origin.visits) == 1
        assert (await ask(house, "GET /healthz")).status == 200
        first.leave()


async def test_the_origin_is_let_go_before_anything_is_written_down(autojump_clock: trio.testing.MockClock) -> None:
    """Lesson 4: accounting is no reason to let a model go on."""
    async with open_house(streams_for_ever) as house:
        closed_when_logged: list[bool] = []
        put = house.log.put

        def look(event: str, fields: dict[str, object]) -> None:
            closed_when_logged.append(house.house.pool.connections.open == 0)
            put(event, fields)

        house.log.put = look  # type: ignore[method-assign]
        client = house.connect()
        await client.post()
        await client.read_some()
        client.leave()
        await trio.sleep(1)
        assert closed_when_logged == [True]


@pytest.mark.parametrize("events", [0, 1, 3])
async def test_nothing_is_sent_to_an_origin_twice(events: int, autojump_clock: trio.testing.MockClock) -> None:
    """Lesson 13: a repeated request pays twice, and behind the first content it repeats text."""

    async def dies(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM + b"".join(chunk(content("x")) for _ in range(events)))
        visit.cut()

    async with open_house(dies) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        assert answer.status == (502 if events == 0 else 200)
        assert len(house.origin.visits) == 1
        client.leave()


@pytest.mark.parametrize(
    ("line", "headers", "body"),
    [
        (
            f"POST {CHAT_PATH}",
            "x-forwarded-host: evil\r\nforwarded: host=evil\r\nx-original-url: http://evil/\r\n",
            CHAT,
        ),
        (f"POST {CHAT_PATH}", "x-base-url: http://evil/v1\r\nx-portkey-custom-host: http://evil\r\n", CHAT),
        (f"POST {CHAT_PATH}", "", b'{"model":"m","stream":true,"api_base":"http://evil/v1","base_url":"http://evil"}'),
        (f"POST {CHAT_PATH}?api_base=http://evil/v1", "", CHAT),
        ("GET /v1/http://evil/models", "", b""),
        ("GET /v1/@evil/models", "", b""),
    ],
)
async def test_nothing_that_a_client_sends_chooses_the_host(
    line: str, headers: str, body: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """Lesson 19: hosts come from the configuration."""
    asked: list[tuple[str, int]] = []
    recorder = Recorder()
    async with open_house(recorder) as house:
        open_tcp = house.origin.open_tcp

        async def note(host: str, port: int) -> trio.abc.Stream:
            asked.append((host, port))
            return await open_tcp(host, port)

        house.house.endpoints["origin"].transport._connector._open_tcp = note
        await ask(house, line, headers, body)
    assert set(asked) <= {("origin", 80)}
    assert all("host: origin\r\n" in request.decode() for request in recorder.asked)


@pytest.mark.parametrize("path", ["/metrics", "/admin/resources", "/admin/reload", "/admin", "/admin/streams"])
async def test_the_data_address_has_no_admin_on_it(path: str, autojump_clock: trio.testing.MockClock) -> None:
    """Lesson 26: what operators ask is on an address of its own."""
    async with open_house(Recorder()) as house:
        assert (await ask(house, f"GET {path}")).status == 404
        assert (await ask(house, f"POST {path}")).status == 404
        assert house.origin.visits == []


async def test_an_event_may_come_in_packets_of_one_byte(autojump_clock: trio.testing.MockClock) -> None:
    """Lesson 12: an event, or a character, that is split across reads."""
    events = content("\u00e9\u6f22\U0001f600") + content("", '"stop"') + DONE

    async def drips(visit: Visit) -> None:
        await visit.read_request()
        await visit.send(OK_STREAM)
        for byte in chunk(events) + LAST_CHUNK:
            await visit.send(bytes([byte]))
            await trio.sleep(0.001)

    async with open_house(drips) as house:
        client = house.connect()
        await client.post()
        answer = await client.answer()
        assert answer.is_complete and answer.body == events
        client.leave()
