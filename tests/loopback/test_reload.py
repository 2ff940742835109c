"""What may go wrong while workers are replaced, and what a reload changes: addresses, certificates, keys, the log."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import pytest
import trio
import trustme

from tests.loopback.processes import START_S, Server, open_descriptors, running, serving, until
from tests.loopback.raw_http import WAIT_S, Answer, Origin, Wire, ask, chat, request_bytes
from tests.loopback.streams import CHAT, Ends, read_stream

_ROOT: Final = Path(__file__).resolve().parents[2]
_COUNTED: Final = 'trioproxy_requests_total{endpoint="chat",outcome="finished",upstream="127.0.0.1"}'
_SABOTAGE: Final = """
import os, sys, time
if "trioproxy.server.start" in sys.orig_argv:
    try:
        os.rename({switch!r}, {switch!r} + ".done")
    except FileNotFoundError:
        pass
    else:
        time.sleep(0.8)
        os._exit(3)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the configuration stands."""
    return tmp_path / "trioproxy.toml"


@pytest.fixture
def sabotage(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file, and the environment in which the first worker that finds the file there dies while it starts."""
    folder = tmp_path / "site"
    folder.mkdir()
    switch = folder / "switch"
    (folder / "sitecustomize.py").write_text(_SABOTAGE.format(switch=str(switch)))
    return switch, {"PYTHONPATH": os.pathsep.join([str(folder), str(_ROOT)])}


def of(upstream: Server | Origin, **sections: str) -> str:
    """A configuration file: sections and what stands in them."""
    parts = [f"[{name}]\n{text}\n" for name, text in sections.items()]
    return "".join([*parts, f'[[upstream]]\nbase_url = "{upstream.base_url}"\n'])


def listening(server: Server, addresses: int = 1) -> list[int]:
    """The ports of the data addresses."""
    is_over = server.process.poll
    until(lambda: len(_listening(server)) >= addresses or is_over() is not None, "listening", START_S)
    assert len(_listening(server)) >= addresses, (is_over(), server.out, server.err)
    server.port = _listening(server)[0]
    return _listening(server)


def _listening(server: Server) -> list[int]:
    return [line["port"] for line in list(server.log) if line["event"] == "listening"]


def admin(server: Server, method: str, target: str, **headers: str) -> Answer:
    port = int(server.admin_url.rpartition(":")[2])
    return ask(port, method, target, headers={"host": f"127.0.0.1:{port}", **headers})


def reload(server: Server, **headers: str) -> list[str]:
    """Reload; the problems."""
    problems: list[str] = admin(server, "POST", "/admin/reload", **headers).json["problems"]
    return problems


def metrics(server: Server) -> str:
    with urlopen(f"{server.admin_url}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def events(server: Server, event: str) -> int:
    return sum(line["event"] == event for line in list(server.log))


def test_workers_that_cannot_start_end_the_command_with_the_reason(
    upstream: Server, sabotage: tuple[Path, dict[str, str]]
) -> None:
    switch, env = sabotage
    switch.touch()
    with running("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0", env=env) as server:
        assert server.wait() == 1
        assert server.err == ["cannot serve: ended with exit code 3"]
        assert events(server, "listening") == 0


async def test_a_worker_that_dies_while_a_reload_starts_it_takes_nothing_along(
    upstream: Server, file: Path, sabotage: tuple[Path, dict[str, str]]
) -> None:
    switch, env = sabotage

    def want(workers: int) -> None:
        file.write_text(of(upstream, server=f'bind = ["127.0.0.1:0"]\nworkers = {workers}'))

    want(1)
    with running("serve", "--config", str(file), env=env) as server:
        await trio.to_thread.run_sync(listening, server)
        before = server.worker_pids()
        want(3)
        await trio.to_thread.run_sync(switch.touch)
        ends = Ends()
        async with trio.open_nursery() as nursery:
            server.process.send_signal(signal.SIGHUP)
            while not events(server, "reload refused: nothing was changed"):
                nursery.start_soon(read_stream, server.port, "demo-n20-i20-t0", ends)
                await trio.sleep(0.02)
            for _ in range(30):  # nobody may be sent to a worker that never came
                nursery.start_soon(read_stream, server.port, "demo-n3-i0-t0", ends)
        assert ends.whole == ends.all > 30, ends
        (refused,) = [line for line in server.log if line["event"] == "reload refused: nothing was changed"]
        assert refused["problems"] == ["ended with exit code 3"]
        assert server.worker_pids() == before
        assert await trio.to_thread.run_sync(reload, server) == []
        ends = Ends()
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(read_stream, server.port, "demo-n3-i0-t0", ends)
        assert ends.whole == ends.all
        assert server.stop() == 0
        assert server.err == [], "\n".join(server.err)


def test_a_stopped_worker_is_counted_on_and_killed_when_its_time_is_over(upstream: Server) -> None:
    env = {"TRIOPROXY_DRAIN__DELAY_S": "0.3", "TRIOPROXY_DRAIN__TIMEOUT_S": "0.5"}
    with running("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0", env=env) as server:
        listening(server)
        assert ask(server.port, "POST", CHAT, chat("demo-n1")).is_clean
        until(lambda: f"{_COUNTED} 1.0" in metrics(server), "one request counted")
        (worker,) = server.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        said = metrics(server)
        assert f"{_COUNTED} 1.0" in said
        assert 'trioproxy_tasks{worker="0"}' not in said
        assert server.resources()["workers"] == []
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < 0.3 + 0.5 + 1.0
        assert events(server, "worker killed: it did not end in time") == 1


def test_addresses_come_and_go_by_a_reload(upstream: Server, file: Path) -> None:
    file.write_text(of(upstream, server='bind = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:0"]\nworkers = "auto"'))
    with running("serve", "--config", str(file)) as server:
        first, second, third = listening(server, 3)
        for port in (first, second):
            assert ask(port, "GET", "/healthz").status == 200
        with urlopen(f"http://[::1]:{third}/healthz", timeout=5) as answer:
            assert answer.status == 200
        file.write_text(of(upstream, server='bind = ["127.0.0.1:0"]'))
        assert reload(server) == []
        until(lambda: _refuses(second) and _refuses(third), "two addresses gone")
        assert ask(first, "GET", "/healthz").status == 200

        with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            fine = free.getsockname()[1]
            free.close()
            wanted = [f"127.0.0.1:{fine}", f"127.0.0.1:{taken.getsockname()[1]}"]
            file.write_text(of(upstream, server=f"bind = {json.dumps(wanted)}"))
            assert reload(server) == ["cannot listen: Address already in use"]
            assert _refuses(fine)
        assert ask(first, "GET", "/healthz").status == 200
        assert server.stop() == 0
        assert server.err == [], "\n".join(server.err)


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_admin_key_can_be_renewed_and_the_admin_address_cannot_move(
    upstream: Server, file: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    section = 'bind = "127.0.0.1:0"\nkey = "file:key"'
    key.write_text("k" * 40)
    file.write_text(of(upstream, server='bind = ["127.0.0.1:0"]', admin=section))
    with running("serve", "--config", str(file)) as server:
        listening(server)
        assert admin(server, "GET", "/metrics").status == 401
        assert admin(server, "GET", "/metrics", authorization="Bearer " + "k" * 40).status == 200
        key.write_text("n" * 40)
        assert reload(server, authorization="Bearer " + "k" * 40) == []
        assert admin(server, "GET", "/metrics", authorization="Bearer " + "k" * 40).status == 401
        assert admin(server, "GET", "/metrics", authorization="bearer " + "n" * 40).status == 200
        file.write_text(of(upstream, server='bind = ["127.0.0.1:0"]', admin='bind = "[::1]:0"'))
        assert reload(server, authorization="Bearer " + "n" * 40) == [
            "admin.bind: takes a restart, a reload cannot change it"
        ]
        assert server.stop() == 0


def test_a_log_that_was_moved_away_is_begun_anew(upstream: Server, file: Path, tmp_path: Path) -> None:
    log, moved = tmp_path / "log", tmp_path / "log.1"
    file.write_text(of(upstream, server='bind = ["127.0.0.1:0"]', telemetry='access_log = "log"'))

    def told(file: Path) -> list[str]:
        return [json.loads(line)["event"] for line in file.read_text().splitlines()]

    with running("serve", "--config", str(file)) as server:
        until(lambda: log.exists() and "listening" in told(log), "listening", START_S)
        port = next(one["port"] for one in map(json.loads, log.read_text().splitlines()) if "port" in one)
        log.rename(moved)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: log.exists() and "reloaded" in told(log), "the new file", 10)
        assert ask(port, "POST", CHAT, chat("demo-n1")).is_clean
        until(lambda: "exchange" in told(log), "the exchange")
        assert server.stop() == 0
    assert "exchange" not in told(moved)
    assert "stopped" in told(log)


def test_a_signal_to_reload_while_it_starts_or_reloads_is_obeyed_once_more(upstream: Server) -> None:
    with running("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0") as server:
        until(lambda: any(map(_is_worker, server.worker_pids())), "the first worker", START_S)
        for _ in range(5):
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        listening(server)
        until(lambda: events(server, "reloaded") == 1, "one reload", 10)
        until(lambda: len(server.worker_pids()) == 1, "one worker")
        assert events(server, "reloaded") == 1
        assert ask(server.port, "GET", "/healthz").status == 200
        assert server.stop() == 0
        assert server.err == [], "\n".join(server.err)


def _is_worker(pid: int) -> bool:
    """Whether a child is one: other programs run for a moment while modules are imported."""
    try:
        return b"trioproxy.server.start" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("pause_s", [0.0, 0.02, 0.3])
def test_a_stop_during_a_reload_ends_both_crews(upstream: Server, pause_s: float) -> None:
    with running("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0") as server:
        listening(server)
        server.process.send_signal(signal.SIGHUP)
        time.sleep(pause_s)
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < 3
        assert server.err == [], "\n".join(server.err)


def test_twenty_reloads_leave_nothing_behind_in_the_supervisor(upstream: Server) -> None:
    with serving(upstream.base_url) as server:

        def descriptors() -> list[str]:
            return sorted(target.partition(":")[0] for target in open_descriptors(server.pid))

        def resident_kib() -> int:
            fields = Path(f"/proc/{server.pid}/status").read_text().partition("VmRSS:")[2].split()
            return int(fields[0])

        def reload_often(times: int) -> None:
            for _ in range(times):
                assert reload(server) == []
                metrics(server)
            until(lambda: len(server.worker_pids()) == 1, "one worker", 10)

        reload_often(5)
        time.sleep(0.5)  # the last questions' connections end
        before, memory = descriptors(), resident_kib()
        reload_often(15)
        until(lambda: descriptors() == before, f"the descriptors of before, {before}; there are {descriptors()}")
        assert resident_kib() < memory + 2048


def test_a_renewed_certificate_is_shown_after_a_reload_and_streams_run_on(upstream: Server, tmp_path: Path) -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode("ascii"))

    def renew() -> None:
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
        issued.private_key_pem.write_to_path(str(tmp_path / "own.key"))

    def connect(server: Server) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", server.port), WAIT_S)
        return trusting.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False)

    renew()
    env = {
        "TRIOPROXY_SERVER__TLS__CERT": str(tmp_path / "own.pem"),
        "TRIOPROXY_SERVER__TLS__KEY": str(tmp_path / "own.key"),
        "TRIOPROXY_DRAIN__TIMEOUT_S": "10",
    }
    with serving(upstream.base_url, env=env) as server, connect(server) as old:
        (worker,) = server.worker_pids()
        body = json.dumps(chat("demo-n30-i100-t0")).encode()
        old.sendall(request_bytes("POST", CHAT, body, {"connection": "close"}))
        data = old.recv(65536)
        renew()
        assert reload(server) == []

        def is_renewed() -> bool:
            with connect(server) as new:
                return new.getpeercert(binary_form=True) != old.getpeercert(binary_form=True)

        until(is_renewed, "the new certificate")  # until the old worker has heard that it is retired
        assert worker in server.worker_pids()
        while piece := old.recv(65536):
            data += piece
        assert data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")

        (tmp_path / "own.pem").write_text("none")
        (problem,) = reload(server)
        assert "TLS" in problem or "tls" in problem
        with connect(server) as new:
            assert new.getpeercert()


@pytest.mark.parametrize("body", [b"hello", b"[1]", b'{"error":"no"}', b'{"pid":"x"}', b"null"])
def test_what_answers_the_reload_command_and_is_no_admin_address_is_named_so(origin: Origin, body: bytes) -> None:
    def answer(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        wire.close()

    with origin.playing(answer):
        command = [sys.executable, "-m", "trioproxy", "reload", "--admin", f"http://127.0.0.1:{origin.port}"]
        done = subprocess.run([*command, "--admin-key", "k"], check=False, capture_output=True, text=True, cwd=_ROOT)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["nothing was changed:", "the answer was 200, and not this service's"]
