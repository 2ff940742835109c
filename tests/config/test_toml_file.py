"""Reading a TOML file: its table, or the one problem that it has, with its place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.config.toml_file import content_of, table_of
from trioproxy.errors import Problem

PATH = Path("a.toml")


def told(content: bytes) -> str:
    found = table_of(PATH, content)
    assert isinstance(found, Problem)
    return str(found)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"a = 1")
    assert content_of(path, 5) == b"a = 1"
    assert str(content_of(path, 4)).endswith(":file: is too large, expected a TOML file, got more than 4 bytes")
    assert "cannot be read" in str(content_of(tmp_path, 5)) and "cannot be read" in str(content_of(tmp_path / "no", 5))
    assert "is not a path" in str(content_of(tmp_path / "a\0b", 5))


def test_a_table_is_read_also_behind_a_byte_order_mark() -> None:
    assert table_of(PATH, b"\xef\xbb\xbfa = 1\r\n") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"a = 1\nb =\n", "line 2, column 4"),
        (b"a = 1\n\n[x", "line 3"),
        (b"a = 1\n\xff", "line 2"),
        (b"a = " + b"[" * 5000, "file"),
    ],
)
def test_a_problem_has_its_place(content: bytes, place: str) -> None:
    assert told(content).startswith(f"a.toml:{place}: is ")


def test_a_key_that_stands_in_an_error_of_syntax_is_not_said() -> None:
    assert "secret" not in told(b"[tpk_secret]\n[tpk_secret]\n")


@given(st.binary(max_size=60) | st.text("[]key=\"'#\n \\tpk_01-:.{}", max_size=60).map(str.encode))
def test_no_content_breaks_the_reading(content: bytes) -> None:
    assert isinstance(table_of(PATH, content), (dict, Problem))
