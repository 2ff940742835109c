"""The commands as processes: how they start, what they say when they cannot, and how they end."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.loopback.processes import START_S, Running, Server, running, serving, until
from tests.loopback.raw_http import Wire, ask, chat, request_bytes
from trioproxy.bench.demo_model import WORDS

CHAT = "/v1/chat/completions"


def ended(process: Running) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of a command that ends by itself."""
    code = process.wait(START_S)
    return code, "\n".join(process.out), "\n".join(process.err)


@contextmanager
def taken_port(backlog: int = 5) -> Iterator[int]:
    """A port on which somebody listens and nobody answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(backlog)
        yield listening.getsockname()[1]


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether `/healthz` says yes."""
    try:
        return ask(port, "GET", "/healthz").status == 200
    except OSError:
        return False


class TestWhatCannotStart:
    def test_serve_without_an_upstream_says_what_to_type(self) -> None:
        with running("serve") as process:
            code, out, err = ended(process)
        assert code == 2
        assert out == ""
        assert "--upstream https://api.openai.com/v1" in err
        assert "Traceback" not in err

    def test_a_port_in_use_is_an_error_and_not_a_second_listener(self, upstream: Server, proxy: Server) -> None:
        with running("serve", "--upstream", upstream.base_url, "--bind", f"127.0.0.1:{proxy.port}") as process:
            code, out, err = ended(process)
        assert code == 2
        assert f"127.0.0.1:{proxy.port}" in err
        assert "--bind" in err
        assert "Traceback" not in out + err
        for _ in range(20):
            assert answers(proxy.port)

    @pytest.mark.parametrize("command", ["demo", "demo-upstream"])
    def test_the_other_commands_do_not_share_a_port_either(self, command: str) -> None:
        with taken_port() as port, running(command, "--bind", f"127.0.0.1:{port}") as process:
            code, out, err = ended(process)
        assert code == 2
        assert f"127.0.0.1:{port}" in err
        assert "Traceback" not in out + err

    def test_every_bad_flag_and_variable_is_told_at_once(self) -> None:
        env = {"TRIOPROXY_STREAM__END": "perhaps", "TRIOPROXY_DEADLINES__IDLE_S": "-1", "TRIOPROXY_NO_SUCH": "1"}
        with running("serve", "--upstream", "ftp://x", "--bind", "nowhere", env=env) as process:
            code, _, err = ended(process)
        assert code == 2
        for place in (
            "command line:upstream.base_url",
            "command line:server.bind",
            "environment:TRIOPROXY_STREAM__END",
            "environment:TRIOPROXY_DEADLINES__IDLE_S",
            "environment:TRIOPROXY_NO_SUCH",
        ):
            assert place in err
        assert len(err.splitlines()) == 5

    def test_an_unknown_flag_or_command_is_an_error(self) -> None:
        with (
            running("serve", "--no-such-flag") as flag,
            running("no-such-command") as command,
            running("check", "a", "b") as argument,
        ):
            for process in (flag, command, argument):
                code, _, err = ended(process)
                assert code == 2
                assert err
                assert "Traceback" not in err

    def test_reload_takes_the_admin_address_from_a_file_with_several_upstreams(self, tmp_path: Path) -> None:
        upstreams = "".join(f'[[upstream]]\nbase_url = "http://{name}/v1"\n' for name in ("a", "b"))
        (tmp_path / "trioproxy.toml").write_text(f'{upstreams}[admin]\nbind = "127.0.0.1:1"\n')
        with running("reload", directory=tmp_path) as process:
            code, _, err = ended(process)
        assert code == 1
        assert err.startswith("cannot reach the admin address at http://127.0.0.1:1:"), err

    def test_a_log_that_cannot_be_opened_is_an_error(self, upstream: Server, tmp_path: Path) -> None:
        env = {"TRIOPROXY_TELEMETRY__ACCESS_LOG": str(tmp_path / "no" / "such" / "folder")}
        with running("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0", env=env) as process:
            code, _, err = ended(process)
        assert code == 2
        assert "access_log" in err.lower()


BAD_CONFIG = """
[server]
bind = "127.0.0.1:8080"
max_bodies = 3
[deadlines]
idle_s = "soon"
[stream]
end = "sometimes"
[[upstream]]
base_url = "api.openai.com"
api_key = "sk-live-secret"
"""

GOOD_CONFIG = """
[server]
bind = ["127.0.0.1:0"]
[[upstream]]
name = "mine"
base_url = "{base_url}"
api_key = "env:UPSTREAM_KEY"
headers = {{ "x-gateway-key" = "env:UPSTREAM_KEY" }}
"""

SECRETS_IN_PLACE = """
[[upstream]]
base_url = "https://api.openai.com/v1"
proxy = "http://user:sk-proxy-password@127.0.0.1:3128"
headers = { "x-gateway-token" = "sk-written-out" }
"""

NEVER_REACHED = """
[[upstream]]
base_url = "https://api.openai.com/v1"
[[route]]
models = ["gpt-*"]
[[route]]
models = ["gpt-4o"]
"""

SHARED_BY_TWO = """
[server]
workers = 2

[[upstream]]
base_url = "https://api.openai.com/v1"

[[route]]
models = ["gpt-*"]
share = true
"""


class TestCheck:
    def test_every_problem_of_a_file_is_told_at_once(self, tmp_path: Path) -> None:
        file = tmp_path / "bad.toml"
        file.write_text(BAD_CONFIG)
        with running("check", str(file)) as process:
            code, out, err = ended(process)
        assert code == 2
        assert out == ""
        for key in (
            "server.bind",
            "server.max_bodies",
            "deadlines.idle_s",
            "stream.end",
            "upstream[0].base_url",
            "upstream[0].api_key",
        ):
            assert f"{file}:{key}: " in err, err
        assert "sk-live-secret" not in err

    def test_serve_refuses_the_same_file(self, tmp_path: Path) -> None:
        file = tmp_path / "trioproxy.toml"
        file.write_text(BAD_CONFIG)
        with running("serve", directory=tmp_path) as process:
            code, _, err = ended(process)
        assert code == 2
        assert len(err.splitlines()) == 6

    def test_streams_that_workers_share_need_redis(self, tmp_path: Path) -> None:
        file = tmp_path / "trioproxy.toml"
        file.write_text(SHARED_BY_TWO)
        with running("check", str(file)) as checked, running("serve", directory=tmp_path) as served:
            told = [ended(process) for process in (checked, served)]
        for code, out, err in told:
            assert (code, out) == (2, "")
            assert ":route[0].share: needs what all workers know, " in err and "state.url" in err
        env = {"TRIOPROXY_STATE__URL": "redis://:pa55@127.0.0.1:1"}
        with running("check", str(file), "--show", "--offline", env=env) as process:
            code, out, err = ended(process)
        assert (code, err) == (0, "")
        assert 'url = "redis://:***@127.0.0.1:1"' in out and "pa55" not in out

    def test_the_keys_file_is_checked_with_the_rest(self, tmp_path: Path) -> None:
        file, keys = tmp_path / "trioproxy.toml", tmp_path / "keys.toml"
        file.write_text('[[upstream]]\nbase_url = "http://127.0.0.1:1"\n')
        keys.write_text(f'[[key]]\nname = "a"\nhash = "tpk_{"s" * 43}"\n')
        with running("check", str(file), "--offline") as process:
            code, out, err = ended(process)
        assert (code, out) == (2, "") and "sss" not in err
        assert err.startswith(f"{keys}:line 1: key[0].hash: is a key's secret itself, expected ")
        keys.write_text(f'[[key]]\nname = "a"\nhash = "sha256:{"0" * 64}"\nexpires = 2001-01-01\n')
        with running("check", str(file), "--offline") as process:
            code, out, err = ended(process)
        assert (code, out) == (0, "ok")
        assert err == f'warning: {keys}: key[0].expires: key "a" has expired, nobody is let in by it'

    def test_a_good_file_is_ok_and_show_masks_what_is_secret(self, tmp_path: Path) -> None:
        file = tmp_path / "good.toml"
        file.write_text(GOOD_CONFIG.format(base_url="https://api.openai.com/v1"))
        env = {"UPSTREAM_KEY": "sk-very-secret"}
        with running("check", str(file), env=env) as process:
            assert ended(process) == (0, "ok", "")
        with running("check", "--config", str(file), "--show", env=env) as process:
            code, out, err = ended(process)
        assert (code, err) == (0, "")
        assert "https://api.openai.com/v1" in out
        assert "idle_s = 300" in out
        assert "sk-very-secret" not in out

    def test_what_is_hardly_meant_is_a_warning_and_no_failure(self, tmp_path: Path) -> None:
        file = tmp_path / "good.toml"
        file.write_text(NEVER_REACHED)
        with running("check", str(file)) as process:
            code, out, err = ended(process)
        assert (code, out) == (0, "ok")
        assert err == (
            'warning: route[1].models[0]: "gpt-4o" is never reached, route[0].models[0] = "gpt-*" comes before it'
        )

    def test_show_masks_secrets_that_were_written_out(self, tmp_path: Path) -> None:
        file = tmp_path / "good.toml"
        file.write_text(SECRETS_IN_PLACE)
        with running("check", str(file), "--show") as process:
            code, out, err = ended(process)
        assert (code, err) == (0, "")
        assert "x-gateway-token" in out
        assert "127.0.0.1:3128" in out
        assert "sk-" not in out

    def test_a_reference_that_leads_nowhere_is_a_problem(self, tmp_path: Path) -> None:
        file = tmp_path / "good.toml"
        file.write_text(GOOD_CONFIG.format(base_url="https://api.openai.com/v1"))
        with running("check", str(file)) as process:
            code, _, err = ended(process)
        assert code == 2
        assert "UPSTREAM_KEY" in err

    def test_a_file_serves_and_its_key_goes_to_the_origin_only(self, tmp_path: Path, upstream: Server) -> None:
        file = tmp_path / "good.toml"
        file.write_text(GOOD_CONFIG.format(base_url=upstream.base_url))
        env = {"UPSTREAM_KEY": "sk-very-secret"}
        with running("serve", "--config", str(file), env=env) as proxy:
            proxy.port = int(json.loads(proxy.wait_for_text('"listening"', START_S))["port"])
            answer = ask(proxy.port, "POST", CHAT, chat("m-n1-t0"), {"authorization": "Bearer sk-client"})
            assert answer.is_clean
            assert answer.headers["x-trioproxy-upstream"] == "mine"
            assert proxy.stop() == 0
            assert "sk-" not in "".join(proxy.out + proxy.err)


class TestUpstreamsThatAreNotThere:
    def _is_up_and_says_so(self, proxy: Server, status: int, code: str) -> None:
        assert ask(proxy.port, "GET", "/healthz").status == 200
        ready = ask(proxy.port, "GET", "/readyz")
        assert (ready.status, ready.json["reason"]) == (503, code)
        for path, body in ((CHAT, chat("m")), (CHAT, chat("m", stream=False)), ("/v1/files", b"x")):
            answer = ask(proxy.port, "POST", path, body)
            assert (answer.status, answer.error["code"]) == (status, code)
            assert "127.0.0.1" in answer.error["message"] or "no-such-host.invalid" in answer.error["message"]
            assert proxy.exchange(answer.request_id)["code"] == code

    def test_an_upstream_that_refuses(self) -> None:
        with serving(f"http://127.0.0.1:{free_port()}/v1") as proxy:
            self._is_up_and_says_so(proxy, 502, "upstream_connect_failed")

    def test_an_upstream_whose_name_does_not_exist(self) -> None:
        with serving("http://no-such-host.invalid/v1") as proxy:
            self._is_up_and_says_so(proxy, 502, "upstream_connect_failed")

    def test_an_upstream_that_does_not_take_the_connection(self) -> None:
        env = {"TRIOPROXY_DEADLINES__CONNECT_S": "0.3"}
        with taken_port(backlog=0) as port, serving(f"http://127.0.0.1:{port}/v1", env=env) as proxy:
            waiting = [socket.socket() for _ in range(4)]  # they fill the listener's queue
            try:
                for each in waiting:
                    each.setblocking(False)
                    each.connect_ex(("127.0.0.1", port))
                self._is_up_and_says_so(proxy, 504, "upstream_connect_timeout")
            finally:
                for each in waiting:
                    each.close()

    def test_an_upstream_that_comes_later_is_used(self) -> None:
        port = free_port()
        with serving(f"http://127.0.0.1:{port}/v1") as proxy:
            assert ask(proxy.port, "GET", "/readyz").status == 503
            with running("demo-upstream", "--bind", f"127.0.0.1:{port}") as later:
                later.wait_for_text("http://", START_S)
                until(lambda: ask(proxy.port, "GET", "/readyz").status == 200, "ready")
                assert ask(proxy.port, "POST", CHAT, chat("m-n1-t0")).is_clean


class TestDemo:
    def test_demo_answers_within_two_seconds_and_says_what_to_type(self) -> None:
        start = time.monotonic()
        with running("demo", "--bind", "127.0.0.1:0") as demo:
            demo.port = int(json.loads(demo.wait_for_text('"listening"', START_S))["port"])
            answer = ask(demo.port, "GET", "/v1/models")
            took_s = time.monotonic() - start
            print(f"the first answer after {took_s:.2f} s")
            assert answer.status == 200
            assert took_s < 2.0
            assert ask(demo.port, "POST", CHAT, chat("m-n3-i1-t0")).body.endswith(b"data: [DONE]\n\n")
            found = re.search(r"The dashboard: http://127\.0\.0\.1:(\d+)/$", "\n".join(demo.out), re.MULTILINE)
            assert found is not None
            assert ask(int(found[1]), "GET", "/").headers["content-type"] == "text/html; charset=utf-8"
            assert demo.stop(signal.SIGINT) == 0
            text = "\n".join(demo.out)
            assert f"curl -N http://127.0.0.1:{demo.port}/v1/chat/completions" in text
            assert f'base_url="http://127.0.0.1:{demo.port}/v1"' in text
            assert demo.err == []

    def test_demo_wants_nothing_of_a_configuration_file(self, tmp_path: Path) -> None:
        upstreams = "".join(f'[[upstream]]\nbase_url = "http://{name}/v1"\napi_key = "env:NONE"\n' for name in "ab")
        (tmp_path / "trioproxy.toml").write_text(f"{upstreams}[server]\nworkers = 0\n")
        with running("demo", "--bind", "127.0.0.1:0", directory=tmp_path) as demo:
            demo.port = int(json.loads(demo.wait_for_text('"listening"', START_S))["port"])
            assert ask(demo.port, "GET", "/v1/models").status == 200
            assert demo.stop(signal.SIGINT) == 0
            assert demo.err == []

    def test_the_words_of_the_demo_upstream_are_listed(self) -> None:
        with running("demo-upstream", "--words") as process:
            code, out, err = ended(process)
        assert (code, err) == (0, "")
        assert [line.split()[0] for line in out.splitlines()] == list(WORDS)


def long_stream(port: int) -> Wire:
    """A stream that has begun and would go on for a minute."""
    client = Wire.to(port)
    client.send(request_bytes("POST", CHAT, json.dumps(chat("m-n6000-i10-t0")).encode()))
    client.read_head()
    client.read_chunk()
    return client


def last_event(client: Wire) -> bytes:
    """Read on; the data of the last event before the connection was cut."""
    rest = client.read_all()
    assert not rest.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in rest
    return rest.rpartition(b"data: ")[2].partition(b"\n")[0]


@contextmanager
def proxy_for_stopping(upstream: Server, drain_s: float) -> Iterator[Server]:
    """A proxy that the test stops itself."""
    env = {"TRIOPROXY_DRAIN__TIMEOUT_S": str(drain_s)}
    with running("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0", env=env) as proxy:
        proxy.port = int(json.loads(proxy.wait_for_text('"listening"', START_S))["port"])
        yield proxy


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_an_idle_proxy_ends_at_once(self, upstream: Server, number: int) -> None:
        with proxy_for_stopping(upstream, 30) as proxy, Wire.to(proxy.port) as idle:
            idle.send(request_bytes("GET", "/healthz"))
            proxy.exchange(idle.read_answer().request_id)
            start = time.monotonic()
            assert proxy.stop(number) == 0
            took_s = time.monotonic() - start
            assert idle.read_all() == b""
            assert proxy.err == []
            # The supervisor's own lines come from another process, in between or not.
            said = [line["event"] for line in proxy.log if line["event"] in ("draining", "stopped")]
            assert said == ["draining", "stopped"]
        print(f"{1000 * took_s:.0f} ms")
        assert took_s < 1.0

    def test_a_stream_runs_on_to_its_end(self, upstream: Server) -> None:
        with proxy_for_stopping(upstream, 10) as proxy, Wire.to(proxy.port) as client:
            client.send(request_bytes("POST", CHAT, json.dumps(chat("m-n50-i10-t0")).encode()))
            head = client.read_head()
            assert head.status == 200
            proxy.process.send_signal(signal.SIGTERM)
            proxy.wait_for_text('"draining"')
            with pytest.raises(ConnectionRefusedError):
                Wire.to(proxy.port)
            assert client.read_all().endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            client.close()
            assert proxy.wait() == 0
            assert proxy.exchanges[-1]["outcome"] == "finished"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_stream_that_takes_too_long_is_told_and_cut(self, upstream: Server, number: int) -> None:
        with proxy_for_stopping(upstream, 0.3) as proxy, long_stream(proxy.port) as client:
            start = time.monotonic()
            proxy.process.send_signal(number)
            assert json.loads(last_event(client))["error"]["code"] == "draining"
            assert proxy.wait() == 0
            took_s = time.monotonic() - start
            assert proxy.exchanges[-1]["code"] == "draining"
            assert proxy.err == []
        print(f"{took_s:.2f} s")
        assert 0.3 <= took_s < 2.0

    def test_a_request_without_a_head_gets_a_status(self, upstream: Server) -> None:
        with proxy_for_stopping(upstream, 0.2) as proxy, Wire.to(proxy.port) as client:
            client.send(request_bytes("POST", CHAT, json.dumps(chat("m-mute")).encode()))
            until(lambda: ask(upstream.port, "GET", "/stats").json["streams"] > 0, "the request is at the origin")
            proxy.process.send_signal(signal.SIGTERM)
            answer = client.read_answer()
            assert (answer.status, answer.error["code"]) == (503, "draining")
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["connection"] == "close"
            assert proxy.wait() == 0

    def test_a_second_signal_does_not_wait(self, upstream: Server) -> None:
        with proxy_for_stopping(upstream, 60) as proxy, long_stream(proxy.port) as client:
            proxy.process.send_signal(signal.SIGTERM)
            proxy.wait_for_text('"draining"')
            time.sleep(0.3)
            assert proxy.process.poll() is None
            start = time.monotonic()
            proxy.process.send_signal(signal.SIGTERM)
            assert json.loads(last_event(client))["error"]["code"] == "draining"
            client.close()
            assert proxy.wait() == 0
            took_s = time.monotonic() - start
        assert took_s < 2.0

    def test_a_reader_that_has_stalled_does_not_keep_the_proxy(self, upstream: Server) -> None:
        with proxy_for_stopping(upstream, 0.3) as proxy, Wire.to(proxy.port) as client:
            client.send(request_bytes("POST", CHAT, json.dumps(chat("m-flood-t0")).encode()))
            client.read_head()
            time.sleep(0.5)
            start = time.monotonic()
            assert proxy.stop() == 0
            assert time.monotonic() - start < 3.0

    def test_an_upload_under_way_does_not_keep_the_proxy(self, upstream: Server) -> None:
        with proxy_for_stopping(upstream, 0.3) as proxy, Wire.to(proxy.port) as client:
            client.send(request_bytes("POST", "/v1/files", headers={"content-length": "100000"}) + b"x")
            with Wire.to(proxy.port) as held:
                held.send(request_bytes("POST", CHAT, headers={"content-length": "100000"}) + b"{")
                time.sleep(0.2)
                start = time.monotonic()
                assert proxy.stop() == 0
                assert time.monotonic() - start < 3.0
            assert len(proxy.exchanges) == 2


class TestLogsThatCannotBeWritten:
    def _serves_and_stops(self, proxy: Server, requests: int = 20) -> None:
        for _ in range(requests):
            answer = ask(proxy.port, "POST", CHAT, chat("m-n3-i0-t0"))
            assert answer.is_clean
            assert answer.body.endswith(b"data: [DONE]\n\n")
        start = time.monotonic()
        assert proxy.stop() == 0, proxy.err
        assert time.monotonic() - start < 4.0

    def test_a_full_disk_costs_lines_and_nothing_else(self, upstream: Server) -> None:
        port = free_port()
        env = {"TRIOPROXY_TELEMETRY__ACCESS_LOG": "/dev/full"}
        with running("serve", "--upstream", upstream.base_url, "--bind", f"127.0.0.1:{port}", env=env) as proxy:
            proxy.port = port
            until(lambda: answers(port), "an answer", START_S)
            self._serves_and_stops(proxy)
            assert proxy.err == []

    def test_a_pipe_that_nobody_reads_any_more_costs_lines_and_nothing_else(self, upstream: Server) -> None:
        port = free_port()
        reading, writing = os.pipe()
        with (
            os.fdopen(writing, "wb") as stdout,
            running("serve", "--upstream", upstream.base_url, "--bind", f"127.0.0.1:{port}", stdout=stdout) as proxy,
        ):
            stdout.close()
            proxy.port = port
            until(lambda: answers(port), "an answer", START_S)
            os.close(reading)
            self._serves_and_stops(proxy)
            assert proxy.err == []

    def test_a_pipe_that_is_full_costs_lines_and_nothing_else(self, upstream: Server) -> None:
        port = free_port()
        reading, writing = os.pipe()
        with (
            os.fdopen(reading, "rb"),
            os.fdopen(writing, "wb") as stdout,
            running("serve", "--upstream", upstream.base_url, "--bind", f"127.0.0.1:{port}", stdout=stdout) as proxy,
        ):
            stdout.close()
            proxy.port = port
            until(lambda: answers(port), "an answer", START_S)
            with Wire.to(port) as client:
                for _ in range(400):  # far more lines than a pipe's 64 KiB
                    client.send(request_bytes("GET", "/healthz"))
                    assert client.read_answer().status == 200
            self._serves_and_stops(proxy)
            assert proxy.err == []
