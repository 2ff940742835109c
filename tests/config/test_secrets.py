"""References to secrets: where they lead, what they refuse, and that no value is ever printed."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trioproxy.config import Config, Secret, Wrong, load, resolve, show
from trioproxy.config.secrets import MAX_SECRET_BYTES, quoted, shortened
from trioproxy.errors import ConfigError

URL = "https://api.openai.com/v1"
UPSTREAM = f'[[upstream]]\nbase_url = "{URL}"\n'
MARK = "zQ7kzQ7k"
"""In the middle of every random secret: even a part of one is found, and no ordinary message is taken for one."""
_VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
SECRETS = st.tuples(_VISIBLE, _VISIBLE).map(MARK.join).filter(lambda text: not text.startswith(("env:", "file:")))


def refusal(reference: str, directory: Path = Path("."), blanks: bool = False, **environ: str) -> str:
    with pytest.raises(Wrong) as caught:
        resolve(reference, environ, directory, blanks=blanks)
    return str(caught.value)


def test_a_variable_holds_the_secret() -> None:
    secret = resolve("env:KEY_1", {"KEY_1": "sk-1"}, Path("."))
    assert secret.get_secret_value() == "sk-1" and str(secret) == "env:KEY_1"


@pytest.mark.parametrize("content", ["sk-1", "sk-1\n", "sk-1\r\n"])
def test_a_file_holds_the_secret_and_its_trailing_newline_is_dropped(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_bytes(content.encode())
    assert resolve("file:key", {}, tmp_path).get_secret_value() == "sk-1"
    assert resolve(f"file:{tmp_path / 'key'}", {}, Path("/")).get_secret_value() == "sk-1"


def test_a_variable_that_is_unset_or_empty_is_refused() -> None:
    assert refusal("env:KEY") == (
        "names a variable that is not set, expected the secret in the environment as KEY, got nothing"
    )
    assert "names a variable that is empty" in refusal("env:KEY", KEY="")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a\nb", "has more than one line"),
        (b"a\n\n", "has more than one line"),
        (b"a\rb", "has more than one line"),
        (b"x" * (MAX_SECRET_BYTES + 1), "is too large"),
        (b"a b", "leads to an unusable secret"),
        (b"\xff\xfe", "leads to an unusable secret"),
        (b"a\0", "leads to an unusable secret"),
    ],
)
def test_a_file_with_anything_but_one_line_of_visible_ascii_is_refused(
    tmp_path: Path, content: bytes, what: str
) -> None:
    (tmp_path / "key").write_bytes(content)
    assert what in refusal("file:key", tmp_path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "got No such file or directory" in refusal("file:none", tmp_path)
    assert "got Is a directory" in refusal("file:.", tmp_path)
    assert "names no file" in refusal("file:", tmp_path)
    assert "is not a path" in refusal("file:a\0b", tmp_path)
    assert "cannot be read" in refusal("file:" + "x" * 5000, tmp_path)


@pytest.mark.parametrize("value", ["sk é", "sk 1", "sk\n", "sk\0", "\x7f"])
def test_a_key_is_visible_ascii(value: str) -> None:
    message = refusal("env:KEY", KEY=value)
    assert "visible ASCII" in message and value not in message


def test_a_headers_secret_may_hold_blanks_inside_only() -> None:
    assert resolve("env:A", {"A": "Bearer sk-1"}, Path("."), blanks=True).get_secret_value() == "Bearer sk-1"
    for value in (" a", "a ", "a\nb", "ä"):
        assert "unusable" in refusal("env:A", blanks=True, A=value)


@pytest.mark.parametrize("reference", ["", "sk-abcdef123456", "ENV:KEY", "$KEY", "${KEY}", "https://a"])
def test_what_is_not_a_reference_is_refused_without_echo(reference: str) -> None:
    message = refusal(reference)
    assert "expected env:NAME or file:PATH" in message
    assert not reference or reference not in message


def test_a_secret_behind_env_instead_of_a_name_is_not_echoed() -> None:
    assert "sk-abcdef123456" not in refusal("env:sk-abcdef123456")


def test_a_secret_is_never_printed_and_compares_by_value() -> None:
    secret = Secret("hunter2", "env:A")
    assert "hunter2" not in f"{secret} {secret!r} {secret!s} {[secret]}"
    assert secret == Secret("hunter2", "env:A") != Secret("hunter3", "env:A")
    assert len({secret, Secret("hunter2", "env:A")}) == 1
    assert not hasattr(secret, "__dict__")


@given(st.text())
def test_quoted_text_is_one_printable_line(text: str) -> None:
    assert quoted(text).isprintable() and len(shortened(text)) < 900


def everything_printed(config: Config) -> str:
    return "\n".join([repr(config), str(config), show(config), repr(config.model_dump()), repr(config.upstream[0])])


@given(SECRETS)
def test_a_secret_that_is_in_use_is_in_no_output(secret: str) -> None:
    password = "".join(character for character in secret if character.isalnum())
    headers = {"x-gateway": "env:HEADER", "Authorization": secret}
    flags = {"upstream.base_url": URL, "upstream.api_key": "env:KEY", "upstream.headers": headers}
    flags["upstream.proxy"] = f"http://me:{password}@proxy.example:3128"
    config = load(flags=flags, environ={"KEY": secret, "HEADER": secret}, directory=Path("/nonexistent"))
    assert [key.get_secret_value() for key in config.upstream[0].api_key] == [secret]
    assert config.upstream[0].headers["x-gateway"].get_secret_value() == secret
    assert MARK not in everything_printed(config)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SECRETS)
def test_a_secret_in_a_wrong_configuration_is_in_no_error(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "trioproxy.toml"
    lines = ["[[upstream]]", f"api_key = {quoted(secret)}", f"base_url = {quoted('https://u:' + secret + '@host')}"]
    lines += [f"proxy = {quoted('http://u:' + secret + '@host')}", f"extra = {quoted(secret)}"]
    lines += [f"headers = {{ a = {quoted(secret + ' ')}, b = [{quoted(secret)}], c = 'env:BLANK', d = 'file:key' }}"]
    lines += ["[[upstream]]", f"api_key = [{quoted(secret)}]", f"base_url = {quoted(secret)}", "proxy = 5"]
    file.write_text("\n".join(lines), "utf-8")
    (tmp_path / "key").write_text(secret + "\nb", "utf-8")
    environ = {"BLANK": secret + "\n", "TRIOPROXY_UNKNOWN": secret}
    with pytest.raises(ConfigError) as caught:
        load(file, environ=environ)
    assert len(caught.value.problems) >= 11  # 12 if the secret does not happen to make the first URL a good one
    assert MARK not in str(caught.value) and MARK not in repr(caught.value.problems)
    # A traceback would print what led to the error.
    assert caught.value.__context__ is None and caught.value.__cause__ is None


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "trioproxy.toml"
    (tmp_path / "key").write_text("sk-1\n")
    file.write_text(UPSTREAM + 'api_key = "file:key"\n[telemetry]\naccess_log = "access.log"\n')
    config = load(file, environ={}, directory=Path("/nonexistent"))
    assert [key.get_secret_value() for key in config.upstream[0].api_key] == ["sk-1"]
    assert config.telemetry.access_log == str(tmp_path / "access.log")


def test_what_is_shown_is_toml_with_every_secret_masked(tmp_path: Path) -> None:
    file = tmp_path / "trioproxy.toml"
    file.write_text(
        UPSTREAM
        + 'api_key = "env:KEY"\nproxy = "http://me:pa55@p:1"\n'
        + 'headers = { "Anthropic-Version" = "2023-06-01", "X-Api-Key" = "literal1", "X-B" = "env:B" }\n'
    )
    shown = show(load(file, environ={"KEY": "sk-1", "B": "b-1"}))
    assert tomllib.loads(shown)["upstream"] == [
        {
            "base_url": URL,
            "name": "api.openai.com",
            "api_key": "env:KEY (set)",
            "headers": {"Anthropic-Version": "2023-06-01", "X-Api-Key": "***", "X-B": "env:B (set)"},
            "dialect": "openai",
            "max_waiting": 100,
            "health_interval_s": 10.0,
            "streams": True,
            "usage": "never",
            "proxy": "http://me:***@p:1",
        }
    ]
    assert not any(secret in shown for secret in ("sk-1", "b-1", "pa55", "literal1"))


def test_what_is_shown_of_the_defaults_loads_to_the_same_configuration(tmp_path: Path) -> None:
    file = tmp_path / "trioproxy.toml"
    file.write_text(UPSTREAM)
    config = load(file, environ={}, flags={"server.bind": ["[::1]:0"], "deadlines.idle_s": 1e-5})
    file.write_text(show(config))
    assert load(file, environ={}) == config
