"""`trioproxy check` asks upstreams for the models that routes name in full: what it says, and when it asks nobody."""

import json
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.loopback.processes import START_S, Running, Server, running, until
from tests.loopback.raw_http import Head, Wire, open_origin
from tests.loopback.test_routes import closed_port


def ended(process: Running) -> tuple[int, list[str], list[str]]:
    """Exit code and the lines on standard output and standard error of a command that ends by itself."""
    return process.wait(START_S), process.out, process.err


def answer(status: str, body: bytes = b"{}") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def a_list(*models: str) -> bytes:
    return answer("200 OK", json.dumps({"data": [{"id": model} for model in models]}).encode())


def listing(asked: list[Head], *models: str, aliases: Iterable[str] = ()) -> Callable[[Wire], None]:
    """Has a list of models, and knows some more by their aliases. As a proxy it is its own way to wherever it leads."""

    def handler(wire: Wire) -> None:
        head, _ = wire.read_request()
        asked.append(head)
        path = head.target.partition("?")[0]
        if head.line.startswith("CONNECT "):
            wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
        elif path == "/v1/models":
            wire.send(a_list(*models))
        else:
            is_known = path.removeprefix("/v1/models/") in aliases
            wire.send(answer("200 OK" if is_known else "404 Not Found"))

    return handler


def saying(data: bytes) -> Callable[[Wire], None]:
    """The same answer to whatever is asked; b"" closes the connection."""

    def handler(wire: Wire) -> None:
        wire.read_request()
        if data:
            wire.send(data)
        else:
            wire.close()

    return handler


def written(folder: Path, upstreams: dict[str, str], *routes: str) -> str:
    """A configuration file with these upstreams (each name with its other lines) and routes; its path."""
    text = "".join(f'[[upstream]]\nname = "{name}"\n{lines}\n' for name, lines in upstreams.items())
    file = folder / "own.toml"
    file.write_text(text + "".join(f"[[route]]\n{route}\n" for route in routes))
    return str(file)


def at(port: int, more: str = "") -> str:
    return f'base_url = "http://127.0.0.1:{port}/v1"\n{more}'


TARGET_A = 'models = ["m*"]\ntargets = [{ upstream = "a", model = "gpt-4o" }]'


def test_a_model_that_its_upstream_does_not_list_is_a_problem(tmp_path: Path) -> None:
    asked: list[Head] = []
    with open_origin(listing(asked, "gpt-4o", "o1")) as a, open_origin(listing([], "claude")) as b:
        file = written(
            tmp_path,
            {"a": at(a.port), "b": at(b.port)},
            'models = ["m*"]\ntargets = [{ upstream = "b", model = "claude" }, { upstream = "a", model = "gpt-4" }]',
            'models = ["n*", "o1", "o3"]\ntargets = [{ upstream = "a" }]\ncanary = { upstream = "b", model = "x" }',
            'models = ["*"]\nshadow = { upstream = "a", model = "gpt-4o" }',
        )
        with running("check", file) as process:
            code, out, err = ended(process)
    assert (code, out) == (2, [])
    assert err == [
        f'{file}:route[0].targets[1].model: is not a model that "a" lists, expected "gpt-4o", got "gpt-4"',
        f'{file}:route[1].models[2]: is not a model that "a" lists, expected one of "gpt-4o", "o1", got "o3"',
        f'{file}:route[1].canary.model: is not a model that "b" lists, expected one of "claude", got "x"',
    ]
    assert [head.target for head in asked].count("/v1/models") == 1


def test_models_that_are_listed_are_good(tmp_path: Path) -> None:
    with (
        open_origin(listing([], "gpt-4o")) as a,
        running("check", written(tmp_path, {"a": at(a.port)}, TARGET_A)) as it,
    ):
        assert ended(it) == (0, ["ok"], [])


def test_a_model_that_is_known_and_not_listed_is_good(tmp_path: Path) -> None:
    asked: list[Head] = []
    handler = listing(asked, "gpt-4o-2024-08-06", aliases=["gpt-4o"])
    with open_origin(handler) as a, running("check", written(tmp_path, {"a": at(a.port)}, TARGET_A)) as process:
        assert ended(process) == (0, ["ok"], [])
    assert [head.target for head in asked] == ["/v1/models", "/v1/models/gpt-4o"]


def test_the_demo_upstream_knows_any_model(tmp_path: Path, upstream: Server) -> None:
    with running("check", written(tmp_path, {"a": at(upstream.port)}, TARGET_A)) as process:
        assert ended(process) == (0, ["ok"], [])


def test_an_upstream_is_asked_as_the_service_would_ask(tmp_path: Path) -> None:
    asked: list[Head] = []
    more = 'dialect = "{}"\napi_key = ["env:FIRST", "env:SECOND"]\nheaders = {{ "x-team" = "env:TEAM" }}\n'
    env = {"FIRST": "sk-1", "SECOND": "sk-2", "TEAM": "t-1", "HTTP_PROXY": "http://127.0.0.1:1"}
    with open_origin(listing(asked, "gpt-4")) as a:
        for dialect in ("openai", "anthropic"):
            with running("check", written(tmp_path, {"a": at(a.port, more.format(dialect))}, TARGET_A), env=env) as it:
                code, _, err = ended(it)
            assert code == 2 and "sk-" not in "".join(err)
    assert {head.headers["x-team"] for head in asked} == {"t-1"}
    assert [head.target for head in asked] == [
        "/v1/models",
        "/v1/models/gpt-4o",
        "/v1/models?limit=1000",
        "/v1/models/gpt-4o",
    ]
    openai, anthropic = asked[:2], asked[2:]
    assert {head.headers["authorization"] for head in openai} <= {"Bearer sk-1", "Bearer sk-2"}
    assert openai[0].headers["authorization"] == "Bearer sk-1"
    assert anthropic[0].headers["x-api-key"] == "sk-1"
    assert {head.headers["anthropic-version"] for head in anthropic} == {"2023-06-01"}


def test_a_proxy_of_the_upstream_is_taken(tmp_path: Path) -> None:
    asked: list[Head] = []
    with open_origin(listing(asked, "gpt-4o")) as via, closed_port() as port:
        more = f'proxy = "http://127.0.0.1:{via.port}"\n'
        with running("check", written(tmp_path, {"a": at(port, more)}, TARGET_A)) as process:
            assert ended(process) == (0, ["ok"], [])
    assert [head.target for head in asked] == [f"127.0.0.1:{port}", "/v1/models"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (answer("401 Unauthorized", b'{"error": {"message": "no key \\u001b[2J"}}'), "it answered with status 401"),
        (answer("404 Not Found"), "it answered with status 404"),
        (answer("302 Found"), "sent no list"),
        (answer("200 OK", b"hello"), "sent no list"),
        (answer("200 OK", b'{"data": 5}'), "sent no list"),
        (answer("200 OK", b"[" * 100_000), "sent no list"),
        (b"nonsense\r\n\r\n", ""),
        (b"", ""),
    ],
    ids=["wants a key", "no such path", "redirect", "no JSON", "no data", "deep", "no HTTP", "nothing"],
)
def test_an_upstream_without_a_list_is_a_warning(tmp_path: Path, data: bytes, reason: str) -> None:
    with open_origin(saying(data)) as a, running("check", written(tmp_path, {"a": at(a.port)}, TARGET_A)) as process:
        code, out, err = ended(process)
    assert (code, out) == (0, ["ok"])
    [line] = err
    assert line.startswith("warning: upstream[0]: cannot be asked for its models: ") and reason in line
    assert "\x1b" not in line


def test_an_upstream_that_is_not_there_hides_no_problem_of_another(tmp_path: Path) -> None:
    with closed_port() as port, open_origin(listing([], "o1")) as b:
        route = 'models = ["m*"]\ntargets = [{ upstream = "a", model = "x" }, { upstream = "b", model = "y" }]'
        file = written(tmp_path, {"a": at(port), "b": at(b.port)}, route)
        with running("check", file) as process:
            code, out, err = ended(process)
    assert (code, out) == (2, [])
    assert err[0].startswith("warning: upstream[0]: cannot be asked for its models: ")
    assert err[1:] == [
        f'{file}:route[0].targets[1].model: is not a model that "b" lists, expected one of "o1", got "y"'
    ]


def test_an_upstream_that_is_silent_or_slow_is_waited_for_a_few_seconds(tmp_path: Path) -> None:
    def dripping(wire: Wire) -> None:
        wire.read_request()
        for byte in answer("200 OK", b"x" * 1000):
            wire.send(bytes([byte]))
            time.sleep(0.05)

    def silent(wire: Wire) -> None:
        wire.read_request()
        wire.read_all()

    def silent_at_last(wire: Wire) -> None:
        head, _ = wire.read_request()
        wire.send(a_list("o1")) if head.target == "/v1/models" else wire.read_all()

    with ExitStack() as stack:
        handlers = (silent, dripping, silent_at_last)
        ports = [stack.enter_context(open_origin(handler)).port for handler in handlers]
        targets = ", ".join(f'{{ upstream = "{name}", model = "{model}" }}' for name in "abc" for model in "xy")
        upstreams = dict(zip("abc", map(at, ports), strict=True))
        file = written(tmp_path, upstreams, f'models = ["m"]\ntargets = [{targets}]')
        with running("check", file) as process:
            start = time.monotonic()
            code, out, err = ended(process)
    assert (code, out) == (0, ["ok"]) and time.monotonic() - start < 14
    assert len(err) == 3 and all("within 5 s" in line for line in err)


def test_ctrl_c_ends_the_waiting(tmp_path: Path) -> None:
    def silent(wire: Wire) -> None:
        wire.read_request()
        wire.read_all()

    with open_origin(silent) as a, running("check", written(tmp_path, {"a": at(a.port)}, TARGET_A)) as process:
        until(lambda: a.connections == 1, "a question", START_S)
        start = time.monotonic()
        assert process.stop(signal.SIGINT) == 130
        assert time.monotonic() - start < 3
        assert (process.out, process.err) == ([], [])


@pytest.mark.parametrize(
    ("flags", "route"),
    [
        (["--offline"], TARGET_A),
        ([], 'models = ["m*"]\ntargets = [{ upstream = "a" }]'),
        ([], 'models = ["gpt-4o"]'),
    ],
    ids=["offline", "globs", "no target"],
)
def test_nobody_is_asked_offline_or_without_a_name_in_full(tmp_path: Path, flags: list[str], route: str) -> None:
    with open_origin() as a:  # fails if it is asked
        with running("check", *flags, written(tmp_path, {"a": at(a.port)}, route)) as process:
            assert ended(process) == (0, ["ok"], [])
        assert a.connections == 0


def test_serve_asks_nobody(tmp_path: Path) -> None:
    with open_origin() as a:
        file = written(tmp_path, {"a": at(a.port)}, TARGET_A)
        with running("serve", "--config", file, "--bind", "127.0.0.1:0", "--admin-bind", "off") as proxy:
            proxy.wait_for_text('"listening"', START_S)
            assert proxy.stop() == 0
        assert a.connections == 0
