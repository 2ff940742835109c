"""What of a request reaches the origin, what of an answer reaches the client, and what neither may see."""

import json

import pytest
import trio

from tests.harness.house import Answer, HouseUnderTest, open_house
from tests.harness.origin import LAST_CHUNK, Visit, chunk

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
CHAT = "/v1/chat/completions"


class Recorder:
    """An origin that keeps what it was asked and answers the same each time."""

    def __init__(self, answer: bytes = OK) -> None:
        self.asked: list[bytes] = []
        self._answer = answer

    async def __call__(self, visit: Visit) -> None:
        while True:
            self.asked.append(await visit.read_request())
            await visit.send(self._answer)

    @property
    def head(self) -> dict[str, str]:
        """The fields of the last request, and its request line as `line`."""
        line, *rest = self.asked[-1].partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        return {"line": line, **dict(field.split(": ", 1) for field in rest)}

    @property
    def body(self) -> bytes:
        return self.asked[-1].partition(b"\r\n\r\n")[2]


async def ask(house: HouseUnderTest, line: str, headers: str = "", body: bytes = b"") -> Answer:
    """One request on a connection of its own."""
    client = house.connect()
    length = f"content-length: {len(body)}\r\n" if body else ""
    await client.send(f"{line} HTTP/1.1\r\nhost: proxy\r\n{headers}{length}\r\n".encode("latin-1") + body)
    answer = await client.answer(line.split(" ", maxsplit=1)[0])
    client.leave()
    return answer


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["error"]["code"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m"}',
        b' { "messages" : [ {"role":"user","content":"\\u00e9 \xc3\xa9"} ], "model":"m", "x": 1.0e2 }  ',
        b'{"big": 12345678901234567890 }',
        b'{"stream":false,"stream_options":null,"model":"m","nested":{"a":[1,2,{"b":"c"}]}}\n',
    ],
)
async def test_a_body_reaches_the_origin_byte_for_byte(body: bytes, autojump_clock: trio.testing.MockClock) -> None:
    origin = Recorder()
    async with open_house(origin) as house:
        assert (await ask(house, f"POST {CHAT}", body=body)).status == 200
    assert origin.body == body


async def test_the_clients_own_authorization_and_fields_go_through(autojump_clock: trio.testing.MockClock) -> None:
    origin = Recorder()
    sent = (
        "authorization: Bearer sk-client\r\nopenai-organization: org\r\nx-stainless-lang: python\r\n"
        "idempotency-key: k1\r\ntraceparent: 00-a-b-01\r\naccept: application/json\r\nx-custom: yes\r\n"
    )
    async with open_house(origin) as house:
        await ask(house, f"POST {CHAT}", sent, b"{}")
    for field in sent.strip().split("\r\n"):
        name, value = field.split(": ")
        assert origin.head[name] == value
    assert origin.head["host"] == "origin"


async def test_what_is_ours_or_belongs_to_one_connection_does_not_reach_the_origin(
    autojump_clock: trio.testing.MockClock,
) -> None:
    origin = Recorder()
    sent = (
        "connection: x-secret-hop, authorization, keep-alive\r\nx-secret-hop: 1\r\nauthorization: Bearer k\r\n"
        "cookie: a=b\r\nforwarded: for=1\r\nx-forwarded-for: 10.0.0.1\r\nx-real-ip: 10.0.0.1\r\n"
        "x-trioproxy-share: auto\r\nte: trailers\r\nupgrade: websocket\r\nproxy-authorization: Basic x\r\n"
        "keep-alive: timeout=5\r\nexpect: 100-continue\r\n"
    )
    async with open_house(origin) as house:
        client = house.connect()
        await client.send(f"POST {CHAT} HTTP/1.1\r\nhost: proxy\r\n{sent}content-length: 2\r\n\r\n{{}}".encode())
        await client.read_some()
        await trio.sleep(1)
        client.leave()
    assert set(origin.head) == {"line", "host", "authorization", "content-length", "x-request-id"}


async def test_an_upstreams_own_key_replaces_the_clients(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = Recorder()
    monkeypatch.setenv("PROVIDER_KEY", "sk-provider")
    async with open_house(origin) as house:
        house.house.endpoints["origin"]._headers = [(b"authorization", b"Bearer sk-provider")]
        house.house.endpoints["origin"]._replaced = frozenset({b"authorization"})
        await ask(house, f"POST {CHAT}", "authorization: Bearer sk-client\r\n", b"{}")
    assert origin.head["authorization"] == "Bearer sk-provider"
    assert b"sk-client" not in origin.asked[0]


async def test_what_would_bind_the_client_to_our_host_is_not_returned(autojump_clock: trio.testing.MockClock) -> None:
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nset-cookie: a=b\r\nalt-svc: h3\r\n"
        b"strict-transport-security: max-age=1\r\nnel: {}\r\nreport-to: {}\r\nconnection: x-hop\r\nx-hop: 1\r\n"
        b"x-ratelimit-remaining-requests: 7\r\nopenai-processing-ms: 12\r\nretry-after-ms: 9\r\n"
        b"x-request-id: req_theirs\r\ncontent-length: 2\r\n\r\n{}"
    )
    async with open_house(Recorder(head)) as house:
        answer = await ask(house, f"POST {CHAT}", "x-request-id: mine-1\r\n", b"{}")
    assert set(answer.headers) == {
        "content-type",
        "x-ratelimit-remaining-requests",
        "openai-processing-ms",
        "retry-after-ms",
        "server-timing",
        "x-request-id",
        "x-trioproxy-request-id",
        "x-trioproxy-upstream",
        "x-trioproxy-attempts",
        "content-length",
        "date",
    }
    assert (answer.headers["x-request-id"], answer.headers["x-trioproxy-request-id"]) == ("req_theirs", "mine-1")
    assert house.log.exchanges[0]["upstream_request_id"] == "req_theirs"


@pytest.mark.parametrize(("given", "kept"), [("abc-123", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)])
async def test_a_clients_request_id_is_kept_if_it_is_fit(
    given: str, kept: bool, autojump_clock: trio.testing.MockClock
) -> None:
    origin = Recorder()
    async with open_house(origin) as house:
        answer = await ask(house, f"POST {CHAT}", f"x-request-id: {given}\r\n", b"{}")
    assert (answer.headers["x-request-id"] == given) is kept
    assert origin.head["x-request-id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("line", "at_the_origin"),
    [
        ("GET /v1/files/a%2Fb?include[]=x&y=%20", "GET /v1/files/a%2Fb?include[]=x&y=%20 HTTP/1.1"),
        ("GET /v1/models", "GET /v1/models HTTP/1.1"),
        ("HEAD /v1/models", "HEAD /v1/models HTTP/1.1"),
        ("OPTIONS /v1/chat/completions", "OPTIONS /v1/chat/completions HTTP/1.1"),
        ("GET /v1/chat/completions?limit=2", "GET /v1/chat/completions?limit=2 HTTP/1.1"),
        ("DELETE /v1/files/f-1", "DELETE /v1/files/f-1 HTTP/1.1"),
        ("PATCH /v1/things//odd/", "PATCH /v1/things//odd/ HTTP/1.1"),
    ],
)
async def test_any_other_path_passes_with_its_method_and_its_bytes(
    line: str, at_the_origin: str, autojump_clock: trio.testing.MockClock
) -> None:
    origin = Recorder()
    async with open_house(origin) as house:
        assert (await ask(house, line)).status == 200
    assert origin.head["line"] == at_the_origin


@pytest.mark.parametrize(
    ("line", "status", "expected"),
    [
        ("GET /", 404, "unknown_path"),
        ("GET /admin", 404, "unknown_path"),
        ("GET //v1//models", 400, "invalid_path"),
        ("PUT /v1/chat/completions", 405, "method_not_allowed"),
        ("GET /v1/embeddings", 405, "method_not_allowed"),
        ("BREW /v1/models", 405, "method_not_allowed"),
        ("GET /v1/../admin", 400, "invalid_path"),
        ("GET /v1/%2e%2e/admin", 400, "invalid_path"),
        ("POST /v1/chat%2Fcompletions", 400, "invalid_path"),
        ("POST /v1//chat/completions", 400, "invalid_path"),
        ("POST /v1/chat/completions/", 400, "invalid_path"),
    ],
)
async def test_what_is_not_served_is_said_in_the_envelope(
    line: str, status: int, expected: str, autojump_clock: trio.testing.MockClock
) -> None:
    origin = Recorder()
    async with open_house(origin) as house:
        answer = await ask(house, line)
    assert code(answer) == (status, expected)
    assert answer.headers["x-request-id"] and origin.asked == []
    assert len(house.log.exchanges) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"model":"a","model":"b"}',
        b'{"stream":"true"}',
        b'{"model":5}',
        b'{"a":' + b"[" * 100_000,
        b'{"a":"\xff"}',
    ],
)
async def test_a_body_that_cannot_be_read_is_a_400(body: bytes, autojump_clock: trio.testing.MockClock) -> None:
    origin = Recorder()
    async with open_house(origin) as house:
        assert code(await ask(house, f"POST {CHAT}", body=body)) == (400, "invalid_body")
        answer = await ask(house, "POST /v1/messages", body=body)
        assert answer.status == 400 and json.loads(answer.body)["type"] == "error"
    assert origin.asked == []
    assert len(house.log.exchanges) == 2


async def test_redirects_and_errors_of_the_origin_pass_as_they_are(autojump_clock: trio.testing.MockClock) -> None:
    for head, status in (
        (b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 2\r\n\r\nno", 302),
        (b"HTTP/1.1 418 Teapot\r\nretry-after: 3\r\ncontent-length: 3\r\n\r\n{]}", 418),
        (b"HTTP/1.1 204 None\r\n\r\n", 204),
    ):
        origin = Recorder(head)
        async with open_house(origin) as house:
            answer = await ask(house, f"POST {CHAT}", body=b"{}")
        assert answer.status == status and answer.is_complete
        assert answer.body == head.partition(b"\r\n\r\n")[2]
        assert len(origin.asked) == 1


async def test_an_upload_is_passed_on_as_it_comes_and_its_backlog_is_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow_reader(visit: Visit) -> None:
        while b"\r\n\r\n" not in visit.received:
            await visit._read()
        await trio.sleep(100)
        await visit.read_request()
        await visit.send(OK)

    async with open_house(slow_reader, lockstep=True) as house:
        client = house.connect()
        sent = 0
        size = 4_000_000
        await client.send(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size)
        with trio.move_on_after(50):
            while True:
                await client.send(b"x" * 10_000)
                sent += 10_000
        assert sent < 300_000  # the origin has read nothing: neither may we have, but for what is under way
        client.leave()
        await trio.sleep(100)  # memory streams cannot tell of a departure behind unread bytes; sockets can


async def test_an_upload_keeps_its_framing(autojump_clock: trio.testing.MockClock) -> None:
    origin = Recorder()
    async with open_house(origin) as house:
        await ask(house, "POST /v1/files", body=b"multipart")
        assert origin.head["content-length"] == "9" and origin.body == b"multipart"
        client = house.connect()
        head = b"POST /v1/files HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        await client.send(head + chunk(b"multi") + chunk(b"part") + LAST_CHUNK)
        assert (await client.answer()).status == 200
        assert origin.head["transfer-encoding"] == "chunked" and "content-length" not in origin.head
        client.leave()


async def test_an_upload_that_is_too_large_never_looks_complete_to_the_origin(
    autojump_clock: trio.testing.MockClock,
) -> None:
    origin = Recorder()
    async with open_house(origin, server__max_upload_bytes=1000) as house:
        answer = await ask(house, "POST /v1/files", "content-length: 2000\r\n")
        assert code(answer) == (413, "request_too_large") and house.origin.visits == []
        client = house.connect()
        head = b"POST /v1/files HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        await client.send(head + chunk(b"x" * 800))
        await trio.sleep(1)
        await client.send(chunk(b"x" * 800) + LAST_CHUNK)
        assert code(await client.answer()) == (413, "request_too_large")
        client.leave()
    assert origin.asked == []


async def test_a_client_that_stops_reading_stops_the_origin(autojump_clock: trio.testing.MockClock) -> None:
    sent = 0

    async def floods(visit: Visit) -> None:
        nonlocal sent
        await visit.read_request()
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await visit.send(chunk(b"data: {}\n\n" * 100))
            sent += 1000

    async with open_house(floods, lockstep=True, deadlines__client_stall_s=1000) as house:
        client = house.connect()
        await client.post()
        await client.read_some()
        before = sent
        await trio.sleep(500)
        assert sent - before <= 64 * 1024
        client.leave()


async def test_no_secret_body_or_query_reaches_the_log(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(Recorder()) as house:
        await ask(house, f"POST {CHAT}?key=SECRET1", "authorization: Bearer SECRET2\r\n", b'{"user":"SECRET3"}')
    assert "SECRET" not in repr(house.log.lines)


async def test_the_probes_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(Recorder()) as house:
        for path in ("/healthz", "/health", "/readyz"):
            assert (await ask(house, f"GET {path}")).status == 200
        house.house.service.is_draining = True
        assert (await ask(house, "GET /healthz")).status == 200
        assert (await ask(house, "GET /readyz")).status == 503
