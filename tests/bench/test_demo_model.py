"""A model's name chooses a behaviour."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.bench.demo_model import WORDS, Behaviour, parse_model


def example(word: str) -> str:
    return word.replace("NNN", "503").replace("N", "3")


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_the_table_changes_the_behaviour(word: str) -> None:
    assert parse_model(f"demo-{example(word)}") != Behaviour()


@pytest.mark.parametrize("word", WORDS)
def test_every_word_means_something_of_its_own(word: str) -> None:
    others = [parse_model(example(other)) for other in WORDS if other != word]
    assert parse_model(example(word)) not in others


@pytest.mark.parametrize(
    "name",
    ["", "-", "gpt-4o-mini", "gpt-3.5-turbo", "claude-3-5-sonnet-20241022", "text-embedding-3-small", "tts-1", "o3"],
)
def test_real_names_stream_naturally(name: str) -> None:
    assert parse_model(name) == Behaviour()


@pytest.mark.parametrize(
    "part", ["n", "nx", "n3x", "N3", "xn3", "mute5", "e42", "e600", "e99", "e0503", "n12345678", "n³", "eNNN", "nN"]
)
def test_a_part_that_is_not_wholly_a_word_is_ignored(part: str) -> None:
    assert parse_model(part) == Behaviour()


def test_words_add_up_and_the_later_of_two_wins() -> None:
    assert parse_model("demo-n200-i5-x30-n7") == Behaviour(events=7, gap_ms=5, close_after=30)


def test_numbers_are_milliseconds_and_become_seconds() -> None:
    behaviour = parse_model("t1500-i20")
    assert (behaviour.first_s(), behaviour.gap_s(1)) == (1.5, 0.02)


@pytest.mark.parametrize("percent", [1, 5, 7, 33, 50, 99, 100])
def test_of_any_hundred_requests_so_many_are_late_evenly_spaced(percent: int) -> None:
    asked = parse_model(f"late{percent}-t20")
    lates = [asked.of_request(number).is_late for number in range(300)]
    assert {sum(lates[at : at + 100]) for at in range(200)} == {percent}
    at = [number for number, is_late in enumerate(lates) if is_late]
    assert {after - before for before, after in itertools.pairwise(at)} <= {100 // percent, 100 // percent + 1}


def test_a_late_request_begins_two_seconds_later_than_its_name_says() -> None:
    asked = parse_model("late5-t20")
    assert [asked.of_request(number).first_s() for number in (0, 18, 19, 20)] == [0.02, 0.02, 2.02, 0.02]


def test_the_natural_pace_is_the_same_each_time_and_within_its_bounds() -> None:
    gaps = [Behaviour().gap_s(index) for index in range(1, 500)]
    assert gaps == [Behaviour().gap_s(index) for index in range(1, 500)]
    assert 0.025 <= min(gaps) < 0.03 and 0.055 < max(gaps) <= 0.06
    assert len(set(gaps)) > 20


def test_a_flood_has_no_gaps_and_a_big_event_is_one() -> None:
    assert parse_model("flood").gap_s(1) == 0
    assert [len(parse_model("big").padding(index)) for index in (0, 1)] == [1_000_000, 0]


@given(st.text())
def test_no_name_is_refused(name: str) -> None:
    parse_model(name)
