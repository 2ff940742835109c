"""Stories of browsers: an EventSource that comes back by itself, and tokens for those that cannot send credentials."""

import json
from collections.abc import Callable
from typing import Any

import h11
import pytest
import trio
from trio.testing import MockClock

from tests.harness.house import Answer, Client, HouseUnderTest, open_house
from tests.harness.origin import DONE, LAST_CHUNK, OK_STREAM, Visit, chunk, content
from tests.harness.plays import Plays, Ways, ask, code, route, status
from tests.way.test_replicas import two

PATH = "/v1/chat/stream"
QUESTION = PATH + "?model=m&prompt=hi"
TOKENS = "/v1/stream/tokens"
ME = "authorization: Bearer me\r\n"
EVENTS = [content(f"word{number}") for number in range(6)]
ALL = [*EVENTS, DONE]


async def slowly(visit: Visit) -> None:
    """An event a second."""
    await visit.send(OK_STREAM)
    for event in EVENTS:
        await visit.send(chunk(event))
        await trio.sleep(1)
    await visit.send(chunk(DONE) + LAST_CHUNK)


async def get(house: HouseUnderTest, target: str = QUESTION, headers: str = "", method: str = "GET") -> Answer:
    return await ask(house, path=target, headers=headers, method=method)


async def token_of(house: HouseUnderTest, headers: str = ME, body: bytes = b"") -> str:
    answer = await ask(house, body, TOKENS, headers)
    assert answer.status == 200, answer.body
    token: str = json.loads(answer.body)["token"]
    return token


def numbered(stream: str, first: int = 1, last: int = 7) -> bytes:
    """What an EventSource is sent, from event `first` on."""
    events = [f"id: {stream}.{number}\n".encode() + ALL[number - 1] for number in range(first, last + 1)]
    return f"retry: 1000\nid: {stream}.{first - 1}\n\n".encode() + b"".join(events)


class Browser:
    """As much of an EventSource as it takes to come back: the last id, and the data of what was whole."""

    def __init__(self, house: HouseUnderTest, target: str = QUESTION) -> None:
        self._house = house
        self._target = target
        self.last = ""
        self.data: list[bytes] = []
        self.statuses: list[int] = []

    async def run(self, cut_after_s: Callable[[int], float]) -> None:
        """Connect again and again, and lose the connection after so many seconds, until there is nothing more."""
        while len(self.statuses) < 20:
            client = self._house.connect()
            fields = f"last-event-id: {self.last}\r\n" if self.last else ""
            await client.send(f"GET {self._target} HTTP/1.1\r\nhost: proxy\r\n{fields}\r\n".encode())
            status, body = await _read(client, cut_after_s(len(self.statuses)))
            client.leave()
            self.statuses.append(status)
            if status not in (0, 200):  # 0: lost before there was any
                return
            for block in body.split(b"\n\n")[:-1]:
                for line in block.split(b"\n"):
                    name, _, value = line.partition(b": ")
                    if name == b"id":
                        self.last = value.decode()
                    elif name == b"data":
                        self.data.append(value)
            await trio.sleep(1)


async def _read(client: Client, seconds: float) -> tuple[int, bytes]:
    """Status and body of an answer, as far as they come within so many seconds."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "proxy")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    with trio.move_on_after(seconds):
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(await client.read_some())
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
    return status, body


async def test_a_question_in_a_url_is_a_chat_and_each_event_has_its_id(clock: MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:
        browser = (
            ME + "accept: text/event-stream\r\norigin: http://proxy\r\nreferer: http://proxy/page\r\n"
            "accept-encoding: gzip, br\r\nsec-fetch-site: same-origin\r\ncookie: a=b\r\n"
        )
        answer = await get(house, QUESTION + "&system=be+kind&max_tokens=9&temperature=0.5", browser)
        stream = answer.headers["x-trioproxy-stream"]
        assert (answer.status, answer.is_complete) == (200, True)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.body == numbered(stream)
    (request,) = plays.got
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    fields = [line.lower() for line in head.split(b"\r\n")[1:]]
    assert b"authorization: bearer me" in fields and b"content-type: application/json" in fields
    assert b"accept-encoding: identity" in fields
    names = {line.partition(b":")[0] for line in fields}
    assert not names & {b"origin", b"referer", b"cookie", b"last-event-id", b"sec-fetch-site"}
    assert json.loads(body) == {
        "model": "m",
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
        "stream": True,
        "max_tokens": 9,
        "temperature": 0.5,
    }
    (line,) = house.log.exchanges
    assert (line["endpoint"], line["model"], line["stream"], line["path"]) == ("chat", "m", True, PATH)


@pytest.mark.parametrize("lost_after_s", [0.0, 0.5, 1.5, 3.2, 5.9])
async def test_a_browser_that_loses_its_connection_again_and_again_has_the_text_once(
    lost_after_s: float, clock: MockClock
) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:
        browser = Browser(house)
        lost = [lost_after_s + 0.01, 0.7, 0.01, 2.0]
        await browser.run(lambda turn: lost[turn] if turn < len(lost) else 60)
        assert browser.data == [event.removeprefix(b"data: ").removesuffix(b"\n\n") for event in ALL]
        assert browser.statuses[-1] == 204
        assert set(browser.statuses[:-1]) <= {0, 200}
    assert len(plays.got) == 1


async def test_the_browser_knows_its_stream_before_the_first_event(clock: MockClock) -> None:
    async def thinks(visit: Visit) -> None:
        await visit.send(OK_STREAM)
        await trio.sleep(30)
        await visit.send(b"".join(map(chunk, ALL)) + LAST_CHUNK)

    plays = Plays(thinks)
    async with open_house(plays) as house:
        browser = Browser(house)
        lost = [11.0, 2.0]
        await browser.run(lambda turn: lost[turn] if turn < len(lost) else 60)
        assert len(browser.data) == 7
    assert len(plays.got) == 1


async def test_it_goes_on_for_half_a_minute_without_its_reader_or_as_the_url_says(clock: MockClock) -> None:
    async def endless(visit: Visit) -> None:
        await visit.send(OK_STREAM)
        while True:
            await visit.send(chunk(EVENTS[0]))
            await trio.sleep(1)

    for more, lives_s in (("", 29.9), ("&resume=7.5", 7.4), ("&resume=0", 0.0)):
        async with open_house(endless) as house:
            client = house.connect()
            await client.send(f"GET {QUESTION}{more} HTTP/1.1\r\nhost: proxy\r\n\r\n".encode())
            await client.read_some()
            client.leave()
            await trio.sleep(lives_s)
            assert house.house.hub.producers.open == 1
            await trio.sleep(0.2)
            assert house.house.hub.producers.open == 0
            (ended,) = [line for line in house.log.lines if line["event"] == "stream"]
            assert ended["reason"] == "abandoned"


async def test_the_route_may_say_how_long(ways: Ways, clock: MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays, file=ways(route("resume_s = 3"), a="")) as house:
        client = house.connect()
        await client.send(f"GET {QUESTION} HTTP/1.1\r\nhost: proxy\r\n\r\n".encode())
        await client.read_some()
        client.leave()
        await trio.sleep(2.9)
        assert house.house.hub.producers.open == 1
        await trio.sleep(0.2)
        assert house.house.hub.producers.open == 0


async def test_where_it_was_is_said_by_the_browser_and_what_is_not_there_is_an_error(clock: MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays, hub__max_events=3) as house:
        answer = await get(house)
        stream = answer.headers["x-trioproxy-stream"]
        rest = await get(house, headers=f"last-event-id: {stream}.5\r\n")
        assert rest.body == numbered(stream, 6)
        assert (await get(house, headers=f"last-event-id: {stream}.7\r\n")).status == 204
        gone = await get(house, headers=f"last-event-id: {stream}.1\r\n")
        assert (gone.status, code(gone)) == (410, "position_gone")
        for last, expected in (
            ("nothing.3", (404, "stream_not_found")),
            ("7", (400, "invalid_body")),
            ("no id at all", (400, "invalid_body")),
        ):
            refused = await get(house, headers=f"last-event-id: {last}\r\n")
            assert (refused.status, code(refused)) == expected
        for after in ("%80", "x", "1&after=2"):
            assert (await get(house, f"/v1/streams/{stream}?after={after}")).status == 400
        others = await get(house, headers=ME + f"last-event-id: {stream}.5\r\n")
        assert others.status == 404
        await trio.sleep(61)
        assert (await get(house, headers=f"last-event-id: {stream}.7\r\n")).status == 404
    assert len(plays.got) == 1


@pytest.mark.parametrize("who", ["", ME])
async def test_a_browser_comes_back_to_any_replica(who: str, clock: MockClock) -> None:
    async with two() as both:
        client = both.a.connect()
        await client.send(f"GET {QUESTION} HTTP/1.1\r\nhost: proxy\r\n{who}\r\n".encode())
        await trio.sleep(2.5)
        head = await client.read_some()
        client.leave()
        stream = head.partition(b"x-trioproxy-stream: ")[2].partition(b"\r\n")[0].decode()
        rest = await get(both.b, headers=who + f"last-event-id: {stream}.2\r\n")
        assert (rest.is_complete, rest.body) == (True, numbered(stream, 3))
        assert (await get(both.b, headers=who + f"last-event-id: {stream}.7\r\n")).status == 204
    assert len(both.plays.got) == 1


@pytest.mark.parametrize("more", ["", "&resume=0"])
async def test_a_browser_is_never_sent_a_stream_that_it_could_not_come_back_to(more: str, clock: MockClock) -> None:
    async with two() as both:
        both.store.is_away = True
        refused = await get(both.a, QUESTION + more, ME + "x-trioproxy-share: auto\r\n")
        assert (refused.status, code(refused)) == (503, "state_unavailable")
    assert not both.plays.got


async def test_an_empty_last_id_is_none(clock: MockClock) -> None:
    async with open_house(slowly) as house:
        assert (await get(house, headers="last-event-id: \r\n")).body.startswith(b"retry: 1000\n")


async def test_what_goes_wrong_is_told_as_for_any_chat(clock: MockClock) -> None:
    async def dies(visit: Visit) -> None:
        await visit.send(OK_STREAM + chunk(EVENTS[0]))
        await trio.sleep(2)
        visit.cut()

    plays = Plays(status(429), dies)
    async with open_house(plays) as house:
        refused = await get(house)
        assert (refused.status, json.loads(refused.body)["error"]["message"]) == (429, "no")
        cut = await get(house)
        stream = cut.headers["x-trioproxy-stream"]
        assert (cut.is_complete, b"upstream_truncated" in cut.body) == (False, True)
        assert f"\nid: {stream}.2\n".encode() in cut.body
        assert (await get(house, headers=f"last-event-id: {stream}.2\r\n")).status == 204
    assert len(plays.got) == 2


@pytest.mark.parametrize(
    ("target", "method", "expected"),
    [
        (PATH, "GET", (400, "invalid_body")),
        (PATH + "?model=m", "GET", (400, "invalid_body")),
        (QUESTION + "&stream=false", "GET", (400, "invalid_body")),
        (QUESTION, "DELETE", (405, "method_not_allowed")),
        (TOKENS, "GET", (405, "method_not_allowed")),
        (QUESTION + "&token=none", "GET", (400, "invalid_body")),
    ],
)
async def test_what_cannot_be_read_is_refused(
    target: str, method: str, expected: tuple[int, str], clock: MockClock
) -> None:
    plays = Plays(slowly)
    async with open_house(plays) as house:
        answer = await get(house, target, method=method)
        assert (answer.status, code(answer)) == expected
    assert not plays.got


@pytest.mark.parametrize("field", ["origin: http://other\r\n", "sec-fetch-site: cross-site\r\n"])
async def test_pages_of_other_sites_are_kept_out_on_loopback(
    field: str, ways: Ways, keys: str, clock: MockClock
) -> None:
    plays = Plays(slowly)
    async with open_house(plays, file=ways(a=keys)) as house:
        for answer in (await get(house, headers=field), await ask(house, b"", TOKENS, field)):
            assert (answer.status, code(answer)) == (403, "foreign_origin")
    assert not plays.got
    async with open_house(plays, file=ways(a=keys), server__bind=["0.0.0.0:8080"], gate__allow_open=True) as house:
        assert (await get(house, headers=field)).status == 200


async def test_a_token_stands_for_its_caller(ways: Ways, keys: str, clock: MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays, file=ways(a=keys)) as house:
        token = await token_of(house)
        answer = await get(house, f"{QUESTION}&token={token}")
        stream = answer.headers["x-trioproxy-stream"]
        assert answer.body == numbered(stream)
        assert (await get(house, f"/v1/streams/{stream}", ME)).status == 200
        assert (await get(house, f"/v1/streams/{stream}?token={token}")).status == 200
        assert (await get(house, f"/v1/streams/{stream}")).status == 404
        other = await token_of(house, "authorization: Bearer other\r\n")
        assert (await get(house, f"/v1/streams/{stream}?token={other}")).status == 404
        nobody = await token_of(house, "")
        assert (await get(house, f"/v1/streams/{stream}?token={nobody}")).status == 404
        assert (await get(house, f"{QUESTION}&token={token[:-1]}")).status == 401
        forged = await get(house, f"{QUESTION}&token={'A' * len(token)}")
        assert (forged.status, code(forged)) == (401, "invalid_api_key")
    assert plays.field(b"authorization") == [b"Bearer sk-one"]
    said = json.dumps(house.log.lines)
    assert token not in said and "prompt" not in said


async def test_a_page_with_a_token_stops_its_stream(ways: Ways, keys: str, clock: MockClock) -> None:
    async with open_house(slowly, file=ways(a=keys)) as house:
        token = await token_of(house)
        client = house.connect()
        await client.send(f"GET {QUESTION}&token={token} HTTP/1.1\r\nhost: proxy\r\n\r\n".encode())
        await trio.sleep(1.5)
        (stream,) = house.house.hub.streams
        assert (await get(house, f"/v1/streams/{stream.id}?token={token}", method="DELETE")).status == 204
        assert b"stream_stopped" in await client.read_raw()


async def test_behind_its_expiry_a_token_opens_nothing_and_resumes_what_it_opened(
    ways: Ways, keys: str, clock: MockClock
) -> None:
    plays = Plays(slowly)
    async with open_house(plays, file=ways(a=keys)) as house:
        began = trio.current_time()
        house.house.service.wall_clock = lambda: 1_800_000_000 + trio.current_time() - began
        made = await ask(house, b'{"expires_in": 4}', TOKENS, ME)
        assert json.loads(made.body)["expires_at"] == "2027-01-15T08:00:04Z"
        assert made.headers["cache-control"] == "no-store"
        target = f"{QUESTION}&token={json.loads(made.body)['token']}"
        answer = await get(house, target)  # takes six seconds
        stream = answer.headers["x-trioproxy-stream"]
        refused = await get(house, target)
        assert (refused.status, code(refused)) == (401, "invalid_api_key")
        assert (await get(house, target, f"last-event-id: {stream}.4\r\n")).body == numbered(stream, 5)
        assert (await get(house, target, f"last-event-id: {stream}.7\r\n")).status == 204
    assert len(plays.got) == 1


async def test_a_minute_unless_something_else_is_wished(ways: Ways, keys: str, clock: MockClock) -> None:
    async with open_house(slowly, file=ways(a=keys)) as house:
        house.house.service.wall_clock = lambda: 1_800_000_000.9
        made = await ask(house, b"", TOKENS)
        assert json.loads(made.body)["expires_at"] == "2027-01-15T08:01:00Z"
        for body, refusal in ((b'{"expires_in": 601}', 400), (b"[]", 400), (b" " * 5000, 413)):
            assert (await ask(house, body, TOKENS)).status == refusal


async def test_without_a_key_of_an_upstream_s_own_there_are_no_tokens(clock: MockClock) -> None:
    async with open_house(slowly) as house:
        answer = await ask(house, b"", TOKENS, ME)
        assert (answer.status, code(answer)) == (400, "invalid_body")
        assert "api_key" in json.loads(answer.body)["error"]["message"]


async def test_pages_share_where_the_route_says_so(ways: Ways, keys: str, clock: MockClock) -> None:
    plays = Plays(slowly)
    answers: list[Any] = []
    async with open_house(plays, file=ways(route("share = true"), a=keys)) as house:
        one, two = await token_of(house), await token_of(house)

        async def read(token: str) -> None:
            answers.append(await get(house, f"{QUESTION}&token={token}"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, one)
            await trio.sleep(2.5)
            nursery.start_soon(read, two)
        assert answers[0].body == answers[1].body == numbered(answers[0].headers["x-trioproxy-stream"])
    assert len(plays.got) == 1
