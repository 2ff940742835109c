"""`trioproxy streams top` on a terminal, in front of an admin address that tells what the test wants."""

import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.harness.rows import over, row
from tests.loopback.processes import START_S, running, until
from tests.loopback.scripted_admin import ScriptedAdmin, scripted_admin
from tests.loopback.terminal import CTRL_C, DOWN, END, ESCAPE, Terminal, on_terminal

HOSTILE = '\x1b[2J\x1b]0;mine\x07\x9b31m\r\n\u202e"><script>' + "x" * 10_000


@pytest.fixture
def admin() -> Iterator[ScriptedAdmin]:
    with scripted_admin() as scripted:
        yield scripted


def top(admin: ScriptedAdmin, *more: str) -> tuple[str, ...]:
    return ("streams", "top", *admin.flags, *more)


def table_ids(terminal: Terminal) -> list[str]:
    """The ids in the table, from above."""
    return [line.removeprefix(">").split()[0] for line in terminal.lines[3:] if line[1:].startswith("  req_")]


def selected(terminal: Terminal) -> str:
    """The id of the row that is marked."""
    return terminal.line_with(">  req_").removeprefix(">").split()[0]


def test_streams_come_change_and_go_in_place(admin: ScriptedAdmin) -> None:
    admin.put(row("req_a", age_s=65.0), row("req_b", phase="waiting", upstream=None, first_content_s=None, events=0))
    with on_terminal(*top(admin)) as terminal:
        first = terminal.wait_for_start("req_a")
        assert first.split()[1:5] == ["req_a", "flowing", "1:05", "0.250"]
        assert first.split()[-3:] == ["alice", "openai", "gpt-4o"]
        assert terminal.line_with("req_b").split()[1] == "waiting"
        assert "1 waiting, 1 flowing" in terminal.lines[0]
        admin.change(row("req_b", events=1234, blocked_on="client", blocked_s=3.0), row("req_c", phase="thinking"))
        assert "client 3" in terminal.wait_for("1234")
        terminal.wait_for("req_c")
        admin.change(gone=(over("req_a", "failed", code="upstream_truncated"),))
        assert "upstream_truncated" in terminal.wait_for("req_a  failed, upstream_trunc")  # it was the selected one
        assert terminal.line_with(">  req_a").split()[2] == "failed"
        terminal.wait_until_gone("req_a")
        assert sorted(table_ids(terminal)) == ["req_b", "req_c"]
        assert terminal.screen.is_alternate and not terminal.screen.shows_cursor
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.is_as_before()
        assert terminal.screen.unknown == []


def age_of(terminal: Terminal, stream_id: str) -> float:
    """The age that is shown of a stream, in seconds."""
    found = re.search(r" ([0-9.]+) s ", terminal.line_with(stream_id))
    return float(found[1]) if found else 0.0


def test_ages_go_on_while_nothing_is_heard(admin: ScriptedAdmin) -> None:
    admin.put(row("req_a", age_s=1.0, phase="waiting"))
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("req_a")
        until(lambda: age_of(terminal, "req_a") > 2.5, "an age that goes on")


def test_rows_are_sorted_and_filtered_by_keys(admin: ScriptedAdmin) -> None:
    admin.put(
        row("req_a", age_s=30.0, events=5, model="claude"),
        row("req_b", age_s=20.0, events=500, model="gpt-4o"),
        row("req_c", age_s=10.0, events=50, model="GPT-4o-mini", key="bob"),
    )
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("req_a")
        assert table_ids(terminal) == ["req_a", "req_b", "req_c"]
        terminal.type("3")
        terminal.wait_for("sorted by events")
        assert table_ids(terminal) == ["req_b", "req_c", "req_a"]
        assert selected(terminal) == "req_a"  # it goes with its stream
        terminal.type("3")
        terminal.wait_for("the other way round")
        assert table_ids(terminal) == ["req_a", "req_c", "req_b"]
        terminal.type("sss")
        terminal.wait_for("sorted by model")
        terminal.type("/gpt bo")
        terminal.wait_for("gpt bo_")
        terminal.wait_until_gone("  req_a")
        assert table_ids(terminal) == ["req_c"]
        terminal.type("\r")
        terminal.wait_for("1 of 3 with: gpt bo")
        terminal.type("/\x15nothing\r")
        terminal.wait_for("none of those under way")
        terminal.type(ESCAPE)
        terminal.wait_for("req_b")
        assert len(table_ids(terminal)) == 3


def test_a_stream_is_stopped_only_after_a_yes(admin: ScriptedAdmin) -> None:
    admin.put(row("req_a", age_s=30.0), row("req_b/ü?", age_s=20.0), row("req_c", age_s=10.0))
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("req_a")
        terminal.type("x")
        terminal.wait_for("Stop req_a for everyone")
        terminal.type("n")
        terminal.wait_until_gone("Stop req_a")
        terminal.type(DOWN)
        until(lambda: selected(terminal) == "req_b/ü?", "the second is selected")
        terminal.type("x")
        terminal.wait_for("Stop req_b/ü? for everyone")
        terminal.type("y")
        terminal.wait_for("stopped: req_b/ü?")
        assert admin.stopped == [("req_b/ü?", None)]
        terminal.type(END)
        until(lambda: selected(terminal) == "req_c", "the last is selected")
        terminal.type("x")
        terminal.wait_for("Stop req_c")
        admin.change(gone=(over("req_c"),))
        terminal.wait_for("req_c has ended by itself")
        terminal.type("y")
        terminal.type("1")
        terminal.wait_for("the other way round")
        assert len(admin.stopped) == 1


def test_one_that_cannot_be_stopped_is_told(admin: ScriptedAdmin) -> None:
    admin.put(row("req_a"))
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("req_a")
        admin.rows.clear()
        terminal.type("x")
        terminal.wait_for("Stop req_a")
        terminal.type("y")
        terminal.wait_for("req_a was not stopped: There is no such stream.")


@pytest.mark.parametrize("typed", ["", "x", "/some"])
def test_ctrl_c_always_ends_it_and_the_terminal_is_as_before(admin: ScriptedAdmin, typed: str) -> None:
    admin.put(row("req_a"))
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("req_a")
        terminal.type(typed)
        start = time.monotonic()
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        assert time.monotonic() - start < 2.0
        assert terminal.is_as_before()
        assert not terminal.line_with("Traceback")


def test_ctrl_c_ends_it_also_while_nobody_answers(admin: ScriptedAdmin) -> None:
    admin.is_silent = True
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("asking")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        assert terminal.is_as_before()


def test_ctrl_c_ends_it_also_while_a_stop_gets_no_answer(admin: ScriptedAdmin) -> None:
    admin.put(row("req_a"))
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("req_a")
        admin.is_silent = True
        terminal.type("x")
        terminal.wait_for("Stop req_a")
        terminal.type("y")
        terminal.wait_for("stopping req_a")
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        assert terminal.is_as_before()


def test_a_signal_from_elsewhere_leaves_the_terminal_as_it_was(admin: ScriptedAdmin) -> None:
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("nothing is under way")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 128 + signal.SIGTERM
        assert terminal.is_as_before()


def test_what_would_stop_the_screen_or_leave_it_behind_does_neither(admin: ScriptedAdmin) -> None:
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("nothing is under way")
        assert not terminal.suspends
        terminal.type("\x1a\x13")  # Ctrl-Z, Ctrl-S
        admin.change(row("req_a"))
        terminal.wait_for("req_a")


def test_names_that_clients_gave_tell_the_terminal_nothing(admin: ScriptedAdmin) -> None:
    admin.put(row("req_a", model=HOSTILE, client=HOSTILE), row("req_b", model="[bold]markup[/] :smile:", age_s=1.0))
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("req_b")
        assert "�[2J�]0;mine��31" in terminal.line_with(">  req_a")
        assert terminal.line_with("req_b").endswith("[bold]markup[/] :smile:")
        assert all(len(line) <= 160 for line in terminal.lines)
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.screen.unknown == []


def test_a_lost_connection_is_told_and_goes_on_where_it_was(admin: ScriptedAdmin) -> None:
    admin.put(row("req_a"))
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("req_a")
        admin.change(row("req_b"))
        terminal.wait_for("req_b")
        admin.cut()
        terminal.wait_for("no answer from the admin address")
        terminal.wait_until_gone("no answer from the admin address")
        assert admin.positions == [None, "2"]
        admin.change(row("req_c"))
        terminal.wait_for("req_c")


def test_what_never_could_be_asked_is_told_and_ends_it(admin: ScriptedAdmin) -> None:
    with on_terminal("streams", "top", "--admin", admin.url, "--admin-key", "wrong") as terminal:
        assert terminal.wait() == 1
        assert terminal.line_with("This address needs its key.")
        assert terminal.is_as_before()
    with on_terminal("streams", "top", "--admin", "http://127.0.0.1:1", "--admin-key", "any") as terminal:
        assert terminal.wait() == 1
        assert terminal.line_with("cannot reach the admin address at http://127.0.0.1:1")


def test_a_small_window_shows_what_matters_and_a_large_one_more(admin: ScriptedAdmin) -> None:
    admin.put(*(row(f"req_{number:02}", age_s=99.0 - number) for number in range(50)))
    with on_terminal(*top(admin), columns=60, lines=10) as terminal:
        terminal.wait_for_start("req_03")
        assert table_ids(terminal) == ["req_00", "req_01", "req_02", "req_03"]
        assert "waits for" in terminal.lines[2] and "key" not in terminal.lines[2]
        terminal.type(END)
        terminal.wait_for("req_49")
        assert table_ids(terminal) == ["req_46", "req_47", "req_48", "req_49"]
        terminal.resize(200, 30)
        until(lambda: len(table_ids(terminal)) == 24, "all lines are used")
        assert "key" in terminal.lines[2] and selected(terminal) == "req_49"
        assert terminal.screen.unknown == []


def test_two_thousand_streams_that_all_change_leave_it_quick(admin: ScriptedAdmin) -> None:
    admin.put(*(row(f"req_{number:04}", age_s=number / 10) for number in range(2000)))
    with on_terminal(*top(admin)) as terminal:
        terminal.wait_for_start("2000 flowing")
        slowest_s, frames = 0.0, terminal.screen.frames
        start = time.monotonic()
        for turn in range(1, 9):
            admin.change(*(each | {"events": turn * 1000} for each in list(admin.rows.values())))
            pressed = time.monotonic()
            terminal.type(str(turn % 6 + 1))
            terminal.wait_for(f"{turn * 1000}")
            slowest_s = max(slowest_s, time.monotonic() - pressed)
            time.sleep(max(0.0, start + turn * 0.25 - time.monotonic()))
        rate = (terminal.screen.frames - frames) / (time.monotonic() - start)
        print(f"slowest change on the screen after {slowest_s:.2f} s, {rate:.1f} frames/s")
        assert slowest_s < 2.0


def test_where_nobody_looks_it_is_a_list(admin: ScriptedAdmin) -> None:
    admin.put(row("req_a"), row("req_b", age_s=99.0, model="other"))
    with running(*top(admin, "--sort", "model", "--filter", "req_")) as command:
        assert command.wait(START_S) == 0
    assert [line.split()[0] for line in command.out] == ["id", "req_a", "req_b"]
    with running(*top(admin, "--sort", "size")) as command:
        assert command.wait(START_S) == 2
    assert command.err == ['--sort: there is no "size", expected age, first content, events, rate, waiting, model']
