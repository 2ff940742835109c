"""A provider's key is changed while clients are served: nobody's request fails for it, and no key is used that was not
proven. Whatever goes wrong leaves everything as it was."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.loopback.keyed_origin import CHAT, MESSAGES, MODELS, KeyedOrigin, Seen, keyed_origin
from tests.loopback.processes import START_S, Server, running, serving, until
from tests.loopback.raw_http import WAIT_S, Answer, Wire, ask, chat, open_origin
from tests.loopback.streams import Ends, read_stream

OLD, NEW, BAD, OTHER = (f"sk-{name}-{8 * name}" for name in ("old", "new", "bad", "other"))
KEYS = {"OLD": OLD, "NEW": NEW, "BAD": BAD, "OTHER": OTHER, "SAME": OLD}
CLIENTS = 12


def rotate(*arguments: str, directory: Path, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run the command; exit code, standard output, standard error. Neither shows a key."""
    with running("upstreams", "rotate-key", *arguments, directory=directory, env=env or KEYS) as command:
        code = command.wait(START_S)
        said = "\n".join(command.out), "\n".join(command.err)
    assert not any(key in text for key in KEYS.values() for text in said), said
    return code, *said


def upstream_at(base_url: str, *, key: str = '"env:OLD"', more: str = "") -> str:
    return f"""# the one we pay for
[[upstream]]
name     = 'paid'  # in logs
base_url = "{base_url}"
api_key  = {key}  # renewed each month
{more}"""


async def wait_until(condition: Callable[[], bool], what: str, patience_s: float = 15.0) -> None:
    await trio.to_thread.run_sync(until, condition, what, patience_s, 0.02)


async def ask_until(is_over: trio.Event, port: int, ends: Ends) -> None:
    while not is_over.is_set():
        await read_stream(port, "m", ends)


async def test_a_key_is_changed_under_load_and_no_request_fails(tmp_path: Path) -> None:
    ends, is_over = Ends(), trio.Event()
    file = tmp_path / "trioproxy.toml"
    with keyed_origin(OLD, NEW) as origin:
        before = upstream_at(origin.origin.base_url)
        file.write_text(before)
        env = {"OLD": OLD, "NEW": NEW}
        with serving(None, "--workers", "2", directory=tmp_path, env=env) as proxy:
            workers = proxy.worker_pids()
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(ask_until, is_over, proxy.port, ends)
                await wait_until(lambda: ends.whole >= 5 * CLIENTS, "requests with the old key")
                arguments = ("paid", "--to", "env:NEW", "--admin", proxy.admin_url)
                done = await trio.to_thread.run_sync(partial(rotate, *arguments, directory=tmp_path, env=env))
                await wait_until(lambda: not set(workers) & set(proxy.worker_pids()), "the old workers gone")
                origin.accepted = {NEW}
                asked, whole = len(origin.seen), ends.whole
                await wait_until(lambda: ends.whole >= whole + 5 * CLIENTS, "requests with the new key")
                is_over.set()
            said = "\n".join(proxy.out)
    service = f"the service at {proxy.admin_url}, process {proxy.pid}"
    assert done == (0, f'rotated: upstream paid, from "env:OLD" to "env:NEW"; {service}', "")
    assert (ends.lost, ends.told, ends.refused) == ([], 0, 0)
    assert file.read_text() == before.replace("env:OLD", "env:NEW")
    assert OLD not in said and NEW not in said
    chats = [one for one in origin.seen if one.what == CHAT]
    assert len(chats) == ends.whole and {one.status for one in chats} == {200}
    assert {one.key for one in origin.seen[asked:]} == {NEW}
    first = next(one for one in origin.seen if one.key == NEW)
    assert first == Seen(MODELS, NEW, 200)
    print(f"{ends.whole} requests, {sum(one.key == NEW for one in chats)} with the new key")


@dataclass
class Service:
    """A running service whose environment has three of the keys, its configuration, and its origin."""

    proxy: Server
    origin: KeyedOrigin
    folder: Path
    text: str = ""

    @property
    def file(self) -> Path:
        return self.folder / "trioproxy.toml"

    def write(self, text: str) -> None:
        """Let this be the configuration, in force from now on."""
        self.text = text
        self.file.write_text(text)
        assert self._admin("POST", "/admin/reload").json["problems"] == []

    def rotate(self, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Change the key of "paid" at this service."""
        return rotate("paid", *arguments, "--admin", self.proxy.admin_url, directory=self.folder, env=env)

    def key_in_use(self) -> str | None:
        """The key that a client's request is sent with."""
        assert ask(self.proxy.port, "POST", "/v1/chat/completions", chat("m", stream=False)).status == 200
        return self.origin.seen[-1].key

    def reloads(self) -> float:
        """How many configurations were put into force."""
        counted = re.search(rb"^trioproxy_reloads_total (.+)$", self._admin("GET", "/metrics").body, re.MULTILINE)
        assert counted is not None
        return float(counted[1])

    def _admin(self, method: str, target: str) -> Answer:
        port = int(self.proxy.admin_url.rpartition(":")[2])
        return ask(port, method, target, headers={"host": f"127.0.0.1:{port}"})


@pytest.fixture(scope="module")
def running_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    env = {"OLD": OLD, "NEW": NEW, "OTHER": OTHER, "ELSE": OTHER, "BAD": BAD}
    with keyed_origin(OLD, NEW, OTHER) as origin:
        (folder / "trioproxy.toml").write_text(upstream_at(origin.origin.base_url))
        with serving(None, directory=folder, env=env) as proxy:
            yield Service(proxy, origin, folder)


@pytest.fixture
def service(running_service: Service) -> Service:
    """The service as it was at first."""
    running_service.origin.forget()
    running_service.write(upstream_at(running_service.origin.origin.base_url))
    return running_service


def unchanged(service: Service, reloads: float) -> bool:
    """Whether nothing came of it: not in the file, not in the service, and nothing lies beside the file."""
    return (
        service.file.read_text() == service.text
        and service.reloads() == reloads
        and service.key_in_use() == OLD
        and [path.name for path in service.folder.iterdir()] == ["trioproxy.toml"]
    )


def test_a_key_that_the_upstream_refuses_changes_nothing(service: Service) -> None:
    reloads = service.reloads()
    assert service.rotate("--to", "env:BAD") == (
        1,
        "",
        "nothing was changed: the key of env:BAD is not proven: the upstream refuses it, with 401",
    )
    assert [one.key for one in service.origin.seen] == [BAD]
    assert unchanged(service, reloads)


@pytest.mark.parametrize("status", [402, 429, 500, 302])
def test_an_answer_that_says_nothing_about_the_key_proves_nothing(service: Service, status: int) -> None:
    reloads = service.reloads()
    service.origin.statuses[MODELS] = status
    code, out, err = service.rotate("--to", "env:NEW")
    assert (code, out) == (1, "")
    assert err.endswith(f"is not proven: GET /models was answered with {status}, which says nothing about the key")
    assert unchanged(service, reloads)


def test_an_upstream_that_cannot_be_reached_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "trioproxy.toml"
    file.write_text(before := upstream_at("http://127.0.0.1:1/v1"))
    code, out, err = rotate("paid", "--to", "env:NEW", directory=tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(
        "nothing was changed: the key of env:NEW is not proven: Cannot connect to the upstream 'paid'"
    )
    assert file.read_text() == before


def test_a_variable_that_the_service_lacks_changes_nothing(service: Service) -> None:
    reloads = service.reloads()
    code, out, err = service.rotate("--to", "env:LATE", env={**KEYS, "LATE": NEW})
    assert (code, out) == (1, "")
    said = err.splitlines()
    assert said[0] == "nothing was changed:"
    assert "upstream[0].api_key" in said[1] and "names a variable that is not set" in said[1] and "LATE" in said[1]
    assert said[2].startswith("the service has to find the same key")
    assert unchanged(service, reloads)


def test_a_variable_that_is_another_key_at_the_service_changes_nothing(service: Service) -> None:
    reloads = service.reloads()
    code, _, err = service.rotate("--to", "env:ELSE", env={**KEYS, "ELSE": NEW})
    assert code == 1
    assert err.splitlines()[1] == "the configuration that the service reads does not hold the key that was proven"
    assert unchanged(service, reloads)


def test_a_service_with_another_configuration_is_no_success(service: Service, tmp_path: Path) -> None:
    reloads = service.reloads()
    file = tmp_path / "trioproxy.toml"
    file.write_text(service.text)
    code, _, err = service.rotate("--to", "env:NEW", "--config", str(file))
    assert (code, "does not hold the key" in err) == (1, True)
    assert file.read_text() == service.text
    assert unchanged(service, reloads)


def test_without_a_service_the_file_is_changed_only_if_that_is_what_is_wanted(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "trioproxy.toml"
    file.write_text(service.text)
    code, out, err = rotate("paid", "--to", "env:NEW", "--admin", "http://127.0.0.1:1", directory=tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith("nothing was changed: cannot reach the admin address at http://127.0.0.1:1: ")
    assert "--no-reload" in err
    assert file.read_text() == service.text
    done = rotate("paid", "--to", "env:NEW", "--no-reload", directory=tmp_path)
    assert done == (0, 'written: upstream paid, from "env:OLD" to "env:NEW"; in force after a reload', "")
    assert file.read_text() == service.text.replace("env:OLD", "env:NEW")


def test_a_service_that_does_not_say_what_it_did_is_no_success(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "trioproxy.toml"
    file.write_text(service.text)
    with open_origin(Wire.close) as mute:
        admin = f"http://127.0.0.1:{mute.port}"
        code, out, err = rotate("paid", "--to", "env:NEW", "--admin", admin, directory=tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(f"no answer from the admin address at {admin}: ")
    assert "the file is as it was; whether the service took the new key is not known" in err
    assert file.read_text() == service.text


def test_ctrl_c_while_the_service_reloads_puts_the_file_back(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "trioproxy.toml"
    file.write_text(service.text)
    asked, is_over = threading.Event(), threading.Event()

    def wait(wire: Wire) -> None:
        wire.read_request()
        asked.set()
        is_over.wait(WAIT_S)
        wire.close()

    with open_origin(wait) as slow:
        arguments = ("upstreams", "rotate-key", "paid", "--to", "env:NEW", "--admin", f"http://127.0.0.1:{slow.port}")
        with running(*arguments, directory=tmp_path, env=KEYS) as command:
            assert asked.wait(START_S)
            assert file.read_text() == service.text.replace("env:OLD", "env:NEW")
            assert command.stop(signal.SIGINT) != 0
        is_over.set()
    assert file.read_text() == service.text


def test_of_several_keys_the_one_that_is_named_goes(service: Service) -> None:
    service.write(upstream_at(service.origin.origin.base_url, key='[\n  "env:OLD",  # first\n  "env:OTHER",\n]'))
    code, _, err = service.rotate("--to", "env:NEW")
    expected = 'upstream paid has several keys; say with --from which one goes: "env:OLD", "env:OTHER"'
    assert (code, err) == (2, expected)
    code, _, err = service.rotate("--to", "env:NEW", "--from", BAD)
    assert (code, err) == (2, '--from: is no reference of upstream paid, which has "env:OLD", "env:OTHER"')
    code, out, _ = service.rotate("--to", "env:NEW", "--from", "env:OTHER")
    assert (code, out.partition(";")[0]) == (0, 'rotated: upstream paid, from "env:OTHER" to "env:NEW"')
    assert service.file.read_text() == service.text.replace("env:OTHER", "env:NEW")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("payd", "--to", "env:NEW"), 'trioproxy.toml: has no upstream "payd", expected "paid"'),
        (("paid", "--to", "env:NOWHERE"), "--to: names a variable that is not set"),
        (("paid", "--to", "file:nowhere"), "--to: cannot be read"),
        (("paid", "--to", BAD), "--to: must not be written here"),
        (("paid", "--to", f"env:{BAD}"), "--to: does not name an environment variable"),
        (("paid", "--to", "env:SAME"), "--to: leads to a key that upstream paid has already"),
        (("paid", "--to", "env:OLD"), "--to: is in use already"),
    ],
)
def test_what_cannot_be_meant_is_told_before_anybody_is_asked(
    service: Service, arguments: tuple[str, ...], says: str
) -> None:
    code, out, err = rotate(*arguments, "--admin", service.proxy.admin_url, directory=service.folder)
    assert (code, out) == (2, "")
    assert err.startswith(says)
    assert service.origin.seen == []
    assert service.file.read_text() == service.text


def test_an_upstream_whose_key_is_not_in_the_file_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "trioproxy.toml"
    file.write_text('[[upstream]]\nname = "free"\nbase_url = "http://127.0.0.1:1/v1"\n')
    code, _, err = rotate("free", "--to", "env:NEW", directory=tmp_path)
    assert (code, err) == (2, "trioproxy.toml: upstream free has no api_key there that could be replaced")
    file.write_text(upstream_at("http://127.0.0.1:1/v1"))
    over = {**KEYS, "TRIOPROXY_UPSTREAM__API_KEY": "env:OTHER"}
    code, _, err = rotate("paid", "--to", "env:NEW", directory=tmp_path, env=over)
    assert (code, err.partition(";")[0]) == (2, "the api_key of upstream paid comes from the environment here")
    file.unlink()
    assert rotate("paid", "--to", "env:NEW", directory=tmp_path)[0] == 2


@pytest.mark.parametrize(
    ("status", "because"), [(404, "was answered with 404"), (200, "is answered without a key too")]
)
def test_where_the_models_prove_nothing_a_chat_of_one_token_does(service: Service, status: int, because: str) -> None:
    reloads = service.reloads()
    service.origin.statuses[MODELS] = status
    code, _, err = service.rotate("--to", "env:NEW")
    assert (code, because in err, "--model" in err) == (1, True, True)
    assert CHAT not in [one.what for one in service.origin.seen]
    assert unchanged(service, reloads)
    service.origin.statuses[CHAT] = 400
    code, _, err = service.rotate("--to", "env:NEW", "--model", "m")
    assert (code, err.endswith("and a chat with 400")) == (1, True)
    del service.origin.statuses[CHAT]
    assert service.rotate("--to", "env:NEW", "--model", "m")[0] == 0
    assert service.origin.seen[-1] == Seen(CHAT, NEW, 200)
    assert service.key_in_use() == NEW


def test_the_key_goes_where_the_dialect_has_it(service: Service) -> None:
    more = 'dialect = "anthropic"\nhealth_model = "m"\n'
    service.write(upstream_at(service.origin.origin.base_url, more=more))
    service.origin.statuses[MODELS] = 405
    assert service.rotate("--to", "env:NEW")[0] == 0
    assert service.origin.seen[-1] == Seen(MESSAGES, NEW, 200)
