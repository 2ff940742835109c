"""Figures add up, and go from process to process."""

import json

from trioproxy.bench.figures import MAX_ERRORS, Figures
from trioproxy.bench.talk import Talk


def talk(**more: object) -> Talk:
    """A stream of 11 events in 2 s, the first after 1 s."""
    made = Talk(started=10.0, ended=12.0, first_content=11.0, last_content=12.0, contents=11)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_what_came_whole_is_counted_with_its_times() -> None:
    figures = Figures()
    figures.take(talk())
    assert (figures.finished, figures.failed) == (1, 0)
    for histogram, seconds in ((figures.first_content, 1.0), (figures.total, 2.0), (figures.rate, 0.1)):
        assert histogram.count == 1 and histogram.largest == seconds


def test_what_failed_is_counted_by_its_name_and_has_no_times() -> None:
    figures = Figures()
    for error in ("a", "a", "b"):
        figures.take(talk(error=error))
    assert figures.errors == {"a": 2, "b": 1}
    assert (figures.failed, figures.finished, figures.total.count, figures.first_content.count) == (3, 0, 0, 0)


def test_a_service_that_makes_up_names_does_not_fill_the_report() -> None:
    figures = Figures()
    for number in range(1000):
        figures.take(talk(error=f"HTTP 500 {number}"))
    assert len(figures.errors) == MAX_ERRORS + 1
    assert figures.failed == 1000


def test_figures_of_several_processes_add_up() -> None:
    one, two = (Figures(finished=2, under_way=1, tokens=5, seconds=9.0, busy=[0.5]) for _ in range(2))
    one.take(talk())
    two.take(talk(error="a"))
    two.gap.note(0.5)
    one.add(Figures.loaded(json.loads(json.dumps(two.dumped()))))
    assert (one.finished, one.under_way, one.tokens, one.failed) == (5, 2, 10, 1)
    assert (one.seconds, one.busy, one.errors) == (9.0, [0.5, 0.5], {"a": 1})
    assert (one.gap.count, one.total.count) == (1, 1)
