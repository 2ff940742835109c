"""What a glob covers, compared with the names that fit."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.config.globs import covers

GLOBS = st.text("ab*?", max_size=6)
NAMES = ["".join(name) for length in range(6) for name in itertools.product("abz", repeat=length)]


def fits(glob: str, name: str) -> bool:
    return re.fullmatch("".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in glob), name) is not None


@pytest.mark.parametrize(
    ("glob", "other"),
    [
        ("*", "*"),
        ("*", ""),
        ("gpt-*", "gpt-4*"),
        ("gpt-*", "gpt-4o"),
        ("gpt-*", "gpt-"),
        ("*-mini", "gpt-*-mini"),
        ("?*", "*?"),
        ("*a*b*", "a*a*b"),
        ("o?", "o?"),
        ("a.c", "a.c"),
    ],
)
def test_a_glob_covers_what_only_fits_names_that_fit_it(glob: str, other: str) -> None:
    assert covers(glob, other)


@pytest.mark.parametrize(
    ("glob", "other"),
    [("gpt-4*", "gpt-*"), ("o?", "o*"), ("o?", "o"), ("?", "*"), ("a", "?"), ("a.c", "abc"), ("a", "A"), ("", "a")],
)
def test_a_glob_does_not_cover_what_fits_another_name(glob: str, other: str) -> None:
    assert not covers(glob, other)


@given(GLOBS, st.text("ab", max_size=6))
def test_a_plain_name_is_covered_if_it_fits(glob: str, name: str) -> None:
    assert covers(glob, name) == fits(glob, name)


@given(GLOBS, GLOBS)
def test_no_name_fits_what_is_covered_and_not_what_covers_it(glob: str, other: str) -> None:
    if covers(glob, other):
        assert all(fits(glob, name) for name in NAMES if fits(other, name))


def test_a_long_glob_is_judged_soon() -> None:
    assert not covers("*a" * 100 + "b", "a" * 200)
