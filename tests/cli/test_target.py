"""Where `bench` and `chat` ask, and how they show what the other side says."""

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.cli.target import key_or_fail, plain, url_or_fail


@given(st.text())
def test_what_is_shown_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = plain(text)
    assert all(character.isprintable() or character in "\n\t" or ord(character) >= 0xA0 for character in shown)
    shown.encode()  # no half of a character either


def test_text_in_any_script_is_shown_as_it_is() -> None:
    text = "grüße, 水, \N{GRINNING FACE}\N{ZERO WIDTH JOINER}, \N{HEBREW LETTER ALEF}\n\tif x:"
    assert plain(text) == text


def test_a_key_comes_from_where_the_reference_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "tpk_secret")
    assert key_or_fail("env:MY_KEY") == "tpk_secret"
    assert key_or_fail(None) is None


def test_what_leads_nowhere_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        url_or_fail("ftp://a", "--base-url")
    with pytest.raises(typer.Exit):
        key_or_fail("tpk_secret")
    said = capsys.readouterr().err
    assert "--base-url: " in said and "--key: " in said and "tpk_secret" not in said
