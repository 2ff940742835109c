"""What keys change of what `streams top` shows."""

from typing import Any

from tests.harness.rows import over, row
from trioproxy.cli.streams_text import ORDERS
from trioproxy.cli.top_view import Leave, Stop, View


def view_of(number: int, page: int = 4) -> View:
    """A view of so many streams, the oldest of them `req_00`."""
    view = View(ORDERS[0])
    view.page = page
    view.update(streams(number))
    return view


def streams(number: int) -> list[dict[str, Any]]:
    return [row(f"req_{each:02}", age_s=100.0 - each) for each in range(number)]


def press(view: View, *keys: str) -> list[Stop | Leave | None]:
    return [view.press(key) for key in keys]


def visible(view: View) -> list[str]:
    return [each["id"] for each in view.visible]


def test_the_selection_moves_and_the_page_with_it() -> None:
    view = view_of(10)
    press(view, "down", "j", "down")
    assert (view.selected, visible(view)[0]) == ("req_03", "req_00")
    press(view, "down")
    assert visible(view) == ["req_01", "req_02", "req_03", "req_04"]
    press(view, "end")
    assert visible(view) == ["req_06", "req_07", "req_08", "req_09"]
    press(view, "page up", "up")
    assert (view.selected, visible(view)[0]) == ("req_04", "req_04")
    press(view, "home", "up", "k")
    assert (view.selected, visible(view)[0]) == ("req_00", "req_00")
    press(view, "page down", "page down", "page down")
    assert view.selected == "req_09"


def test_the_selection_stays_with_its_stream_and_then_in_its_place() -> None:
    view = view_of(10)
    press(view, "down", "down")
    view.update([row("req_new", age_s=500.0), *streams(10)])
    assert view.selected == "req_02"
    view.update([each for each in streams(10) if each["id"] not in ("req_02", "req_09")])
    assert view.selected == "req_04"  # which is now where that one was, in the fourth place
    view.update([])
    assert visible(view) == []
    assert press(view, "x", "y", "down") == [None, None, None]


def test_no_page_is_half_empty_while_there_are_rows() -> None:
    view = view_of(10)
    press(view, "end")
    view.update(streams(5))
    assert visible(view) == ["req_01", "req_02", "req_03", "req_04"]
    view.page = 9
    view.update(streams(5))
    assert len(visible(view)) == 5


def test_only_a_yes_stops_and_only_what_was_asked_for() -> None:
    view = view_of(3)
    assert press(view, "x", "n") == [None, None]
    assert press(view, "x", "enter") == [None, None]
    assert press(view, "down", "x") == [None, None]
    view.update([row("req_new", age_s=500.0), *streams(3)])
    assert press(view, "y") == [Stop("req_01")]
    assert press(view, "y") == [None]


def test_q_leaves_but_not_from_a_question_nor_out_of_a_filter() -> None:
    view = view_of(3)
    assert press(view, "x", "q") == [None, None]
    assert press(view, "/", "q", "escape") == [None, None, None]
    assert press(view, "q") == [Leave()]


def test_what_is_over_is_not_stopped() -> None:
    view = view_of(0)
    view.update([over("req_a")])
    press(view, "x")
    assert view.asks is None
    view.update([row("req_a")])
    press(view, "x")
    view.update([over("req_a")])
    assert view.asks is None and "by itself" in view.note
    assert press(view, "y") == [None]


def test_a_filter_is_typed_and_can_be_taken_back() -> None:
    view = view_of(12)
    press(view, "/", "0", "5", "6", "backspace")
    view.update(streams(12))
    assert visible(view) == ["req_05"] and view.total == 12
    press(view, "enter", "/", "clear", "1", "1", "escape")
    assert view.words == "05"
    press(view, "escape")
    assert view.words == ""


def test_a_digit_sorts_and_the_same_again_turns_it_round() -> None:
    view = view_of(3)
    press(view, "3")
    assert (view.order.name, view.is_reversed) == ("events", False)
    press(view, "3")
    assert view.is_reversed
    press(view, "2")
    assert (view.order.name, view.is_reversed) == ("first content", False)
    press(view, "s", "s", "s", "s", "s", "r")
    assert (view.order.name, view.is_reversed) == ("age", True)
