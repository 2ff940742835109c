"""A keys file's text after a change of one key: all else is as it was, and it says what it should."""

import tomllib

import pytest

from trioproxy.cli.keys_text import NotChanged, inline, listed, with_hash, with_key, with_more

A, B, C = (f"sha256:{64 * letter}" for letter in "abc")
TWO = f"""# ours\r
[[key]]   # the first\r
name = "a"\r
  hash   = '{A}'   # since May\r
\r
# of the second\r
[[key]]\r
name = "b"\r
hash = "{B}"\r
[key.limits]\r
rpm = 2\r
"""


@pytest.mark.parametrize(
    ("before", "gap"),
    [
        ("", ""),
        ("# ours\n", "\n"),
        ("# ours", "\n\n"),
        (f'[[key]]\nname = "a"\nhash = "{A}"\n\n[key.limits]\nrpm = 2', "\n\n"),
    ],
)
def test_a_key_is_added_behind_all_others(before: str, gap: str) -> None:
    table = {"name": '"c"', "models": listed(("x", 'y"\n*')), "limits": inline({"rpm": "1", "usd_per_day": "0.10"})}
    after = with_key(before, table)
    added = '[[key]]\nname = "c"\nmodels = ["x", "y\\"\\u000a*"]\nlimits = { rpm = 1, usd_per_day = 0.10 }\n'
    assert after == before + gap + added
    *_, last = tomllib.loads(after)["key"]
    assert last == {"name": "c", "models": ["x", 'y"\n*'], "limits": {"rpm": 1, "usd_per_day": 0.1}}


def test_lines_end_as_the_others_do() -> None:
    assert with_key(TWO, {"name": '"c"'}) == TWO + '\r\n[[key]]\r\nname = "c"\r\n'


def test_only_the_hash_changes() -> None:
    assert with_hash(TWO, A, C) == TWO.replace(A, C)
    assert with_hash(TWO, B, C) == TWO.replace(B, C)


def test_more_is_said_behind_the_line_of_the_hash() -> None:
    revoked = {"revoked": "2026-11-21T10:00:00Z"}
    line = f"  hash   = '{A}'   # since May\r\n"
    assert with_more(TWO, A, revoked) == TWO.replace(line, f"{line}  revoked = 2026-11-21T10:00:00Z\r\n")
    line = f'hash = "{B}"\r\n'
    assert with_more(TWO, B, revoked) == TWO.replace(line, f"{line}revoked = 2026-11-21T10:00:00Z\r\n")
    at_the_end = f'[[key]]\nhash = "{A}"'
    assert with_more(at_the_end, A, revoked) == f"{at_the_end}\nrevoked = 2026-11-21T10:00:00Z\n"


@pytest.mark.parametrize(
    "text",
    [
        f'key = [{{ name = "a", hash = "{A}" }}]\n',
        f'[[key]]\n"hash" = "{A}"\n',
        f"[[key]]\nhash = '''{A}'''\n",
        f'[[key]]\nhash = """\n{A}"""\n',
        f'[[key]]\nhash = "{A}"\nmodels = ["""\nhash = "{A}"\n"""]\n',
        f'[[key]]\nhash = "{A[:-1]}\\u0061"\n',
    ],
)
def test_a_hash_that_is_not_on_a_line_of_its_own_is_left_alone(text: str) -> None:
    with pytest.raises(NotChanged, match="by hand"):
        with_hash(text, A, C)
    with pytest.raises(NotChanged, match="by hand"):
        with_more(text, A, {"revoked": "2026-11-21"})


def test_what_looks_like_the_line_of_a_hash_and_is_none_is_left_alone() -> None:
    text = f'[[key]]\n"hash" = "{A}"\nmodels = ["""\nhash = "{A}"\n"""]\n'
    with pytest.raises(NotChanged, match="form cannot be kept"):
        with_hash(text, A, C)
    with pytest.raises(NotChanged, match="form cannot be kept"):
        with_more(text, A, {"revoked": "2026-11-21"})


@pytest.mark.parametrize("text", [f'key = [{{ name = "a", hash = "{A}" }}]\n', "key = []\n"])
def test_a_list_in_brackets_cannot_be_added_to(text: str) -> None:
    with pytest.raises(NotChanged, match="form cannot be kept"):
        with_key(text, {"name": '"c"'})


def test_what_was_said_already_cannot_be_said_again() -> None:
    with pytest.raises(NotChanged, match="form cannot be kept"):
        with_more(f'[[key]]\nhash = "{A}"\nrevoked = 2026-01-01\n', A, {"revoked": "2026-11-21"})
