"""`trioproxy bench` on real services: its table, its files, its processes, and what it says of itself."""

import json
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.processes import START_S, Running, Server, running, until
from tests.loopback.raw_http import Wire, chunk, event_stream_head, open_origin
from tests.loopback.terminal import CTRL_C, on_terminal

PNG = b"\x89PNG\r\n\x1a\n"
BENCH_S = 40.0
"""How long a bench may take beside its measuring on a machine that does much else."""


def ended(process: Running) -> tuple[int, list[str], str]:
    """Exit code, the lines on standard output, standard error."""
    code = process.wait(BENCH_S)
    return code, process.out, "\n".join(process.err)


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_streams_and_whole_answers_of_two_urls_stand_side_by_side(
    proxy: Server, upstream: Server, tmp_path: Path
) -> None:
    flags = ("--compare", upstream.base_url, "--batch", "--clients", "4", "--duration", "1.5", "--processes", "2")
    files = ("--json", str(tmp_path / "figures.json"), "--plot", str(tmp_path / "figures.png"))
    with running("bench", proxy.base_url, *flags, *files, "--model", "m-n10-i20-t50") as bench:
        code, lines, err = ended(bench)
    assert (code, err) == (0, "")
    assert lines[0].split("  ")[-1].strip() == "batch: B to A"
    assert f"A: {proxy.base_url}" in lines and f"B: {upstream.base_url}" in lines
    assert (tmp_path / "figures.png").read_bytes().startswith(PNG)
    series = json.loads((tmp_path / "figures.json").read_text())["series"]
    assert [(one["url"], one["mode"]) for one in series] == [
        (url, mode) for url in (proxy.base_url, upstream.base_url) for mode in ("stream", "batch")
    ]
    for one in series:
        assert (one["failed"], one["processes"], one["clients"]) == (0, 2, 4)
        assert one["finished"] > 4
        assert one["total_s"]["min"] >= 0.22
        is_stream = one["mode"] == "stream"
        assert (one["first_content_s"]["p50"] < 0.2) is is_stream
        assert one["tokens"] >= 10 * one["finished"]
        assert one["gap_s"]["count"] == 0 or 0.015 < one["gap_s"]["p50"] < 0.1
        assert (one["gap_s"]["count"] > 0) is is_stream


def test_a_rate_is_asked_of_the_demo_upstream(upstream: Server) -> None:
    with running("bench", upstream.base_url, "--rate", "50", "--duration", "3", "--json", "-") as bench:
        code, lines, err = ended(bench)
    assert (code, err) == (0, "")
    (one,) = json.loads("\n".join(lines))["series"]
    assert one["model"] == "demo-i20"
    assert 0.015 < one["gap_s"]["p50"] < 0.1


def test_errors_are_told_apart_and_nothing_finished_is_a_failure(upstream: Server) -> None:
    with running("bench", upstream.base_url, "--duration", "0.5", "--model", "m-e429", "--clients", "2") as bench:
        code, lines, _ = ended(bench)
    assert code == 1
    assert any(line.startswith("stream: ") and line.endswith("failed: HTTP 429 rate_limit_exceeded") for line in lines)


def test_it_says_when_it_was_itself_the_limit() -> None:
    content = json.dumps({"choices": [{"index": 0, "delta": {"content": "x"}}]}).encode()
    flood = chunk(b"data: " + content + b"\n\n") * 1000  # costs the origin next to nothing, and who reads it a lot

    def pour(wire: Wire) -> None:
        wire.read_request()
        with closing(wire):
            try:
                wire.send(event_stream_head())
                while True:
                    wire.send(flood)
            except OSError:
                pass  # the client has left

    with open_origin(pour) as origin, running("bench", origin.base_url, "--duration", "2", "--json", "-") as bench:
        code, lines, _ = ended(bench)
    (one,) = json.loads("\n".join(lines))["series"]
    assert code == 1  # a flood has no end
    assert (one["finished"], one["under_way"]) == (0, 10)
    assert one["limits"], one


def test_a_bar_shows_how_far_it_is(upstream: Server) -> None:
    arguments = (upstream.base_url, "--duration", "3", "--model", "m-n10-i10-t0", "--batch")
    with on_terminal("bench", *arguments, columns=180) as terminal:
        terminal.wait_for(f"1 of 2: stream {upstream.base_url}", BENCH_S)
        terminal.wait_for("finished, 0 failed", BENCH_S)
        terminal.wait_for(f"2 of 2: batch {upstream.base_url}", BENCH_S)
        terminal.wait_for("first content p99", BENCH_S)
        assert terminal.wait() == 0
        assert terminal.is_as_before()


def test_ctrl_c_leaves_the_terminal_as_it_was(upstream: Server) -> None:
    arguments = (upstream.base_url, "--duration", "600", "--model", "m-n10-i10-t0")
    with on_terminal("bench", *arguments, columns=180) as terminal:
        terminal.wait_for("finished, 0 failed", BENCH_S)
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        assert terminal.is_as_before()
        assert not terminal.line_with("Traceback")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_its_processes_end_with_it(upstream: Server, number: int) -> None:
    arguments = (upstream.base_url, "--duration", "600", "--processes", "2", "--model", "m-n10-i10-t0")
    with running("bench", *arguments) as bench:
        until(lambda: len(bench.family()) == 3, "two processes of the generator's", START_S)
        family = bench.family()
        requests = asked(upstream)
        until(lambda: asked(upstream) > requests, "load", START_S)
        bench.process.send_signal(number)
        assert bench.wait() == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert "Traceback" not in "\n".join(bench.err)
        until(lambda: not any(map(is_running, family)), "the end of all of them")


def asked(upstream: Server) -> int:
    """How many requests the upstream has had."""
    with Wire.to(upstream.port) as wire:
        wire.send(b"GET /stats HTTP/1.1\r\nhost: x\r\n\r\n")
        found: dict[str, Any] = wire.read_answer().json
    return int(found["requests"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ftp://a",), "URL: has to begin with http:// or https://"),
        (("http://a", "--compare", "http://me:hunter2@b"), "--compare: must not hold a name or a password"),
        (("http://a", "--rate", "10", "--model", "m"), "--rate is asked of the demo upstream"),
        (("http://a", "--plot", "/no/such/folder/x.png"), "--plot: there is no folder"),
        (("http://a", "--json", "/no/such/folder/x.json"), "--json: there is no folder"),
        (("http://a", "--key", "hunter2"), "--key: must not be written here"),
        (("http://a", "--clients", "0"), "--clients"),
        (("http://a", "--duration", "nan"), "--duration"),
        (("http://a", "--duration", "inf"), "--duration"),
        (("http://a", "--rate", "nan"), "--rate"),
        ((), "Missing"),
    ],
)
def test_what_cannot_be_measured_is_said_before(arguments: tuple[str, ...], says: str) -> None:
    with running("bench", *arguments) as bench:
        code, lines, err = ended(bench)
    assert (code, lines) == (2, [])
    assert says in err
    assert "Traceback" not in err and "hunter2" not in err
