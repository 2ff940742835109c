"""The keys file: all good or none taken, each problem with its line, and no key in any problem."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.config import Config, Key, hash_of, keys_in, keys_of, load, read_keys_file
from trioproxy.config.keys_file import MAX_FILE_BYTES, MAX_KEYS
from trioproxy.errors import ConfigError

CONFIG = Config.model_validate({"upstream": [{"base_url": "http://a"}]})


def entry(name: str, **keys: str) -> str:
    lines = [f'name = "{name}"', f'hash = "{hash_of(name)}"', *(f"{field} = {value}" for field, value in keys.items())]
    return "\n".join(["[[key]]", *lines, ""])


def problems(text: str | bytes, config: Config = CONFIG) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        keys_in(text if isinstance(text, bytes) else text.encode(), config)
    return [str(problem).removeprefix("keys.toml:") for problem in caught.value.problems]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "trioproxy.toml"
    file.write_text(f'[[upstream]]\nbase_url = "http://a"\n{entry("own")}')
    return load(file, environ={})


def test_keys_are_read_from_the_file_beside_the_configuration(config: Config) -> None:
    config.gate.keys_file.write_text(entry("a", limits="{ rpm = 5 }") + entry("b", upstreams='["a"]'))
    keys = read_keys_file(config)
    assert keys is not None and [key.name for key in keys] == ["a", "b"] and keys[0].limits.rpm == 5
    together = keys_of(config, keys)
    assert together is not None and [key.name for key in together] == ["own", "a", "b"]


def test_there_need_be_no_file_and_an_empty_one_has_no_keys(config: Config) -> None:
    assert read_keys_file(config) is None
    config.gate.keys_file.touch()
    assert read_keys_file(config) == ()


def test_what_cannot_be_read_is_a_problem(config: Config) -> None:
    config.gate.keys_file.mkdir()
    with pytest.raises(ConfigError, match=r"keys\.toml:file: cannot be read"):
        read_keys_file(config)
    config.gate.keys_file.rmdir()
    config.gate.keys_file.symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"keys\.toml:file: cannot be read"):
        read_keys_file(config)
    config.gate.keys_file.unlink()
    config.gate.keys_file.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match=r"keys\.toml:file: is too large"):
        read_keys_file(config)


def test_nobody_asked_for_keys_only_if_there_is_neither_key_nor_file_nor_a_file_that_was_named() -> None:
    named = Config.model_validate({"upstream": [{"base_url": "http://a"}], "gate": {"keys_file": "other.toml"}})
    [key] = keys_in(entry("a").encode(), CONFIG)
    own = Config.model_validate({"upstream": [{"base_url": "http://a"}], "key": [key.model_dump()]})
    assert keys_of(CONFIG, None) is None
    assert keys_of(CONFIG, ()) == keys_of(named, None) == ()
    assert keys_of(CONFIG, (key,)) == keys_of(own, None) == (key,)


def test_every_problem_has_the_line_of_its_key() -> None:
    text = (
        "# [[key]]\n" + entry("a") + 'x = """\n[[key]]\n"""\n\n  [[ "key" ]] # b\nname = 5\n' + entry("c", expires="1")
    )
    fields, letters = "name, hash, models, upstreams, expires, revoked, limits", "letters, digits, dots, - and _"
    times = 'a date or a time, such as 2027-01-31 or "2027-01-31T18:00:00Z" (without a zone it is UTC)'
    assert problems(text) == [
        f'line 2: key[0].x: is not a known key, expected one of {fields}, got "x"',
        f"line 9: key[1].name: is not a key's name, expected up to 64 {letters}, the first a letter or digit, got 5",
        "line 9: key[1].hash: is missing, expected a value, got nothing",
        f"line 11: key[2].expires: is not a time, expected {times}, got 1",
    ]


def test_the_line_is_right_behind_all_kinds_of_strings() -> None:
    strings = (
        "'#'",
        "'''\n''a'''''",
        "'''\n[[key]]\n'''",
        "1 # '''",
        "'' # [[key]]",
        '"\\"[[key]]"',
        '"""\\\n[[key]]\\"""\n"""""',
        '"#\'"',
    )
    for string in strings:
        text = f"[[key]]\nname = {string}\n[[key]]\nname = 5 # '''\n"
        line = text.count("\n") - 1
        assert any(problem.startswith(f"line {line}: key[1].name") for problem in problems(text)), string


def test_keys_that_are_written_as_one_list_have_its_line() -> None:
    assert all(problem.startswith("line 2: key[") for problem in problems("\nkey = [{ name = 1 }, { name = 2 }]\n"))


def test_a_wrong_syntax_has_tomls_own_place() -> None:
    assert problems(entry("a") + "[[key]\n") == [
        "line 4, column 6: is not TOML, expected a TOML file, got Expected ']]' at the end of an array declaration"
    ]
    assert problems(entry("a").encode() + b"\xff")[0].startswith("line 4: is not text")


def test_nothing_but_keys_stands_in_the_file() -> None:
    only = "expected [[key]] tables, and nothing else, got"
    assert problems(entry("a") + "\n[gate]\nallow_open = true\n") == [
        f"line 5: gate: is not known here, {only} another name"
    ]
    assert problems("key = 5") == [f"key: is not a list, {only} a whole number (not shown)"]
    assert "is not a table" in problems("key = [5]")[0] and "is not a list" in problems("[key]\nname = 'a'\n")[0]


def test_names_and_hashes_are_ones_own_also_against_the_configurations(config: Config) -> None:
    said = [one.partition("keys.toml:")[2] for one in problems(entry("a") + entry("own") + entry("a"), config)]
    own = "of its own (key[0] of the configuration has this one)"
    assert said == [
        f'line 4: key[1].name: is taken, expected a name {own}, got "own"',
        f"line 4: key[1].hash: is taken, expected a hash {own}, got the same (not shown)",
        'line 7: key[2].name: is taken, expected a name of its own (key[0] has this one), got "a"',
        "line 7: key[2].hash: is taken, expected a hash of its own (key[0] has this one), got the same (not shown)",
    ]


def test_upstreams_are_known_and_limits_are_counted_by_all_workers() -> None:
    two = Config.model_validate({"upstream": [{"base_url": "http://a"}], "server": {"workers": 2}})
    redis = 'state.url = "redis://HOST:PORT", or server.workers = 1, got "memory:" and server.workers = 2'
    assert problems(entry("k", upstreams='["b"]', limits="{ rpm = 1 }"), two) == [
        'line 1: key[0].upstreams[0]: is not a known upstream, expected one of a, got "b"',
        f"line 1: key[0].limits: needs what all workers know, expected {redis}",
    ]
    assert len(keys_in(entry("k", limits="{}").encode(), two)) == 1


def test_there_are_not_more_keys_than_the_bound_and_not_more_problems_than_can_be_read() -> None:
    assert problems("key = [" + "{}," * (MAX_KEYS + 1) + "]") == [
        f"key: has too many keys, expected at most {MAX_KEYS}, got {MAX_KEYS + 1}"
    ]
    assert len(problems("[[key]]\n" * 500)) == 100


@pytest.mark.parametrize("where", ["name", "hash", "models", "upstreams", "expires", "limits", "secret"])
def test_a_secret_in_a_wrong_place_is_never_told(where: str) -> None:
    for secret in ("tpk_" + "Ab-_" * 10 + "xyz", hash_of("x"), hash_of("x")[7:]):
        for value in (
            f'"{secret}"',
            f'["{secret}"]',
            f'{{ rpm = "{secret}", {secret.partition(":")[2] or secret} = 1 }}',
        ):
            text = "[[key]]\n" + "".join(f'{field} = "a"\n' for field in ("name", "hash") if field != where)
            if (where, value) == ("hash", f'"{hash_of("x")}"'):
                continue  # this one is right
            assert not any(secret[12:] in problem for problem in problems(text + f"{where} = {value}\n"))


def good_or_refused(content: bytes) -> bool:
    """Whether it is one of the two, and what is said of it can be shown."""
    try:
        return all(isinstance(key, Key) for key in keys_in(content, CONFIG))
    except ConfigError as error:
        return bool(error.problems) and all(str(problem).isprintable() for problem in error.problems)


@given(st.binary(max_size=100))
def test_no_bytes_break_the_reading(content: bytes) -> None:
    assert good_or_refused(content)


_LINES = st.sampled_from(
    [
        "[[key]]",
        "[key.limits]",
        'name = "a"',
        f'hash = "{hash_of("a")}"',
        "rpm = 5",
        'x = """',
        '"""',
        "'''",
        "[[",
        "]]",
        "key = []",
        "models = ['a'",
        "]",
        "expires = 2027-01-31",
        "usd_per_day = 1e400",
        "[a]",
        "# [[key]]",
        "name.x = 1",
    ]
)


@given(st.lists(_LINES | st.text("[]key=\"'#{}.\\ tpk_0", max_size=10), max_size=12))
def test_no_lines_break_the_reading(lines: list[str]) -> None:
    assert good_or_refused("\n".join(lines).encode())
