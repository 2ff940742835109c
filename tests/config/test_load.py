"""Loading: what wins over what, every class of problem, all of them at once, and no file that crashes it."""

from pathlib import Path

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trioproxy.config import Config, load, show
from trioproxy.config.load import MAX_FILE_BYTES
from trioproxy.config.secrets import Surroundings
from trioproxy.errors import ConfigError, Problem

URL = "https://api.openai.com/v1"
UPSTREAM = f'[[upstream]]\nbase_url = "{URL}"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trioproxy.toml"
    path.write_text(UPSTREAM)
    return path


def problems(file: Path | None = None, *, directory: Path = Path("/nonexistent"), **given: object) -> list[str]:
    """Every problem as its text, without the folder in front of the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(file, directory=directory, environ=given.get("environ", {}), flags=given.get("flags"))  # type: ignore[arg-type]
    return [str(problem).replace(f"{file.parent}/" if file else "\0", "") for problem in caught.value.problems]


def wrong(file: Path, text: str) -> list[str]:
    file.write_text(text)
    return problems(file)


def all_defaults(directory: Path) -> Config:
    return Config.model_validate({"upstream": [{"base_url": URL}]}, context=Surroundings({}, directory))


def test_an_upstream_on_the_command_line_is_enough(tmp_path: Path) -> None:
    config = load(flags={"upstream.base_url": URL}, environ={}, directory=tmp_path)
    assert config == all_defaults(tmp_path)


def test_a_flag_wins_over_the_environment_which_wins_over_the_file_which_wins_over_the_default(file: Path) -> None:
    def idle_s(text: str, environ: dict[str, str], flags: dict[str, object]) -> float:
        file.write_text(UPSTREAM + text)
        return load(file, environ=environ, flags=flags).deadlines.idle_s

    in_file, variable, flag = "[deadlines]\nidle_s = 1", {"TRIOPROXY_DEADLINES__IDLE_S": "2"}, {"deadlines.idle_s": 3}
    assert idle_s("", {}, {}) == 300
    assert idle_s(in_file, {}, {}) == 1
    assert idle_s(in_file, variable, {}) == 2
    assert idle_s(in_file, variable, {**flag}) == 3
    assert idle_s(in_file, variable, {"deadlines.idle_s": None}) == 2


def test_the_file_is_the_argument_else_the_variable_else_the_one_in_the_folder(tmp_path: Path) -> None:
    for name in ("argument", "variable", "trioproxy"):
        (tmp_path / f"{name}.toml").write_text(UPSTREAM + f'name = "{name}"\n')
    environ = {"TRIOPROXY_CONFIG": str(tmp_path / "variable.toml")}
    assert load(tmp_path / "argument.toml", environ=environ, directory=tmp_path).upstream[0].name == "argument"
    assert load(environ=environ, directory=tmp_path).upstream[0].name == "variable"
    assert load(environ={"TRIOPROXY_CONFIG": "variable.toml"}, directory=tmp_path).upstream[0].name == "variable"
    assert load(environ={}, directory=tmp_path).upstream[0].name == "trioproxy"
    assert load(environ={"TRIOPROXY_CONFIG": ""}, directory=tmp_path).upstream[0].name == "trioproxy"


def test_no_file_is_read_where_none_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "trioproxy.toml").write_text("this is not TOML")
    flags = {"upstream.base_url": URL}
    for environ in ({}, {"TRIOPROXY_CONFIG": str(tmp_path / "trioproxy.toml")}):
        config = load(environ=environ, flags=flags, directory=tmp_path, reads_file=False)
        assert config == all_defaults(tmp_path)


def test_a_file_that_was_asked_for_and_is_missing_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path / "no.toml") == [
        "no.toml:file: cannot be read, expected a TOML file, got No such file or directory"
    ]
    assert "cannot be read" in problems(environ={"TRIOPROXY_CONFIG": str(tmp_path / "no.toml")})[0]
    assert "got Is a directory" in problems(tmp_path)[0]
    assert "is not a path" in problems(Path("a\0b"))[0]


def test_a_default_file_that_leads_nowhere_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "trioproxy.toml").symlink_to(tmp_path / "gone")
    assert "cannot be read" in problems(directory=tmp_path)[0]


def test_variables_are_read_as_the_type_of_their_key(tmp_path: Path) -> None:
    environ = {
        "TRIOPROXY_SERVER__BIND": "127.0.0.1:1, [::1]:2",
        "TRIOPROXY_SERVER__MAX_BODY_BYTES": "1024",
        "TRIOPROXY_DRAIN__TIMEOUT_S": "0.5",
        "TRIOPROXY_STREAM__END": "lenient",
        "TRIOPROXY_UPSTREAM__BASE_URL": URL,
        "TRIOPROXY_UPSTREAM__API_KEY": "env:KEY",
        "KEY": "sk-1",
    }
    config = load(environ=environ, directory=tmp_path)
    assert config.server.bind == ("127.0.0.1:1", "[::1]:2") and config.server.max_body_bytes == 1024
    assert config.drain.timeout_s == 0.5 and config.stream.end == "lenient"
    assert [key.get_secret_value() for key in config.upstream[0].api_key] == ["sk-1"]
    environ["TRIOPROXY_SERVER__BIND"] = '["127.0.0.1:3"]'
    assert load(environ=environ, directory=tmp_path).server.bind == ("127.0.0.1:3",)


def test_a_wrong_variable_is_named_as_it_was_typed(file: Path) -> None:
    environ = {
        "TRIOPROXY_DEADLINES__IDLE_S": "soon",
        "TRIOPROXY_SERVER__MAX_BODY_BYTES": "64MiB",
        "TRIOPROXY_SERVER__BIND": "[" * 100_000,
        "TRIOPROXY_UPSTREAM__API_KEY": "sk-abcdef",
    }
    found = problems(file, environ=environ)
    assert 'environment:TRIOPROXY_DEADLINES__IDLE_S: is not a number, expected seconds > 0, got "soon"' in found
    assert any(one.startswith("environment:TRIOPROXY_SERVER__BIND: is not an address") for one in found)
    assert any(one.startswith("environment:TRIOPROXY_SERVER__MAX_BODY_BYTES: is not a whole") for one in found)
    assert any(one.startswith("environment:TRIOPROXY_UPSTREAM__API_KEY: must not be written") for one in found)
    assert len(found) == 4 and "sk-abcdef" not in "".join(found)


def test_an_unknown_variable_is_a_problem_that_hides_its_value(file: Path) -> None:
    environ = {"TRIOPROXY_XYZZY": "hunter2", "TRIOPROXY_DEADLINES__IDEL_S": "1", "TRIOPROXY_UPSTREAM__HEADERS": "x"}
    found = problems(file, environ=environ)
    assert [one.split(": ")[0] for one in found] == [f"environment:{name}" for name in sorted(environ)]
    assert 'expected "TRIOPROXY_DEADLINES__IDLE_S", got "TRIOPROXY_DEADLINES__IDEL_S"' in found[0]
    assert "is not a known variable" in found[2]
    assert "hunter2" not in found[2]


def test_what_kubernetes_sets_for_a_service_of_our_name_is_not_a_problem(file: Path) -> None:
    names = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR"]
    assert load(file, environ={f"TRIOPROXY_{name}": "tcp://10.0.0.1:8080" for name in names})


def test_a_wrong_flag_is_named_by_its_dotted_key(file: Path) -> None:
    found = problems(file, flags={"server.bind": ["x"], "drain.timeout": 1, "upstream.base_url": "x"})
    assert 'command line:"drain.timeout": is not a known key, expected "drain.timeout_s", got "drain.timeout"' in found
    assert any(one.startswith("command line:server.bind: is not an address") for one in found)
    assert any(one.startswith("command line:upstream.base_url: is not a URL") for one in found)


def test_a_flag_and_a_variable_apply_to_the_upstream_of_the_file(file: Path) -> None:
    file.write_text(UPSTREAM + 'name = "kept"\n')
    environ = {"TRIOPROXY_UPSTREAM__BASE_URL": "http://b"}
    assert load(file, environ=environ).upstream[0].base_url == "http://b"
    both = load(file, environ=environ, flags={"upstream.base_url": "http://c"}).upstream[0]
    assert (both.base_url, both.name) == ("http://c", "kept")


def test_without_an_upstream_the_message_says_what_to_type(tmp_path: Path) -> None:
    expected = "--upstream https://api.openai.com/v1, or [[upstream]] in a file"
    assert problems() == [f"command line:upstream: is missing, expected {expected}, got none"]
    (tmp_path / "a.toml").write_text("")
    assert problems(tmp_path / "a.toml")[0].startswith("a.toml:upstream: is missing, expected --upstream")


def test_two_upstreams_need_two_names(file: Path) -> None:
    expected = "a name of its own (upstream[0] has this one)"
    taken = f'trioproxy.toml:upstream[1].name: is taken, expected {expected}, got "api.openai.com"'
    assert wrong(file, UPSTREAM * 2) == [taken]
    found = wrong(file, UPSTREAM * 2 + "[[upstream]]\nbase_url = 5\n")
    assert len(found) == 2 and found[0].startswith("trioproxy.toml:upstream[2].base_url: is not text")
    assert found[1] == taken


def test_a_flag_or_a_variable_does_not_say_which_of_several_upstreams_it_is_for(file: Path) -> None:
    file.write_text(UPSTREAM + '[[upstream]]\nbase_url = "http://b"\n[deadlines]\nidle_s = 0')
    environ = {"TRIOPROXY_UPSTREAM__API_KEY": "env:KEY", "KEY": "sk-1"}
    says = "does not say which upstream it is for, expected one [[upstream]] in the file, got 2"
    assert problems(file, environ=environ, flags={"upstream.base_url": "http://c", "drain.delay_s": 1}) == [
        f"environment:TRIOPROXY_UPSTREAM__API_KEY: {says}",
        f"command line:upstream.base_url: {says}",
        "trioproxy.toml:deadlines.idle_s: is out of range, expected seconds > 0, got 0",
    ]


def test_a_variable_may_name_several_keys(file: Path) -> None:
    environ = {"TRIOPROXY_UPSTREAM__API_KEY": "env:A, env:B", "A": "sk-a", "B": "sk-b"}
    keys = load(file, environ=environ).upstream[0].api_key
    assert [key.get_secret_value() for key in keys] == ["sk-a", "sk-b"]


def test_single_brackets_are_explained(file: Path) -> None:
    found = wrong(file, f'[upstream]\nbase_url = "{URL}"')
    assert len(found) == 1 and found[0].startswith("trioproxy.toml:upstream: is one table, expected [[upstream]]")


def test_an_upstream_without_a_base_url_is_one_problem(file: Path) -> None:
    assert wrong(file, "[[upstream]]\ndialect = 'openai'") == [
        "trioproxy.toml:upstream[0].base_url: is missing, expected a value, got nothing"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[deadlines]\nidle_s = "soon"', 'deadlines.idle_s: is not a number, expected seconds > 0, got "soon"'),
        ("[deadlines]\nidel_s = 1", 'deadlines.idel_s: is not a known key, expected "idle_s", got "idel_s"'),
        ("[drain]\nx = 1", 'drain.x: is not a known key, expected one of delay_s, timeout_s, got "x"'),
        ("[sever]", 'sever: is not a known key, expected "server", got "sever"'),
        ('"a\\nb" = 1', '"a\\u000ab": is not a known key, expected one of '),
        ("server = 5", "server: is not a table, expected a table of keys, got 5"),
        ("server = [1]", "server: is not a table, expected a table of keys, got a list (not shown)"),
        ('[server]\nbind = "a:1"', 'server.bind: is not a list, expected a list, got "a:1"'),
        ('[server]\nbind = ["a:1", "b"]', "server.bind[1]: is not an address, expected "),
        (
            "[server]\nmax_body_bytes = true",
            "server.max_body_bytes: is not a whole number, expected bytes > 0, got true",
        ),
        (
            "[server]\nmax_body_bytes = 0x" + "f" * 9000,
            "server.max_body_bytes: is out of range, expected bytes > 0, got ",
        ),
        (
            "[drain]\ntimeout_s = 1979-05-27",
            "drain.timeout_s: is not a number, expected seconds >= 0, got another kind",
        ),
        ('[stream]\nend = "soft"', 'stream.end: is not a known word, expected "strict" or "lenient", got "soft"'),
        ("[telemetry]\naccess_log = false", "telemetry.access_log: is not text, expected "),
    ],
)
def test_each_problem_says_where_what_expected_and_got(file: Path, text: str, problem: str) -> None:
    found = wrong(file, text + "\n" + UPSTREAM)
    assert len(found) == 1 and found[0].startswith(f"trioproxy.toml:{problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('api_key = "sk-abc"', "api_key: must not be written here, expected env:NAME or file:PATH"),
        ('api_key = "env:NONE"', "api_key: names a variable that is not set"),
        ("api_key = ['k']", "api_key[0]: must not be written here"),
        ("api_key = []", "api_key: is empty, expected env:NAME or file:PATH"),
        ("api_key = 5", "api_key: must not be written here"),
        ("max_concurrent = 0", "max_concurrent: is out of range, expected a number > 0, got 0"),
        ("max_waiting = -1", "max_waiting: is out of range, expected a number >= 0, got -1"),
        ("headers = 5", "headers: is not a table, expected a table of names and values"),
        ("headers = { 'a b' = 'x' }", 'headers."a b": is not a header\'s name'),
        ("headers = { Host = 'x' }", "headers.Host: is a header that belongs to the connection"),
        ("headers = { a = 5 }", "headers.a: is not text"),
        ("headers = { a = 'env:NONE' }", "headers.a: names a variable that is not set"),
        ('dialect = "gemini"', 'dialect: is not a known word, expected "openai" or "anthropic", got "gemini"'),
        ("ca_file = 'none.pem'", "ca_file: cannot be read (No such file or directory)"),
        ("apikey = 'env:A'", 'apikey: is not a known key, expected "api_key", got "apikey"'),
    ],
)
def test_a_problem_of_an_upstream_names_its_place_in_the_list(file: Path, text: str, problem: str) -> None:
    found = wrong(file, UPSTREAM + text)
    assert len(found) == 1 and found[0].startswith(f"trioproxy.toml:upstream[0].{problem}")
    assert "sk-abc" not in found[0]


def test_every_problem_comes_at_once_whatever_its_place(file: Path) -> None:
    file.write_text('[server]\nbind = []\n[drain]\ntimeout_s = "x"\ny = 1\n[[upstream]]\nproxy = "p"\napi_key = "k"')
    found = problems(file, environ={"TRIOPROXY_X": "", "TRIOPROXY_STREAM__END": ""}, flags={"deadlines.idle_s": -1})
    assert [one.split(": ")[0] for one in found] == [
        "environment:TRIOPROXY_X",
        "trioproxy.toml:server.bind",
        "command line:deadlines.idle_s",
        "environment:TRIOPROXY_STREAM__END",
        "trioproxy.toml:drain.timeout_s",
        "trioproxy.toml:drain.y",
        "trioproxy.toml:upstream[0].base_url",
        "trioproxy.toml:upstream[0].api_key",
        "trioproxy.toml:upstream[0].proxy",
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[server]\nbind = \n", "line 2, column 8: is not TOML, expected a TOML file, got Invalid value"),
        (b"[server]\na = 1\na = 2\n", "line 3, column 6: is not TOML"),
        (b"[server]\nbind", "line 2: is not TOML"),
        (b"[server]\n\xff\xfe\n", "line 2: is not text, expected a TOML file, got bytes that are not UTF-8"),
        (b"\x00\x01\x02", "line 1, column 1: is not TOML"),
        (b"a = " + b"[" * 100_000, "file: is nested too deeply"),
        (b"a = " + b"{a=" * 100_000, "file: is nested too deeply"),
        (b"a = " + b"1" * 10_000, "file: is not TOML"),
        (
            b"#" * (MAX_FILE_BYTES + 1),
            f"file: is too large, expected a TOML file, got more than {MAX_FILE_BYTES} bytes",
        ),
    ],
)
def test_a_file_that_is_not_toml_is_one_problem_with_its_line(file: Path, content: bytes, problem: str) -> None:
    file.write_bytes(content)
    found = problems(file, flags={"upstream.base_url": URL})
    assert len(found) == 1 and found[0].startswith(f"trioproxy.toml:{problem}")


def test_a_file_that_is_nested_as_deeply_as_toml_allows_is_judged(file: Path) -> None:
    found = wrong(file, UPSTREAM + "[server]\nbind = " + "[" * 90 + "]" * 90 + "\n[a" + ".a" * 500 + "]\n")
    assert [one.split(": ")[0] for one in found] == ["trioproxy.toml:server.bind[0]", "trioproxy.toml:a"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_content_of_a_file_crashes_it(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert caught.value.problems


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["server.bind", "deadlines.idle_s", "stream.end", "drain.timeout_s", "telemetry.access_log"]
KEYS += [f"upstream.{key}" for key in ("base_url", "name", "api_key", "headers", "dialect", "proxy", "ca_file")]


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(), JUNK, max_size=6))
def test_no_value_of_any_kind_crashes_it(flags: dict[str, object]) -> None:
    problems: list[Problem] = []
    try:
        show(load(flags=flags, environ={}, directory=Path("/nonexistent")))
    except ConfigError as error:
        problems = error.problems
        if not problems:
            raise
    assert all(str(problem).isprintable() for problem in problems)


def test_a_file_saved_with_a_byte_order_mark_is_read(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + UPSTREAM.replace("\n", "\r\n").encode())
    assert load(file, environ={}).upstream[0].base_url == URL


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A folder with a certificate, `own.pem`, and its key, `own.key`."""
    issued = trustme.CA().issue_cert("proxy.test")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    return tmp_path


def test_a_nested_table_comes_from_file_environment_and_flags_alike(certificate: Path, file: Path) -> None:
    tls = '[server.tls]\ncert = "other.pem"\nkey = "own.key"\n'
    file.write_text(f"{file.read_text()}\n{tls}")
    environ = {"TRIOPROXY_SERVER__TLS__CERT": str(certificate / "own.pem")}
    both = load(file, environ=environ).server.tls
    assert both is not None and both.cert == certificate / "own.pem" and both.key == file.parent / "own.key"
    flags = {"server.tls.cert": str(certificate / "own.pem"), "server.tls.key": str(certificate / "own.key")}
    assert load(flags={"upstream.base_url": URL, **flags}, environ={}).server.tls == both
    [found] = problems(file, environ={"TRIOPROXY_SERVER__TLS__CERT": "none.pem"})
    assert found.startswith("environment:TRIOPROXY_SERVER__TLS__CERT: cannot be read")


def test_what_is_wrong_in_a_nested_table_is_named_with_its_place(certificate: Path, file: Path) -> None:
    for tls, says in (
        ('tls = "own.pem"', "server.tls: is not a table"),
        ('[server.tls]\ncert = "own.pem"', "server.tls.key: is missing, expected a value, got nothing"),
        ('[server.tls]\ncert = "own.pem"\nkye = "own.key"', 'is not a known key, expected "key", got "kye"'),
        ('[server.tsl]\ncert = "own.pem"', 'server.tsl: is not a known key, expected "tls", got "tsl"'),
    ):
        file.write_text(f"[server]\n{tls}\n{UPSTREAM}")
        assert any(says in problem for problem in problems(file)), problems(file)


def test_a_nested_table_is_shown_as_one(certificate: Path, file: Path) -> None:
    file.write_text(f"{UPSTREAM}\n[server.tls]\ncert = 'own.pem'\nkey = 'own.key'\n")
    config = load(file, environ={})
    shown = show(config)
    assert f'[server.tls]\ncert = "{file.parent / "own.pem"}"' in shown
    again = file.parent / "again.toml"
    again.write_text(shown)
    assert load(again, environ={}) == config


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[route]\nmodels = ['a']", "route: is one table, expected [[route]], with two brackets on each side"),
        ("[[route]]", "route[0].models: is missing, expected a value, got nothing"),
        ("[[route]]\nmodels = 'a'", 'route[0].models: is not a list, expected a list, got "a"'),
        ("[[route]]\nmodels = []", "route[0].models: is empty, expected at least one: a model, or a glob such as"),
        ("[[route]]\nmodels = [5]", "route[0].models[0]: is not text, expected a model, or a glob such as"),
        ("[[route]]\nmodels = ['']", "route[0].models[0]: is empty or too long, expected a model, or a glob such as"),
        (
            "[[route]]\nmodels = ['a']\nmodel = 'b'",
            'route[0].model: is not a known key, expected "models", got "model"',
        ),
        (
            "[[route]]\nmodels = ['a']\n[[route]]\nmodels = ['b']\ndeadlines = { idel_s = 1 }",
            'route[1].deadlines.idel_s: is not a known key, expected "idle_s", got "idel_s"',
        ),
        (
            "[[route]]\nmodels = ['a']\ndeadlines = { idle_s = 0 }",
            "route[0].deadlines.idle_s: is out of range, expected seconds > 0, got 0",
        ),
        ("[[route]]\nmodels = ['a']\ndeadlines = 5", "route[0].deadlines: is not a table, expected a table of keys"),
        ("[[route]]\nmodels = ['a']\ntargets = ['b']", "route[0].targets[0]: is not a table, expected a table of keys"),
        ("[[route]]\nmodels = ['a']\ntargets = [{}]", "route[0].targets[0].upstream: is missing, expected a value"),
        ("[[route]]\nmodels = ['a']\ntargets = []", "route[0].targets: is empty, expected at least one target"),
        ("[[route]]\nmodels = ['a']\nretry = 3", "route[0].retry: is not a table, expected a table of keys, got 3"),
        (
            "[[route]]\nmodels = ['a']\nretry = { repeat_sent = 1 }",
            "route[0].retry.repeat_sent: is not true or false, expected true or false, got 1",
        ),
        (
            "[[route]]\nmodels = ['a']\ntargets = [{ upstream = 5 }]",
            "route[0].targets[0].upstream: is not text, expected text, got 5",
        ),
        (
            "[[route]]\nmodels = ['a']\nstrategy = 'random'",
            'route[0].strategy: is not a known word, expected "ordered", "weighted", "least_busy" or "fastest"',
        ),
        (
            "[[route]]\nmodels = ['a']\nhedge = { afters = 1, after_s = 2 }",
            'route[0].hedge.afters: is not a known key, expected "after_s", got "afters"',
        ),
        (
            "[[route]]\nmodels = ['a']\nhedge = {}",
            'route[0].hedge: does not say how late, expected after_s = SECONDS or after = "p95", got neither',
        ),
        (
            "[[route]]\nmodels = ['a']\nhedge = { after = 'p50' }",
            'route[0].hedge.after: is not a known word, expected "p95", got "p50"',
        ),
        ("[[route]]\nmodels = ['a']\ncanary = 'b'", "route[0].canary: is not a table, expected a table of keys"),
        ("[[route]]\nmodels = ['a']\nshadow = {}", "route[0].shadow.upstream: is missing, expected a value"),
        (
            "[[route]]\nmodels = ['a']\naggregate = 'yes'",
            'route[0].aggregate: is not true or false, expected true or false, got "yes"',
        ),
    ],
)
def test_a_problem_of_a_route_names_its_place_in_the_list(file: Path, text: str, problem: str) -> None:
    found = wrong(file, UPSTREAM + text)
    assert len(found) == 1 and found[0].startswith(f"trioproxy.toml:{problem}")


def test_routes_come_from_the_file_only(file: Path) -> None:
    assert "is not a known key" in problems(file, flags={"route.models": ["a"]})[0]
    assert "is not a known variable" in problems(file, environ={"TRIOPROXY_ROUTE__MODELS": "a"})[0]


def test_routes_are_shown_as_they_would_be_typed(file: Path) -> None:
    file.write_text(
        UPSTREAM
        + """name = "a"
[[route]]
models = ['a*']
targets = [{ upstream = "a", model = "b" }, { upstream = "a", weight = 2 }]
strategy = "weighted"
sticky = "header:X-Session"
share = true
resume_s = 60
retry = { statuses = [503, "4xx"], repeat_sent = true }
aggregate = true
fallback = { outage = ["c", "d"] }
hedge = { after = "p95" }
canary = { upstream = "a", model = "c" }
shadow = { upstream = "a", max_concurrent = 5 }
bounds = { n = 2 }
params = { force = { stop = ["a", { b = [1] }], x = { y = 1.5 } }, drop = ["user"] }
deadlines = { idle_s = 9 }
[[route]]
models = ['b']
"""
    )
    config = load(file, environ={})
    shown = show(config)
    assert (
        """[[route]]
models = ["a*"]
targets = [{ upstream = "a", model = "b", weight = 1.0 }, { upstream = "a", weight = 2.0 }]
strategy = "weighted"
sticky = "header:x-session"
aggregate = true
batch_fallback = false
continue_after_cut = false
share = true
resume_s = 60.0
linger_s = 0.0

[route.retry]
tries = 3
max_wait_s = 2.0
budget = 0.2
statuses = [503, "4xx"]
repeat_sent = true

[route.fallback]
outage = ["c", "d"]

[route.hedge]
after = "p95"
budget = 0.1

[route.canary]
upstream = "a"
model = "c"
share = 0.01
max_share = 0.5
step_s = 60.0
min_requests = 50
max_errors = 0.02
max_slower = 1.5

[route.shadow]
upstream = "a"
share = 0.1
max_concurrent = 5

[route.bounds]
n = 2

[route.params]
force = { "stop" = ["a", { "b" = [1] }], "x" = { "y" = 1.5 } }
drop = ["user"]

[route.deadlines]
idle_s = 9.0

[[route]]
models = ["b"]
strategy = "ordered"
sticky = ""
aggregate = false
batch_fallback = false
continue_after_cut = false
share = false
resume_s = 0.0
linger_s = 0.0

[route.retry]
tries = 3
max_wait_s = 2.0
budget = 0.2
statuses = [408, 409, 429, "5xx"]
repeat_sent = false

[gate]"""
        in shown
    )
    file.write_text(shown)
    assert load(file, environ={}) == config


def test_a_retry_on_no_status_is_shown_as_such(file: Path) -> None:
    file.write_text(UPSTREAM + "[[route]]\nmodels = ['b']\nretry = { statuses = [] }\n")
    config = load(file, environ={})
    file.write_text(show(config))
    assert load(file, environ={}) == config and config.route[0].retry.statuses == ()


def test_what_does_not_fit_together_is_told_with_all_the_rest(file: Path) -> None:
    text = (
        UPSTREAM
        + """
[[route]]
models = ["a"]
targets = [{ upstream = "opnai" }]
fallback = { outage = ["b"] }
[[route]]
models = ["b"]
targets = [{ upstream = "api.openai.com", wieght = 2 }, { upstream = "api.opnai.com", weight = -1 }]
fallback = { context_length = ["c", "a"], outgae = ["b"] }
"""
    )
    upstream = "is not a known upstream, expected"
    loop = "is part of a loop, expected fallbacks that come to an end, got"
    assert wrong(file, text) == [
        f"trioproxy.toml:{problem}"
        for problem in (
            'route[1].targets[0].wieght: is not a known key, expected "weight", got "wieght"',
            "route[1].targets[1].weight: is out of range, expected a number >= 0, got -1",
            'route[1].fallback.outgae: is not a known key, expected "outage", got "outgae"',
            f'route[0].targets[0].upstream: {upstream} one of api.openai.com, got "opnai"',
            f'route[1].targets[1].upstream: {upstream} "api.openai.com", got "api.opnai.com"',
            f'route[1].fallback.context_length[1]: {loop} "b" → "a" → "b"',
        )
    ]


def test_numbers_come_from_the_environment_also_where_a_key_may_be_off_or_a_word(file: Path) -> None:
    environ = {
        "TRIOPROXY_SERVER__MAX_LAG_S": "0.5",
        "TRIOPROXY_SERVER__MAX_MEMORY_BYTES": "1000",
        "TRIOPROXY_SERVER__WORKERS": "3",
    }
    file.write_text(UPSTREAM)
    server = load(file, environ=environ).server
    assert (server.max_lag_s, server.max_memory_bytes, server.workers) == (0.5, 1000, 3)
    assert load(file, environ={"TRIOPROXY_SERVER__WORKERS": "auto"}).server.workers == "auto"


def test_workers_that_a_flag_adds_need_redis_for_streams_of_the_file(file: Path) -> None:
    file.write_text(UPSTREAM + "[[route]]\nmodels = ['a']\nshare = true\n")
    expected = 'expected state.url = "redis://HOST:PORT", or server.workers = 1'
    assert problems(file, flags={"server.workers": 2}) == [
        f'trioproxy.toml:route[0].share: needs what all workers know, {expected}, got "memory:" and server.workers = 2'
    ]
    redis = {"TRIOPROXY_STATE__URL": "redis://cache"}
    assert load(file, environ=redis, flags={"server.workers": 2}).state.is_shared


KEY = f"""[[key]]
name = "a"
hash = "sha256:{"0a" * 32}"
"""


def test_what_lets_clients_in_is_shown_as_it_would_be_typed_but_for_the_hash(file: Path) -> None:
    rest = """models = ["m*"]
expires = 2027-01-31T00:00:00Z

[key.limits]
rpm = 5
usd_per_day = 0.000001
usd_per_month = 100.5
"""
    gate = """[[price]]
model = "m*"
input = 0.15
output = 10

[gate]
keys_file = "other.toml"
on_state_loss = { budgets = "closed" }
[gate.limits]
streams = 7
[cors]
origins = ["https://a.example"]
"""
    file.write_text(UPSTREAM + KEY + rest + gate)
    config = load(file, environ={})
    shown = show(config)
    assert f'[[key]]\nname = "a"\nhash = "sha256:0a0a0a0a…"\n{rest}' in shown and "0a" * 5 not in shown
    assert "[gate.limits]\nstreams = 7\n" in shown and f'keys_file = "{file.parent / "other.toml"}"' in shown
    file.write_text(shown.replace("0a0a0a0a…", "0a" * 32))
    assert load(file, environ={}) == config


def test_a_configuration_with_its_defaults_written_out_asks_for_no_keys_file(file: Path) -> None:
    file.write_text(show(load(file, environ={})))
    assert not load(file, environ={}).gate.names_keys_file


def test_the_gate_comes_from_the_environment_too(file: Path) -> None:
    environ = {
        "TRIOPROXY_GATE__ALLOW_OPEN": "true",
        "TRIOPROXY_GATE__ON_STATE_LOSS": "closed",
        "TRIOPROXY_GATE__LIMITS__RPM": "5",
        "TRIOPROXY_GATE__LIMITS__USD_PER_DAY": "0.5",
        "TRIOPROXY_CORS__ORIGINS": "https://a, https://b",
        "TRIOPROXY_SERVER__HOSTS": "Proxy.Internal",
    }
    config = load(file, environ=environ)
    assert config.gate.allow_open and config.gate.open_kinds == frozenset()
    assert (config.gate.limits.rpm, str(config.gate.limits.usd_per_day)) == (5, "0.5")
    assert config.cors.origins == ("https://a", "https://b") and config.server.hosts == ("proxy.internal",)
    assert not load(file, environ={"TRIOPROXY_GATE__ALLOW_OPEN": "False"}).gate.allow_open
    for name in ("TRIOPROXY_GATE__ALLOW_OPEN", "TRIOPROXY_GATE__LIMITS__RPM", "TRIOPROXY_GATE__LIMITS__USD_PER_DAY"):
        assert problems(file, environ={name: "yes"})[0].startswith(f"environment:{name}: is not ")
    assert "is not a known variable" in problems(file, environ={"TRIOPROXY_KEY__NAME": "a"})[0]
    assert "is not a known variable" in problems(file, environ={"TRIOPROXY_PRICE__MODEL": "a"})[0]


def test_a_key_is_a_list_and_its_secret_is_never_told(file: Path) -> None:
    assert wrong(file, f"{UPSTREAM}[key]\nname = 'a'\n") == [
        "trioproxy.toml:key: is one table, expected [[key]], with two brackets on each side, got [key]"
    ]
    said = wrong(file, f"{UPSTREAM}[[key]]\nname = 'a'\nhash = 'tpk_{'s' * 43}'\nsecret = 'tpk_{'s' * 43}'\n")
    assert len(said) == 2 and not any("sss" in problem for problem in said)


def test_an_open_proxy_is_refused_with_the_place_where_its_address_was_given(file: Path) -> None:
    file.write_text(UPSTREAM + 'api_key = "env:KEY"\n')
    said = problems(file, environ={"KEY": "sk-1"}, flags={"server.bind": ["0.0.0.0:80"]})
    assert len(said) == 1 and said[0].startswith(
        "trioproxy.toml:gate.allow_open: is not set, expected keys for clients"
    )
    load(file, environ={"KEY": "sk-1", "TRIOPROXY_GATE__ALLOW_OPEN": "true"}, flags={"server.bind": ["0.0.0.0:80"]})
    (file.parent / "keys.toml").touch()
    load(file, environ={"KEY": "sk-1"}, flags={"server.bind": ["0.0.0.0:80"]})
