"""Two replicas behind a real nginx and a real HAProxy, with the files of `conf/`: what holds for one proxy alone holds
through them too, and replicas can be replaced under load.

Everything goes by TLS, as in life. `balancers` renders the files and starts the programs.
"""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.loopback.balancers import CONF, HOST, NAMES, Balancer, balancing, events, free_port, rendered, replica
from tests.loopback.http2 import Http2
from tests.loopback.processes import Server, until
from tests.loopback.raw_http import (
    LAST_CHUNK,
    WAIT_S,
    Answer,
    Ended,
    Head,
    Origin,
    Wire,
    ask,
    chat,
    chunk,
    event_stream_head,
    open_origin,
    request_bytes,
)

CHAT = "/v1/chat/completions"
MIB = 1024 * 1024
DONE = b"data: [DONE]\n\n"
HEARTBEAT_S = 1.0
DELAY_S = 2.0
DRAIN_S = 8.0
CLIENTS = 20


def event(number: int) -> bytes:
    """A chat event; its text is its number."""
    choice = {"index": 0, "delta": {"content": f"{number} "}, "finish_reason": None}
    return b"data: %b\n\n" % json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode()


EVENTS = [event(number) for number in range(30)]


def chat_bytes(model: str = "m", *, stream: bool = True) -> bytes:
    """The body of a chat request."""
    return json.dumps(chat(model, stream=stream)).encode()


@pytest.fixture(scope="module")
def replicas(origin: Origin) -> Iterator[list[Server]]:
    """Two proxies in front of the scripted origin."""
    settings = {"stream__heartbeat_s": HEARTBEAT_S, "server__hosts": HOST}
    with ExitStack() as stack:
        yield [stack.enter_context(replica(origin.base_url, free_port(), **settings)) for _ in range(2)]


@pytest.fixture(scope="module", params=NAMES)
def balancer(
    request: pytest.FixtureRequest, replicas: list[Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Balancer]:
    """Each of the balancers in front of these two."""
    directory = tmp_path_factory.mktemp("balancer") / request.param
    with balancing(request.param, [server.port for server in replicas], directory) as started:
        yield started


@pytest.fixture(scope="module")
def nginx(replicas: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    """The one that speaks HTTP/2 with clients."""
    directory = tmp_path_factory.mktemp("balancer") / "nginx"
    with balancing("nginx", [server.port for server in replicas], directory) as started:
        yield started


class Turns:
    """Lets one side go on only when the other has what it did last."""

    def __init__(self) -> None:
        self._taken = threading.Semaphore(0)

    def taken(self) -> None:
        """The other side has it."""
        self._taken.release()

    def wait(self) -> None:
        """Wait for the other side."""
        assert self._taken.acquire(timeout=2.0), "it did not reach the other side"


class TestNothingWaits:
    def script(self, turns: Turns) -> Callable[[Wire], None]:
        """An origin that sends an event only after the client has the last one."""

        def one_by_one(wire: Wire) -> None:
            wire.read_request()
            wire.send(event_stream_head())
            for each in EVENTS:
                wire.send(chunk(each))
                turns.wait()
            wire.send(chunk(DONE) + LAST_CHUNK)

        return one_by_one

    def test_the_origin_sends_the_next_event_only_after_the_client_has_the_last_one(
        self, balancer: Balancer, origin: Origin
    ) -> None:
        turns = Turns()
        with origin.playing(self.script(turns)), balancer.connect() as client:
            client.send(request_bytes("POST", CHAT, chat_bytes()))
            assert client.read_head().status == 200
            got = []
            for each in events(client):
                got.append(each)
                turns.taken()
        assert got == [*EVENTS, DONE]

    def test_so_it_is_for_a_client_that_speaks_http2(self, nginx: Balancer, origin: Origin) -> None:
        turns = Turns()
        with origin.playing(self.script(turns)), Http2(nginx.socket("h2"), HOST) as client:
            stream = client.post(CHAT, chat_bytes())
            assert client.read_head(stream)[":status"] == "200"
            got = []
            while piece := client.read_some(stream):
                if not piece.startswith(b":"):
                    got.append(piece)
                    turns.taken()
        assert got == [*EVENTS, DONE]

    def test_a_heartbeat_passes_while_the_origin_is_silent(self, balancer: Balancer, origin: Origin) -> None:
        goes_on = threading.Event()

        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(event_stream_head() + chunk(event(0)))
            goes_on.wait(WAIT_S)
            wire.send(chunk(DONE) + LAST_CHUNK)

        with origin.playing(play), balancer.connect() as client:
            client.send(request_bytes("POST", CHAT, chat_bytes()))
            client.read_head()
            assert client.read_chunk() == event(0)
            start = time.monotonic()
            for _ in range(2):
                assert client.read_chunk() == b": keep-alive\n\n"
            assert time.monotonic() - start < 2 * HEARTBEAT_S + 0.5
            goes_on.set()
            assert list(events(client)) == [DONE]

    def test_what_is_no_event_stream_does_not_wait_either(self, balancer: Balancer, origin: Origin) -> None:
        turns = Turns()
        pieces = [bytes([number]) * 1000 for number in range(50)]

        def piece_by_piece(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 50000\r\n\r\n")
            for piece in pieces:
                wire.send(piece)
                turns.wait()

        with origin.playing(piece_by_piece), balancer.connect() as client:
            client.send(request_bytes("POST", "/v1/audio/speech", b"{}"))
            assert client.read_head().headers["content-length"] == "50000"
            for piece in pieces:
                assert client.read_exactly(1000) == piece
                turns.taken()

    def test_an_upload_does_not_wait_either(self, balancer: Balancer, origin: Origin) -> None:
        turns = Turns()

        def read_piece_by_piece(wire: Wire) -> None:
            assert wire.read_head().headers["content-length"] == "50000"
            for number in range(50):
                assert wire.read_exactly(1000) == bytes([number]) * 1000
                turns.taken()
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

        with origin.playing(read_piece_by_piece), balancer.connect() as client:
            client.send(request_bytes("POST", "/v1/files", headers={"content-length": "50000"}))
            for number in range(50):
                client.send(bytes([number]) * 1000)
                turns.wait()
            assert client.read_answer().body == b"ok"

    def test_a_slow_origin_slows_an_upload_so_it_is_stored_nowhere(self, balancer: Balancer, origin: Origin) -> None:
        goes_on = threading.Event()

        def play(wire: Wire) -> None:
            wire.read_head()
            goes_on.wait(WAIT_S)
            wire.read_exactly(64 * MIB)
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        sent = 0
        with origin.playing(play), balancer.connect() as client:
            client.send(request_bytes("POST", "/v1/files", headers={"content-length": str(64 * MIB)}))
            client.socket.settimeout(0.5)
            block = bytes(MIB)
            try:
                while sent < 64 * MIB:
                    sent += client.socket.send(block[: min(65536, 64 * MIB - sent)])
            except TimeoutError:
                pass  # nothing more is taken from us
            print(f"held back after {sent / MIB:.1f} MiB in the kernel's buffers")
            assert sent < 32 * MIB
            goes_on.set()
            client.socket.settimeout(WAIT_S)
            while sent < 64 * MIB:
                sent += client.socket.send(block[: min(65536, 64 * MIB - sent)])
            assert client.read_answer().status == 200

    def test_a_client_that_does_not_read_stops_its_origin(self, balancer: Balancer, origin: Origin) -> None:
        sent = 0
        is_over = threading.Event()
        data = chunk(b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 8000))

        def flood(wire: Wire) -> None:
            nonlocal sent
            wire.read_request()
            wire.send(event_stream_head())
            try:
                while True:
                    wire.send(data)
                    sent += len(data)
            finally:
                is_over.set()

        def stands_still() -> bool:
            before = sent
            time.sleep(0.2)
            return 0 < before == sent

        with origin.playing(flood):
            with balancer.connect() as client:
                client.send(request_bytes("POST", CHAT, chat_bytes()))
                client.read_head()
                until(stands_still, "the origin is held back")
                print(f"held back after {sent / MIB:.1f} MiB in the kernel's buffers")
                assert sent < 32 * MIB
            assert is_over.wait(WAIT_S)


class TestAClientThatLeaves:
    @contextmanager
    def asked(self, origin: Origin, when: str) -> Iterator[tuple[threading.Event, threading.Event]]:
        """An origin that answers so far and then waits for its client to leave; and what tells of both."""
        has_begun, is_released = threading.Event(), threading.Event()

        def play(wire: Wire) -> None:
            wire.read_request()
            if when == "in mid-stream":
                wire.send(event_stream_head() + chunk(event(0)))
            has_begun.set()
            wire.read_all()
            is_released.set()

        with origin.playing(play):
            yield has_begun, is_released

    @pytest.mark.parametrize("when", ["in mid-stream", "before the head"])
    @pytest.mark.parametrize("is_reset", [False, True])
    def test_frees_the_origin_within_a_second(
        self, balancer: Balancer, origin: Origin, when: str, *, is_reset: bool
    ) -> None:
        with self.asked(origin, when) as (has_begun, is_released), balancer.connect() as client:
            client.send(request_bytes("POST", CHAT, chat_bytes()))
            assert has_begun.wait(WAIT_S)
            if when == "in mid-stream":
                client.read_head()
                assert client.read_chunk() == event(0)
            client.reset() if is_reset else client.leave()
            assert is_released.wait(1.0)

    @pytest.mark.parametrize("when", ["in mid-stream", "before the head"])
    def test_frees_the_origin_by_a_reset_of_its_http2_stream_alone(
        self, nginx: Balancer, origin: Origin, when: str
    ) -> None:
        with self.asked(origin, when) as (has_begun, is_released), Http2(nginx.socket("h2"), HOST) as client:
            stream = client.post(CHAT, chat_bytes())
            assert has_begun.wait(WAIT_S)
            if when == "in mid-stream":
                assert client.read_some(stream) == event(0)
            client.cancel(stream)
            assert is_released.wait(1.0)
            # The connection is as good as before.
            assert client.read_head(client.post("/nothing", b"{}"))[":status"] == "404"

    def test_frees_the_origin_in_the_middle_of_an_upload(self, balancer: Balancer, origin: Origin) -> None:
        has_begun, is_released = threading.Event(), threading.Event()

        def play(wire: Wire) -> None:
            wire.read_head()
            wire.read_exactly(1000)
            has_begun.set()
            wire.read_all()
            is_released.set()

        with origin.playing(play), balancer.connect() as client:
            client.send(request_bytes("POST", "/v1/files", headers={"content-length": str(MIB)}) + bytes(1000))
            assert has_begun.wait(WAIT_S)
            client.leave()
            assert is_released.wait(1.0)


def die_in_mid_stream(wire: Wire) -> None:
    """An origin that is gone after its first event."""
    wire.read_request()
    wire.send(event_stream_head() + chunk(event(0)))
    wire.close()


def assert_told(body: bytes) -> None:
    """After the one event there is what became of the rest."""
    assert body.startswith(event(0) + b"data: ")
    assert b'"upstream_truncated"' in body
    assert body.endswith(b"}\n\n")


class TestAnswersPassAsTheyAre:
    def test_a_truncated_stream_is_told_and_has_no_end(self, balancer: Balancer, origin: Origin) -> None:
        with origin.playing(die_in_mid_stream):
            answer = balancer.ask("POST", CHAT, chat_bytes())
        assert not answer.is_clean
        assert_told(answer.body)

    def test_so_it_is_for_a_client_that_speaks_http2(self, nginx: Balancer, origin: Origin) -> None:
        got = b""
        with origin.playing(die_in_mid_stream), Http2(nginx.socket("h2"), HOST) as client:
            stream = client.post(CHAT, chat_bytes())
            while b'"upstream_truncated"' not in got:
                piece = client.read_some(stream)
                assert piece, "it looks complete"
                got += piece
            with pytest.raises(Ended):
                client.read_some(stream)
        assert_told(got)

    def test_http2_is_spoken_only_by_the_one_that_can_end_a_truncated_stream_in_it(self, balancer: Balancer) -> None:
        with balancer.socket("h2", "http/1.1") as agreed:
            assert agreed.selected_alpn_protocol() == {"nginx": "h2", "haproxy": "http/1.1"}[balancer.directory.name]

    def test_our_own_413_comes_before_the_upload(self, balancer: Balancer, replicas: list[Server]) -> None:
        for target, size in ((CHAT, 65 * MIB), ("/v1/files", 1025 * MIB)):
            asked = request_bytes("POST", target, headers={"content-length": str(size)})
            with balancer.connect() as client, Wire.to(replicas[0].port) as direct:
                client.send(asked)
                direct.send(asked)
                through, expected = client.read_answer(), direct.read_answer()
            assert (through.status, through.body) == (expected.status, expected.body)
            assert (through.status, through.error["code"]) == (413, "request_too_large")
            assert through.is_clean

    @pytest.mark.parametrize("status", [400, 408, 429, 500, 502, 503, 504, 529])
    def test_an_error_keeps_its_status_headers_and_body(
        self, balancer: Balancer, origin: Origin, replicas: list[Server], status: int
    ) -> None:
        body = b'{"error":{"message":"Not now.","type":"t","param":null,"code":"theirs"}}'

        def refuse(wire: Wire) -> None:
            wire.read_request()
            fields = "content-type: application/json\r\nretry-after: 7\r\nretry-after-ms: 6500\r\nx-should-retry: false"
            wire.send(f"HTTP/1.1 {status} No\r\n{fields}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)

        with origin.playing(refuse):
            before = origin.connections
            through = balancer.ask("POST", CHAT, chat_bytes())
            assert origin.connections <= before + 1
            direct = ask(replicas[0].port, "POST", CHAT, chat_bytes())
        assert (through.status, through.body) == (direct.status, direct.body) == (status, body)
        for name in ("content-type", "retry-after", "retry-after-ms", "x-should-retry"):
            assert through.headers[name] == direct.headers[name]
        assert through.request_id

    def test_a_head_of_60_kib_passes(self, balancer: Balancer, origin: Origin) -> None:
        seen: list[Head] = []

        def play(wire: Wire) -> None:
            seen.append(wire.read_request()[0])
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        with origin.playing(play):
            assert balancer.ask("GET", "/v1/models", headers={"x-large": "a" * 60 * 1024}).status == 200
        assert len(seen[0].headers["x-large"]) == 60 * 1024


@contextmanager
def before_origins(name: str, directory: Path, *ports: int) -> Iterator[Balancer]:
    """A balancer with scripted origins in the place of replicas, so that a test sees what it sends."""
    directory.mkdir(exist_ok=True)
    with balancing(name, ports, directory / name) as started:
        yield started


@pytest.mark.parametrize("name", NAMES)
class TestWhatAReplicaGets:
    def test_who_asks_is_said_by_the_balancer_alone(self, name: str, tmp_path: Path) -> None:
        seen: list[list[str]] = []

        def play(wire: Wire) -> None:
            head = wire.read_until(b"\r\n\r\n").decode().lower().split("\r\n")
            if " /readyz " not in head[0]:
                seen.append(head)
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        claimed = {
            "host": HOST,
            "x-forwarded-for": "10.9.9.9",
            "x-forwarded-proto": "http",
            "x-forwarded-host": "10.9.9.9",
            "x-real-ip": "10.9.9.9",
            "forwarded": "for=10.9.9.9",
        }
        with open_origin(play) as origin, before_origins(name, tmp_path, origin.port, origin.port) as balancer:
            assert balancer.ask("GET", "/v1/models?a=%2F&b[]=1", headers=claimed).status == 200
        ((line, *fields),) = seen
        assert line == "get /v1/models?a=%2f&b[]=1 http/1.1"
        assert "connection: close" not in fields
        assert sorted(each for each in fields if each.startswith(("host", "x-", "forwarded"))) == [
            f'forwarded: for=127.0.0.1;host="{HOST}";proto=https',
            f"host: {HOST}",
            "x-forwarded-for: 127.0.0.1",
            f"x-forwarded-host: {HOST}",
            "x-forwarded-proto: https",
        ]

    def test_a_post_that_was_sent_is_never_sent_again(self, name: str, tmp_path: Path) -> None:
        asked: list[str] = []

        def die(wire: Wire) -> None:
            head, _ = wire.read_request()
            if head.target == "/readyz":
                wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                return
            asked.append(head.line)
            wire.close()

        with open_origin(die) as origin, before_origins(name, tmp_path, origin.port, origin.port) as balancer:
            answer = balancer.ask("POST", CHAT, chat_bytes())
        assert asked == [f"POST {CHAT} HTTP/1.1"]
        assert answer.status in (502, 503)
        assert answer.error["code"] == "no_replica"

    def test_a_replica_that_refuses_connections_costs_nobody_anything(self, name: str, tmp_path: Path) -> None:
        def play(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        with open_origin(play) as origin, before_origins(name, tmp_path, free_port(), origin.port) as balancer:
            assert {balancer.ask("POST", CHAT, chat_bytes()).status for _ in range(20)} == {200}
        with open_origin(play) as origin, before_origins(name, tmp_path / "2", origin.port, free_port()) as balancer:
            assert {balancer.ask("POST", CHAT, chat_bytes()).status for _ in range(20)} == {200}

    def test_no_replica_at_all_is_told_in_a_form_that_sdks_read(self, name: str, tmp_path: Path) -> None:
        with before_origins(name, tmp_path, free_port(), free_port()) as balancer:
            answer = balancer.ask("POST", CHAT, chat_bytes())
        assert answer.status == 503
        assert answer.error["code"] == "no_replica"
        assert answer.headers["retry-after"] == "1"
        assert answer.is_clean


@dataclass
class Load:
    """Clients that ask without a pause, each on a connection that it keeps, until they are told to stop."""

    balancer: Balancer
    is_over: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let them ask while the context is open; the last answers are waited for."""
        threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.is_over.set()
            for thread in threads:
                thread.join(3 * WAIT_S)
                assert not thread.is_alive()

    def _ask_on(self, number: int) -> None:
        # Two hold streams of a second, so that there is always one under way that must run on.
        kinds = ["long"] if number < 2 else ["stream", "plain", "upload", "models"]
        client: Wire | None = None
        turn = number
        while not self.is_over.is_set():
            kind = kinds[turn % len(kinds)]
            turn += 1
            try:
                if client is None:
                    client = self.balancer.connect()
                answer = self._ask(client, kind)
                problem = self._problem_of(answer, kind)
                if problem is not None:
                    self.failed.append(f"{kind}: {problem}")
                self.done[kind] += 1
            except (OSError, Ended) as error:
                self.failed.append(f"{kind}: {error!r}")
                answer = None
            # Most keep their connection, as SDKs do; some come anew.
            if answer is None or answer.headers.get("connection") == "close" or turn % 7 == 0:
                if client is not None:
                    client.close()
                client = None
            self.is_over.wait(0.05)
        if client is not None:
            client.close()

    @staticmethod
    def _ask(client: Wire, kind: str) -> Answer:
        if kind == "models":
            client.send(request_bytes("GET", "/v1/models"))
        elif kind == "upload":
            client.send(request_bytes("POST", "/v1/files", bytes(20_000)))
        elif kind == "plain":
            client.send(request_bytes("POST", CHAT, chat_bytes("m-n2-i5-t10", stream=False)))
        else:
            model = "m-n5-i10-t10" if kind == "stream" else "m-n40-i25-t10"
            client.send(request_bytes("POST", CHAT, chat_bytes(model)))
        return client.read_answer()

    @staticmethod
    def _problem_of(answer: Answer, kind: str) -> str | None:
        if answer.status != 200:
            return f"{answer.status} {answer.body!r}"
        if not answer.is_clean:
            return f"no clean end: {answer.body[-200:]!r}"
        if kind in ("stream", "long"):
            contents = answer.body.count(b'"content"')
            if not answer.body.endswith(DONE) or contents < (5 if kind == "stream" else 40):
                return f"{contents} events: {answer.body[-200:]!r}"
        return None


class TestReplacingReplicas:
    @pytest.mark.parametrize("name", NAMES)
    def test_two_replicas_are_replaced_one_after_the_other_under_load_and_no_request_fails(
        self, name: str, upstream: Server, tmp_path: Path
    ) -> None:
        settings = {"drain__delay_s": DELAY_S, "drain__timeout_s": DRAIN_S}
        ports = [free_port(), free_port()]
        with ExitStack() as stack:
            servers = [stack.enter_context(replica(upstream.base_url, port, **settings)) for port in ports]
            balancer = stack.enter_context(balancing(name, ports, tmp_path / name))
            load = Load(balancer)
            everyone = list(servers)
            with load.running():
                for index, port in enumerate(ports):
                    time.sleep(0.5)
                    leaving = servers[index]
                    until(lambda old=leaving: bool(old.exchanges), "it gets requests", WAIT_S)  # type: ignore[misc]
                    leaving.process.send_signal(signal.SIGTERM)
                    assert leaving.wait(DELAY_S + DRAIN_S) == 0
                    servers[index] = stack.enter_context(replica(upstream.base_url, port, **settings))
                    everyone.append(servers[index])
                    until(lambda new=servers[index]: bool(new.exchanges), "the new one gets requests", WAIT_S)  # type: ignore[misc]
            print(f"{name}: {dict(load.done)}")
            assert load.failed == [], [line for line in balancer.said if " 200 " not in line]
            assert load.done.total() > 300
            assert load.done["long"] >= 4
            lines = [line for server in everyone for line in server.exchanges]
            assert Counter(line["outcome"] for line in lines)["finished"] == len(lines)


class TestTheFiles:
    def test_a_line_to_edit_that_nobody_knows_fails(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="holds"):
            rendered(CONF / "nginx.conf", {"user www-data;": ""})
        (tmp_path / "a.conf").write_text("plain\nyours  # edit\n")
        with pytest.raises(AssertionError, match="no marked line"):
            rendered(tmp_path / "a.conf", {"yours": "mine", "other": ""})
