"""The log never waits and never lies about what it lost."""

import json
import os
import time
from pathlib import Path

import pytest
import structlog

from trioproxy.telemetry import access_log
from trioproxy.telemetry.access_log import AccessLog, send_structlog_to
from trioproxy.telemetry.exchange import Exchange


def exchange(number: int = 1) -> Exchange:
    return Exchange(request_id=f"req_{number}", method="POST", path="/v1/x", accepted=10.0)


def test_an_exchange_is_one_json_line(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = AccessLog(str(file))
    log.start()
    one = exchange()
    one.head_at, one.status = 10.5, 200
    log.exchange(one.close(12.0))
    log.stop()
    (line,) = [json.loads(text) for text in file.read_text().splitlines()]
    assert (line["event"], line["request_id"], line["head_ms"], line["total_ms"]) == (
        "exchange",
        "req_1",
        500.0,
        2000.0,
    )
    assert line["time"].endswith("+00:00") and "first_content_ms" not in line


def test_what_a_client_chose_cannot_break_the_line(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = AccessLog(str(file))
    log.start()
    odd = exchange()
    odd.model, odd.path = 'a"\n{"event":"forged"}\u2028' + "x" * 1000, "/v1/" + "y" * 1000
    log.exchange(odd.close(12.0))
    log.stop()
    (line,) = file.read_text().splitlines()
    assert len(line) < 1000 and json.loads(line)["model"].startswith('a"\n')


def test_a_full_disk_costs_lines_that_are_counted() -> None:
    log = AccessLog("/dev/full")
    log.start()
    for number in range(10):
        log.exchange(exchange(number).close(12.0))
    log.stop()
    assert log.dropped >= 10


def test_a_blocked_pipe_costs_lines_and_never_a_moment(tmp_path: Path, monkeypatch: object) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(pipe))
    log.start()
    lines = access_log.MAX_WAITING_LINES + 5000
    start = time.monotonic()
    for number in range(lines):
        log.exchange(exchange(number).close(12.0))
    assert time.monotonic() - start < 5
    assert log.dropped > 0
    start = time.monotonic()
    log.stop(timeout_s=0.2)
    assert time.monotonic() - start < 2
    os.close(reader)  # the writer's pipe breaks, so that its thread ends


def test_the_process_s_own_messages_go_the_same_way(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = AccessLog(str(file))
    send_structlog_to(log)
    log.start()
    try:
        raise ValueError("why")
    except ValueError as error:
        structlog.get_logger().error("it broke", exc_info=error, what=1)
    log.stop()
    (line,) = [json.loads(text) for text in file.read_text().splitlines()]
    assert (line["event"], line["level"], line["what"]) == ("it broke", "error", 1)
    assert "ValueError: why" in line["exception"]


def test_off_writes_nothing(capfd: object) -> None:
    log = AccessLog("off")
    log.start()
    log.exchange(exchange().close(12.0))
    log.stop()
    assert log.dropped == 0


def test_a_file_that_was_moved_away_is_opened_anew_and_nothing_is_lost(tmp_path: Path) -> None:
    file, moved = tmp_path / "log", tmp_path / "log.1"
    log = AccessLog(str(file))
    log.start()
    for number in range(100):
        log.exchange(exchange(number).close(12.0))
        if number == 50:
            file.rename(moved)
            log.reopen()
    log.stop()
    told = [json.loads(line)["request_id"] for one in (moved, file) for line in one.read_text().splitlines()]
    assert told == [f"req_{number}" for number in range(100)]
    assert log.dropped == 0


def test_a_file_that_cannot_be_opened_anew_is_written_on(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    log = AccessLog(str(folder / "log"))
    log.start()
    folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        log.reopen()
    log.exchange(exchange().close(12.0))
    log.stop()
    assert "req_1" in (tmp_path / "moved/log").read_text()
