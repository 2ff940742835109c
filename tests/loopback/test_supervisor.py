"""Workers come and go, by reload, by death and by order, and streams do not notice."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
import trio

from tests.loopback.processes import Server, running, serving, until
from tests.loopback.raw_http import ask
from tests.loopback.streams import CHAT, Ends, read_stream

SLOW = "demo-n30-i100-t0"  # three seconds
BODY = {"messages": [{"role": "user", "content": "x"}], "stream": True}


@pytest.fixture
def pair(upstream: Server) -> Iterator[Server]:
    """A proxy with two workers."""
    with serving(upstream.base_url, "--workers", "2", env={"TRIOPROXY_DRAIN__TIMEOUT_S": "10"}) as server:
        yield server


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def requests_of(server: Server) -> dict[int, int]:
    """How many requests each worker has under way, by process id."""
    return {one["pid"]: one["open"]["requests"] for one in server.resources()["workers"]}


async def in_thread(function: object, *arguments: object) -> object:
    return await trio.to_thread.run_sync(function, *arguments)  # type: ignore[arg-type]


async def wait_until(condition: object, what: str, patience_s: float = 10.0) -> None:
    await in_thread(until, condition, what, patience_s, 0.05)


async def test_500_streams_and_those_that_come_meanwhile_live_through_a_reload(pair: Server) -> None:
    before = pair.worker_pids()
    ends, late = Ends(), Ends()
    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(read_stream, pair.port, SLOW, ends)
        await wait_until(lambda: sum(requests_of(pair).values()) == 500, "500 requests under way")
        pair.process.send_signal(signal.SIGHUP)
        for _ in range(100):  # while the new workers start, while they take over, and afterwards
            nursery.start_soon(read_stream, pair.port, "demo-n3-i0-t0", late)
            await trio.sleep(0.02)
    assert (ends.whole, ends.lost, ends.refused) == (500, [], 0)
    assert (late.whole, late.lost, late.refused) == (100, [], 0)
    assert any(line["event"] == "reloaded" for line in pair.log)
    await wait_until(lambda: not any(alive(pid) for pid in before), "the old workers gone")
    assert len(pair.worker_pids()) == 2 and not set(before) & set(pair.worker_pids())


async def test_a_killed_worker_takes_its_own_streams_along_and_no_others(pair: Server) -> None:
    ends, late = Ends(), Ends()
    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(read_stream, pair.port, SLOW, ends)
        await wait_until(lambda: sum(requests_of(pair).values()) == 500, "500 requests under way")
        victim, its_own = max(requests_of(pair).items())
        assert 0 < its_own < 500
        os.kill(victim, signal.SIGKILL)
        for _ in range(50):  # those that meet the dead worker's queue wait for its successor
            nursery.start_soon(read_stream, pair.port, "demo-n3-i0-t0", late)
            await trio.sleep(0.02)
    assert ends.whole == 500 - its_own
    assert len(ends.lost) == its_own
    assert (late.whole, late.lost, late.refused) == (50, [], 0)
    (died,) = [line for line in pair.log if line["event"] == "worker died"]
    assert (died["pid"], died["reason"]) == (victim, "ended by SIGKILL")
    await wait_until(lambda: len(requests_of(pair)) == 2, "two workers again")
    assert pair.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_the_whole_group_counts_once(upstream: Server, number: int) -> None:
    ends = Ends()
    begun = trio.Event()
    arguments = ("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0", "--workers", "2")
    with running(*arguments, own_group=True) as server:
        server.port = json.loads(server.wait_for_text('"listening"', 20))["port"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_stream, server.port, "demo-n20-i100-t0", ends, begun)
            await begun.wait()
            os.killpg(server.pid, number)
        assert ends.whole == 1, ends
        assert await in_thread(server.wait) == 0
        assert server.err == [], "\n".join(server.err)


async def test_a_second_signal_does_not_wait_for_streams(upstream: Server) -> None:
    ends = Ends()
    begun = trio.Event()
    arguments = ("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0")
    with running(*arguments, env={"TRIOPROXY_DRAIN__TIMEOUT_S": "60"}) as server:
        server.port = json.loads(server.wait_for_text('"listening"', 20))["port"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_stream, server.port, "demo-silent3-t0", ends, begun)
            await begun.wait()
            server.process.send_signal(signal.SIGTERM)
            await trio.sleep(0.3)
            assert server.process.poll() is None
            server.process.send_signal(signal.SIGTERM)
            took = await in_thread(until, lambda: server.process.poll() is not None, "the end")
        assert isinstance(took, float) and took < 1.0
        assert server.process.returncode == 0
        assert ends.told == 1, ends


async def test_no_worker_outlives_its_supervisor_for_long_and_its_streams_end_well(upstream: Server) -> None:
    ends = Ends()
    begun = trio.Event()
    arguments = ("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0")
    with running(*arguments) as server:
        server.port = json.loads(server.wait_for_text('"listening"', 20))["port"]
        (worker,) = server.worker_pids()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_stream, server.port, "demo-n20-i100-t0", ends, begun)
            await begun.wait()
            server.process.kill()
            await wait_until(lambda: not _is_listened_on(server.port), "the port free while the stream goes on", 1.5)
        assert ends.whole == 1, ends
        await wait_until(lambda: not alive(worker), "the orphan gone", 1.0)


def reloads(server: Server) -> int:
    return sum(line["event"] == "reloaded" for line in list(server.log))


def _is_listened_on(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_broken_configuration_changes_nothing_and_says_why(upstream: Server, tmp_path: Path) -> None:
    ends = Ends()
    begun = trio.Event()
    file = tmp_path / "trioproxy.toml"
    good = f'[[upstream]]\nbase_url = "{upstream.base_url}"\nname = "first"\n'
    file.write_text(good)
    with running("serve", "--bind", "127.0.0.1:0", "--config", str(file)) as server:
        server.port = json.loads(server.wait_for_text('"listening"', 20))["port"]
        workers = server.worker_pids()
        reload = [sys.executable, "-m", "trioproxy", "reload", "--admin", server.admin_url]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_stream, server.port, "demo-n20-i100-t0", ends, begun)
            await begun.wait()
            file.write_text(good + "[deadlines]\nidle_s = 0\n[drain]\ndelai_s = 1\n")
            refused = await trio.run_process(reload, check=False, capture_stdout=True, capture_stderr=True)
        assert ends.whole == 1
        assert refused.returncode == 1
        said = refused.stderr.decode().splitlines()
        assert said[0] == "nothing was changed:"
        assert any(f"{file}:deadlines.idle_s: is out of range" in line for line in said), said
        assert any(f'{file}:drain.delai_s: is not a known key, expected "delay_s"' in line for line in said), said
        assert server.worker_pids() == workers
        assert ask(server.port, "POST", CHAT, {**BODY, "model": "demo-n1"}).headers["x-trioproxy-upstream"] == "first"

        file.write_text(good.replace("first", "second"))
        done = await trio.run_process(reload, check=False, capture_stdout=True, capture_stderr=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode() == f"reloaded: the service at {server.admin_url}, process {server.pid}\n"
        assert ask(server.port, "POST", CHAT, {**BODY, "model": "demo-n1"}).headers["x-trioproxy-upstream"] == "second"

        file.write_text(good.replace("first", "third") + "[server]\nworkers = 3\n")
        server.process.send_signal(signal.SIGHUP)
        await wait_until(lambda: reloads(server) == 2, "the reload")
        assert len(server.resources()["workers"]) >= 3
        assert ask(server.port, "POST", CHAT, {**BODY, "model": "demo-n1"}).headers["x-trioproxy-upstream"] == "third"

        file.write_text(good)
        server.process.send_signal(signal.SIGHUP)  # fewer workers take the slots of those that go: none is lost
        ends = Ends()
        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(read_stream, server.port, "demo-n3-i0-t0", ends)
                await trio.sleep(0.03)
        assert (ends.whole, ends.lost, ends.refused) == (60, [], 0)
        await wait_until(lambda: len(server.resources()["workers"]) == 1, "one worker")
        assert server.stop() == 0
        assert server.err == [], "\n".join(server.err)


def test_what_was_counted_does_not_shrink_when_a_worker_goes(upstream: Server) -> None:
    with serving(upstream.base_url) as server:
        for _ in range(3):
            assert ask(server.port, "POST", CHAT, {**BODY, "model": "demo-n1"}).is_clean
        counted = 'trioproxy_requests_total{endpoint="chat",outcome="finished",upstream="127.0.0.1"} 3.0'
        until(lambda: counted in metrics(server), "three requests counted")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_text('"reloaded"')
        until(lambda: len(server.worker_pids()) == 1, "one worker")
        assert counted in metrics(server)
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        server.wait_for_text('"worker replaced"')
        assert counted in metrics(server)
        assert "trioproxy_worker_restarts_total 1.0" in metrics(server)


def metrics(server: Server) -> str:
    with urlopen(f"{server.admin_url}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def test_the_resources_are_told_on_a_signal_too(upstream: Server) -> None:
    with serving(upstream.base_url) as server:
        server.process.send_signal(signal.SIGUSR1)
        told = json.loads(server.wait_for_text('"resources"'))
        (worker,) = told["workers"]
        assert worker["pid"] == server.worker_pids()[0]
        assert worker["task_tree"]["count"] == 1 and worker["task_tree"]["tasks"]
        assert told["tasks"] >= 5 and told["open"]["requests"] == 0


def test_a_port_in_use_is_an_error_though_workers_share_theirs(upstream: Server) -> None:
    with serving(upstream.base_url) as first:
        address = f"127.0.0.1:{first.port}"
        with running("serve", "--upstream", upstream.base_url, "--bind", address) as second:
            assert second.wait() == 2
            assert second.err == [
                f"cannot listen on {address}: Address already in use; choose another address with --bind"
            ]
        admin = first.admin_url.removeprefix("http://")
        arguments = ("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0")
        with running(*arguments, "--admin-bind", admin) as third:
            assert third.wait() == 2
            assert "choose another address with --admin-bind" in third.err[0]
        with running(*arguments) as fourth:  # nobody chose the default: any port will do
            assert fourth.admin_url != first.admin_url
            assert fourth.stop() == 0


def test_ctrl_c_while_workers_start_ends_them_without_a_word_of_python(upstream: Server) -> None:
    for pause_s in (0.0, 0.1, 0.3):
        arguments = ("serve", "--upstream", upstream.base_url, "--bind", "127.0.0.1:0", "--workers", "2")
        with running(*arguments, own_group=True) as server:
            until(lambda server=server: len(server.worker_pids()) == 2, "two workers", 20)  # type: ignore[misc]
            time.sleep(pause_s)
            os.killpg(server.pid, signal.SIGINT)
            assert server.wait() == 0
            assert server.err == [], "\n".join(server.err)
