"""Stories of browsers: whose pages come in and read what they get, and what a token lets them have."""

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.harness.house import CHAT, Answer, HouseUnderTest, open_house
from tests.harness.origin import OK_STREAM, Visit, chunk
from tests.harness.plays import OK, STREAM, WORD, Plays, Ways, ask, code, status
from tests.harness.talk import Guest
from tests.way.test_event_source import ME, QUESTION, TOKENS, get, numbered, slowly, token_of
from tests.way.test_stream_socket import ASK, code_of, hear_id, say
from trioproxy.config import hash_of

PAGE = "https://app.example"
FROM_PAGE = f"origin: {PAGE}\r\nsec-fetch-site: cross-site\r\n"
FROM_ELSEWHERE = "origin: https://evil.example\r\nsec-fetch-site: cross-site\r\n"
ASKS = "access-control-request-method: POST\r\naccess-control-request-headers: authorization, content-type\r\n"
ROUTES = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("GET", "/v1/realtime"),
    ("POST", "/v1/files"),
    ("OPTIONS", "/v1/files"),
    ("GET", "/v1/streams/some"),
    ("DELETE", "/v1/streams/some"),
    ("GET", QUESTION),
    ("POST", TOKENS),
    ("GET", "/v1/stream/ws"),
    ("GET", "/nothing"),
    ("GET", "/v1/../v1/models"),
]
PROBES = ["/healthz", "/health", "/readyz"]


async def raw(house: HouseUnderTest, method: str, path: str, headers: str = FROM_PAGE, host: str = "proxy") -> bytes:
    """All bytes of an answer."""
    body = CHAT if method == "POST" else b""
    fields = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
    client = house.connect()
    head = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}{fields}\r\n"
    await client.send(head.encode() + body)
    data = await client.read_raw()
    client.leave()
    return data


def fields_of(data: bytes) -> list[tuple[str, str]]:
    """The fields in an answer's head."""
    lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]


def values(data: bytes, wanted: str) -> list[str]:
    return [value for name, value in fields_of(data) if name == wanted]


def is_readable(data: bytes) -> bool:
    """Whether a browser would let the page read this answer; what it is told stands there once."""
    allowed = values(data, "access-control-allow-origin")
    assert len(allowed) == len(values(data, "access-control-expose-headers")) <= 1
    assert not allowed or "origin" in values(data, "vary")
    return allowed == [PAGE]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_on_loopback_no_route_answers_under_another_name_or_to_a_page_of_another_site(
    method: str, path: str, clock: MockClock
) -> None:
    plays = Plays(OK)
    async with open_house(plays) as house:
        for headers, host, expected in (
            ("", "evil.example", (421, "foreign_host")),
            (FROM_ELSEWHERE, "proxy", (403, "foreign_origin")),
            (FROM_ELSEWHERE, "localhost:8080", (403, "foreign_origin")),
            ("sec-fetch-site: same-site\r\n", "127.0.0.1:8080", (403, "foreign_origin")),
            (FROM_ELSEWHERE, "evil.example", (421, "foreign_host")),
        ):
            data = await raw(house, method, path, headers, host)
            assert int(data.split(b" ")[1]) == expected[0]
            assert json.loads(data.partition(b"\r\n\r\n")[2])["error"]["code"] == expected[1]
            assert not is_readable(data)
        assert [line["code"] for line in house.log.exchanges] == ["foreign_host"] + ["foreign_origin"] * 3 + [
            "foreign_host"
        ]
    assert not plays.got


async def test_on_messages_that_is_said_in_its_own_dialect(clock: MockClock) -> None:
    async with open_house(Plays(OK)) as house:
        data = await raw(house, "POST", "/v1/messages", FROM_ELSEWHERE)
        assert json.loads(data.partition(b"\r\n\r\n")[2])["type"] == "error"


@pytest.mark.parametrize("path", PROBES)
async def test_a_probe_names_the_proxy_as_it_likes(path: str, clock: MockClock) -> None:
    async with open_house(Plays(OK)) as house:
        assert (await raw(house, "GET", path, "", "evil.example")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080", "inside", "Inside:80"])
async def test_loopback_names_and_those_that_are_set_are_answered(host: str, clock: MockClock) -> None:
    async with open_house(Plays(OK), server__hosts=["inside"]) as house:
        assert (await raw(house, "POST", "/v1/embeddings", "", host)).startswith(b"HTTP/1.1 200 ")
        assert (await raw(house, "POST", "/v1/embeddings", "", "proxy")).startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize("bind", [["192.0.2.1:80"], ["127.0.0.1:8080", "192.0.2.1:80"]])
async def test_what_does_not_come_in_by_loopback_may_name_it_otherwise(bind: list[str], clock: MockClock) -> None:
    async with open_house(Plays(OK), server__bind=bind) as house:
        data = await raw(house, "POST", "/v1/embeddings", FROM_ELSEWHERE, "llm.example.com")
        assert data.startswith(b"HTTP/1.1 200 ") and not is_readable(data)


@pytest.mark.parametrize(("method", "path"), ROUTES[:-1])
async def test_a_browser_that_asks_before_is_told_and_nobody_else_is_asked(
    method: str, path: str, clock: MockClock
) -> None:
    plays = Plays(OK)
    async with open_house(plays, cors__origins=[PAGE]) as house:
        data = await raw(house, "OPTIONS", path, FROM_PAGE + ASKS)
        assert data.startswith(b"HTTP/1.1 204 ") and is_readable(data)
        assert values(data, "access-control-allow-headers") == ["authorization, content-type"]
        assert method in [*values(data, "access-control-allow-methods")[0].split(", "), "OPTIONS"]
        refused = await raw(house, "OPTIONS", path, FROM_ELSEWHERE + ASKS)
        assert refused.startswith(b"HTTP/1.1 403 ") and not is_readable(refused)
        (line, _) = house.log.exchanges
        assert (line["status"], line["outcome"]) == (204, "finished")
    assert not plays.got


async def test_off_loopback_a_browser_that_asks_before_is_told_too(clock: MockClock) -> None:
    plays = Plays(OK)
    async with open_house(plays, cors__origins=[PAGE], server__bind=["0.0.0.0:80"]) as house:
        assert (await raw(house, "OPTIONS", "/v1/files", FROM_PAGE + ASKS)).startswith(b"HTTP/1.1 204 ")
        assert (await raw(house, "OPTIONS", "/v1/files", FROM_ELSEWHERE + ASKS)).startswith(b"HTTP/1.1 403 ")
        assert not plays.got
        assert (await raw(house, "OPTIONS", "/v1/files", FROM_PAGE)).startswith(b"HTTP/1.1 200 ")
    assert len(plays.got) == 1


async def test_with_no_origin_listed_it_is_the_origin_server_s_business_but_no_page_reads_anything(
    clock: MockClock,
) -> None:
    fields = b"access-control-allow-origin: *\r\nAccess-Control-Allow-Headers: *\r\ncontent-length: 0\r\n\r\n"
    plays = Plays(b"HTTP/1.1 200 OK\r\n" + fields)
    async with open_house(plays, server__bind=["0.0.0.0:80"]) as house:
        for method, headers in (("OPTIONS", FROM_PAGE + ASKS), ("GET", FROM_PAGE)):
            data = await raw(house, method, "/v1/files", headers)
            assert data.startswith(b"HTTP/1.1 200 ")
            assert not [name for name, _ in fields_of(data) if name.startswith("access-control-") or name == "vary"]
    assert len(plays.got) == 2


async def breaks_off(visit: Visit) -> None:
    await visit.send(OK_STREAM + chunk(WORD))
    visit.cut()


ALLOWING = (
    b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\naccess-control-expose-headers: x-evil\r\n"
    b"vary: accept-encoding\r\ncontent-length: 2\r\n\r\n{}"
)


@pytest.mark.parametrize(
    ("step", "method", "path", "expected"),
    [
        (OK, "POST", "/v1/embeddings", 200),
        (ALLOWING, "POST", "/v1/embeddings", 200),
        (ALLOWING, "GET", "/v1/files", 200),
        (ALLOWING, "GET", "/v1/models", 200),
        (STREAM, "POST", "/v1/chat/completions", 200),
        (breaks_off, "POST", "/v1/chat/completions", 200),
        (status(429), "POST", "/v1/chat/completions", 429),
        (status(401), "GET", "/v1/files", 401),
        (b"nonsense\r\n\r\n", "POST", "/v1/chat/completions", 502),
        (STREAM, "GET", QUESTION, 200),
        (OK, "GET", "/v1/chat/completions?%", 200),
        (OK, "PUT", "/v1/chat/completions", 405),
        (OK, "GET", "/v1/streams/none", 404),
        (OK, "GET", "/nothing", 404),
        (OK, "GET", "/v1/../v1/models", 400),
        (OK, "GET", "/healthz", 200),
        (OK, "GET", "/readyz", 200),
        (OK, "POST", TOKENS, 400),
        (OK, "GET", "/v1/stream/ws", 400),
    ],
)
async def test_a_listed_page_reads_every_answer_and_no_other_page_does(
    step: bytes, method: str, path: str, expected: int, clock: MockClock
) -> None:
    for bind in (["127.0.0.1:8080"], ["0.0.0.0:80"]):
        async with open_house(Plays(step), cors__origins=[PAGE], server__bind=bind) as house:
            data = await raw(house, method, path)
            assert int(data.split(b" ")[1]) == expected, data
            assert is_readable(data)
            own = await raw(house, method, path, "")
            assert not is_readable(own)
            assert "origin" in values(own, "vary")
            assert not is_readable(await raw(house, method, path, FROM_ELSEWHERE))
            if step is ALLOWING:
                assert sorted(values(data, "vary")) == ["accept-encoding", "origin"]
                assert "x-evil" not in values(data, "access-control-expose-headers")[0]


async def test_a_listed_page_reads_that_something_broke(clock: MockClock) -> None:
    async with open_house(Plays(OK), cors__origins=[PAGE]) as house:
        dispatcher = house.house.service.dispatcher
        house.house.service.dispatcher = None  # type: ignore[assignment]
        data = await raw(house, "POST", "/v1/chat/completions")
        assert data.startswith(b"HTTP/1.1 500 ") and is_readable(data)
        house.house.service.dispatcher = dispatcher
        assert house.crashes == 1
        house.house.listener.barrier.crashes = 0


async def test_what_the_proxy_says_in_its_answers_can_be_read(clock: MockClock) -> None:
    async with open_house(Plays(slowly), cors__origins=[PAGE]) as house:
        data = await raw(house, "GET", QUESTION)
        exposed = values(data, "access-control-expose-headers")[0].split(", ")
        said = {name for name, _ in fields_of(data) if name.startswith("x-trioproxy-")}
        assert "x-trioproxy-stream" in said
        assert said <= set(exposed)


async def test_each_reader_of_a_shared_stream_is_told_for_itself(clock: MockClock) -> None:
    plays = Plays(slowly)
    shared = ME + "x-trioproxy-share: auto\r\n"
    seen: dict[str, bytes] = {}
    async with open_house(plays, cors__origins=[PAGE]) as house:

        async def read(name: str, headers: str) -> None:
            seen[name] = await raw(house, "POST", "/v1/chat/completions", shared + headers)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "own", "")
            await trio.sleep(1.5)
            nursery.start_soon(read, "page", FROM_PAGE)
    assert (is_readable(seen["page"]), is_readable(seen["own"])) == (True, False)
    assert len(plays.got) == 1


async def test_the_head_that_goes_out_early_is_readable(clock: MockClock) -> None:
    async def thinks(visit: Visit) -> None:
        await trio.sleep(20)
        await visit.send(STREAM)

    async with open_house(Plays(thinks), cors__origins=[PAGE], stream__commit_before_head_s=1) as house:
        assert is_readable(await raw(house, "POST", "/v1/chat/completions"))


@pytest.mark.parametrize("path", ["/v1/stream/ws", "/v1/realtime?model=m"])
async def test_a_listed_page_opens_a_socket_and_no_other_page_does(path: str, clock: MockClock) -> None:
    async with open_house(Plays(status(429)), cors__origins=[PAGE]) as house:
        other = Guest(house.connect().stream)
        assert not await other.enter(path, headers=(("origin", "https://evil.example"),))
        assert other.refusal is not None and other.refusal[0] == 403
        await other.stream.aclose()
        page = Guest(house.connect().stream)
        has_entered = await page.enter(path, headers=(("origin", PAGE), ("sec-fetch-site", "cross-site")))
        assert has_entered or (page.refusal is not None and page.refusal[0] == 429)
        await page.stream.aclose()


@pytest.mark.parametrize("origin", ["http://127.0.0.1:9901", "http://localhost:9901", "http://[::1]:9901"])
async def test_pages_of_the_admin_address_are_our_own(origin: str, clock: MockClock) -> None:
    async with open_house(Plays(OK), admin__bind="127.0.0.1:9901") as house:
        fields = f"origin: {origin}\r\nsec-fetch-site: same-site\r\n"
        for method, path in (("OPTIONS", "/v1/chat/completions"), ("POST", "/v1/embeddings")):
            data = await raw(house, method, path, fields + (ASKS if method == "OPTIONS" else ""))
            assert values(data, "access-control-allow-origin") == [origin]
        other = await raw(house, "POST", "/v1/embeddings", fields.replace(":9901", ":9902"))
        assert other.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("bind", "origin", "is_own"),
    [
        ("10.0.0.5:80", "http://10.0.0.5", True),
        ("10.0.0.5:80", "http://10.0.0.5:80", False),  # no browser writes it so
        ("10.0.0.5:9901", "http://proxy:9901", True),
        ("10.0.0.5:9901", "http://localhost:9901", False),
        ("off", "http://localhost:9901", False),
    ],
)
async def test_which_pages_those_are_is_told_by_its_bind(
    bind: str, origin: str, is_own: bool, ways: Ways, keys: str, clock: MockClock
) -> None:
    flags: dict[str, Any] = {} if bind == "off" else {"admin__key": "file:one"}
    async with open_house(Plays(OK), file=ways(a=keys), admin__bind=bind, **flags) as house:
        data = await raw(house, "POST", "/v1/embeddings", f"origin: {origin}\r\n")
        assert (values(data, "access-control-allow-origin") == [origin]) is is_own


BOUND = b'{"model": "m"}'


async def test_a_token_for_a_model_opens_streams_of_no_other(ways: Ways, keys: str, clock: MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays, file=ways(a=keys)) as house:
        token = await token_of(house, body=BOUND)
        other = QUESTION.replace("model=m", "model=dearer")
        refused = await get(house, f"{other}&token={token}")
        assert (refused.status, code(refused)) == (403, "model_not_allowed")
        assert not plays.got
        answer = await get(house, f"{QUESTION}&token={token}")
        assert answer.body == numbered(answer.headers["x-trioproxy-stream"])
        free = await token_of(house)
        assert (await get(house, f"{other}&token={free}")).status == 200
    assert len(plays.got) == 2


async def test_it_reads_and_stops_streams_of_no_other_either(ways: Ways, keys: str, clock: MockClock) -> None:
    async with open_house(Plays(slowly), file=ways(a=keys)) as house:
        token, free = await token_of(house, body=BOUND), await token_of(house)
        answers: list[Answer] = []
        for model, expected in (("dearer", 403), ("m", 200)):
            target = QUESTION.replace("model=m", f"model={model}")
            answers.append(await get(house, f"{target}&token={free}"))
            stream = answers[-1].headers["x-trioproxy-stream"]
            last = f"last-event-id: {stream}.3\r\n"
            assert (await get(house, f"/v1/streams/{stream}?token={token}")).status == expected
            assert (await get(house, f"{QUESTION}&token={token}", last)).status == expected
            stopped = await get(house, f"/v1/streams/{stream}?token={token}", method="DELETE")
            assert stopped.status == (403 if expected == 403 else 204)


async def test_so_it_is_on_a_socket(ways: Ways, keys: str, clock: MockClock) -> None:
    plays = Plays(slowly)
    async with open_house(plays, file=ways(a=keys)) as house:
        token = await token_of(house, body=BOUND)
        others: list[dict[str, Any]] = [{**ASK, "model": "dearer"}, {"messages": []}]
        for asked in others:
            guest = Guest(house.connect().stream)
            assert await guest.enter(f"/v1/stream/ws?token={token}")
            await say(guest, asked)
            (refusal,) = await guest.hear_all()
            assert code_of(refusal) == "model_not_allowed"
            assert guest.closed is not None and guest.closed[0] == 1008
        assert not plays.got
        guest = Guest(house.connect().stream)
        assert await guest.enter(f"/v1/stream/ws?token={token}")
        await say(guest, {**ASK, "trioproxy": {"resume": 60}})
        await hear_id(guest)
        assert len(await guest.hear_all()) == 7
        free = Guest(house.connect().stream)
        assert await free.enter(f"/v1/stream/ws?token={await token_of(house)}")
        await say(free, {**ASK, "model": "dearer", "trioproxy": {"resume": 60}})
        stream = await hear_id(free)
        await free.hear_all()
        guest = Guest(house.connect().stream)
        assert await guest.enter(f"/v1/stream/ws?token={token}")
        await say(guest, {"trioproxy": {"stream": stream}})
        (refusal,) = await guest.hear_all()
        assert code_of(refusal) == "model_not_allowed"


async def test_a_token_allows_no_more_than_its_key(ways: Ways, keys: str, clock: MockClock) -> None:
    secret = "tpk_" + "a" * 43
    key = f'[[key]]\nname = "team"\nhash = "{hash_of(secret)}"\nmodels = ["m", "n"]\n'
    plays = Plays(slowly)
    async with open_house(plays, file=ways(key, a=keys)) as house:
        shown = f"authorization: Bearer {secret}\r\n"
        refused = await ask(house, b'{"model": "dearer"}', TOKENS, shown)
        assert (refused.status, code(refused)) == (403, "model_not_allowed")
        free = await token_of(house, shown)
        bound = await token_of(house, shown, b'{"model": "n"}')
        for token, model, expected in ((free, "dearer", 403), (free, "m", 200), (bound, "m", 403), (bound, "n", 200)):
            target = QUESTION.replace("model=m", f"model={model}")
            assert (await get(house, f"{target}&token={token}")).status == expected
        assert (await ask(house, b"", TOKENS, ME)).status == 401
    assert [line.get("key") for line in house.log.exchanges] == [*["team"] * 7, None]
    assert plays.field(b"authorization") == [b"Bearer sk-one", b"Bearer sk-two"]


@pytest.mark.parametrize("body", [b'{"model": ""}', b'{"model": 5}', b'{"model": "%s"}' % (b"m" * 257)])
async def test_a_token_for_no_name_of_a_model_is_refused(body: bytes, ways: Ways, keys: str, clock: MockClock) -> None:
    async with open_house(Plays(OK), file=ways(a=keys)) as house:
        answer = await ask(house, body, TOKENS, ME)
        assert (answer.status, code(answer)) == (400, "invalid_body")
