"""The keys file while it is changed, broken, gone and back: what is in force is always the last that was good."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trioproxy.config import Config, hash_of, load
from trioproxy.errors import ConfigError
from trioproxy.server import keys_watch
from trioproxy.server.keys_watch import Keys, KeysWatch, find_keys

_LOOKS_S = 0.2
"""Time for more than one look, where nothing may come of it."""


def of(*names: str) -> str:
    """A keys file with keys of these names."""
    return "".join(f'[[key]]\nname = "{name}"\nhash = "{hash_of(name)}"\n' for name in names)


def names(keys: Keys) -> list[str] | None:
    return None if keys is None else [key.name for key in keys]


def put(path: Path, text: str) -> None:
    """Write in place, as many an editor does."""
    path.write_text(text)


def remove(path: Path) -> None:
    path.unlink()


class Log:
    """Collects what is logged."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.read: list[int] = []

    def error(self, event: str, **fields: Any) -> None:
        assert event == "keys file refused: the old keys stay"
        self.problems += fields["problems"]

    def info(self, event: str, **fields: Any) -> None:
        assert event == "keys file read"
        self.read.append(fields["keys"])


class Watched:
    """A watch at work.

    Attributes:
        given: the names of the keys that it gave, each time.
    """

    def __init__(self, config: Config, log: Log) -> None:
        self.given: list[list[str] | None] = []
        self.log = log
        self.watch = KeysWatch(config, find_keys(config), lambda keys: self.given.append(names(keys)))

    async def wait(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(5):
            while not condition():  # noqa: ASYNC110 - the disk tells nobody
                await trio.sleep(0.005)

    async def wait_given(self, *expected: list[str] | None) -> None:
        """Wait until it gave these, one after the other."""
        await self.wait(lambda: len(self.given) >= len(expected))
        assert self.given == list(expected)

    async def wait_refused(self, times: int) -> None:
        await self.wait(lambda: self.watch.refused >= times)
        assert self.watch.refused == times

    async def wait_idle(self) -> None:
        """Wait for looks of which nothing may come."""
        before = list(self.given), self.watch.refused
        await trio.sleep(_LOOKS_S)
        assert (self.given, self.watch.refused) == before


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(keys_watch, "log", log)
    monkeypatch.setattr(keys_watch, "_LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(keys_watch, "_SETTLE_S", 0.02)
    return log


def config_in(folder: Path, text: str = "") -> Config:
    (folder / "trioproxy.toml").write_text(f'{text}[[upstream]]\nbase_url = "http://origin/v1"\n')
    return load(folder / "trioproxy.toml", environ={})


@asynccontextmanager
async def watching(config: Config, log: Log) -> AsyncIterator[Watched]:
    watched = Watched(config, log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.watch.run)
        yield watched
        nursery.cancel_scope.cancel()


def test_what_is_there_at_the_start_is_found_and_what_is_broken_is_told(file: Path, tmp_path: Path) -> None:
    assert find_keys(config_in(tmp_path)).keys is None
    own = "[[key]]\nname = 'own'\nhash = '" + hash_of("own") + "'\n"
    assert names(find_keys(config_in(tmp_path, own)).keys) == ["own"]
    put(file, of("a"))
    assert names(find_keys(config_in(tmp_path, own)).keys) == ["own", "a"]
    put(file, of("a") + "[[keys]]\n")
    with pytest.raises(ConfigError, match=r"keys\.toml:line 4: keys"):
        find_keys(config_in(tmp_path))


async def test_other_keys_are_given_and_the_same_ones_are_not(file: Path, tmp_path: Path, log: Log) -> None:
    put(file, of("a"))
    async with watching(config_in(tmp_path), log) as watched:
        await watched.wait_idle()
        put(file, of("a", "b"))
        await watched.wait_given(["a", "b"])
        os.utime(file)
        put(file, "# of ours\n" + of("a", "b"))
        await watched.wait_idle()
        put(file, "")
        await watched.wait_given(["a", "b"], [])
    assert log.read == [2, 0] and log.problems == []


async def test_a_change_that_hides_the_time_of_change_is_seen(file: Path, tmp_path: Path, log: Log) -> None:
    put(file, of("a"))
    async with watching(config_in(tmp_path), log) as watched:
        before = os.stat(file)  # noqa: PTH116
        put(file, of("b"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        await watched.wait_given(["b"])


async def test_a_file_that_appears_turns_keys_on(file: Path, tmp_path: Path, log: Log) -> None:
    async with watching(config_in(tmp_path), log) as watched:
        assert watched.watch.keys is None
        put(file, of("a"))
        await watched.wait_given(["a"])


async def test_while_it_is_broken_the_old_keys_stay_and_it_is_told_once(file: Path, tmp_path: Path, log: Log) -> None:
    put(file, of("a"))
    async with watching(config_in(tmp_path), log) as watched:
        put(file, of("a") + "[[key]\n")
        await watched.wait_refused(1)
        await watched.wait_idle()
        put(file, of("a", "b") + "rpm = 1\n")
        await watched.wait_refused(2)
        assert names(watched.watch.keys) == ["a"] and watched.given == []
        put(file, of("a", "b"))
        await watched.wait_given(["a", "b"])
    first, second = log.problems
    assert first.startswith(f"{file}:line 4, column ")
    assert second.startswith(f"{file}:line 4: key[1].rpm: is not a known key")


async def test_a_file_that_is_gone_is_no_wish_for_no_keys(file: Path, tmp_path: Path, log: Log) -> None:
    put(file, of("a"))
    async with watching(config_in(tmp_path), log) as watched:
        remove(file)
        await watched.wait_refused(1)
        await watched.wait_idle()
        assert names(watched.watch.keys) == ["a"]
        put(file, of("b"))
        await watched.wait_given(["b"])
    assert log.problems == [f"{file}:file: is gone; a restart or a reload does without it"]


async def test_a_file_that_was_broken_as_long_as_it_was_there_leaves_nothing(
    file: Path, tmp_path: Path, log: Log
) -> None:
    async with watching(config_in(tmp_path), log) as watched:
        put(file, "?")
        await watched.wait_refused(1)
        remove(file)
        await watched.wait_idle()
        assert watched.watch.keys is None and watched.given == []


async def test_one_that_could_not_be_read_is_read_when_it_can_be(tmp_path: Path, log: Log) -> None:
    config = config_in(tmp_path, "[gate]\nkeys_file = 'folder/keys.toml'\n")
    folder = tmp_path / "folder"
    async with watching(config, log) as watched:
        put(folder, "not a folder")
        await watched.wait_refused(1)
        remove(folder)
        os.makedirs(folder / "keys.toml")  # noqa: PTH103
        await watched.wait_refused(2)
        os.rmdir(folder / "keys.toml")  # noqa: PTH106
        put(folder / "keys.toml", of("a"))
        await watched.wait_given(["a"])


async def test_one_that_is_still_being_written_is_left_alone(
    file: Path, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_watch, "_SETTLE_S", 0.5)
    put(file, of("a"))
    async with watching(config_in(tmp_path), log) as watched:
        for count in range(5):
            put(file, of(*"bcde"[:count]))
            await trio.sleep(0.1)
        await watched.wait_given(["b", "c", "d", "e"])


async def test_another_configuration_has_its_own_keys_and_its_own_file(tmp_path: Path, log: Log) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys.toml").write_text(of(name))
    one, two = config_in(tmp_path / "one"), config_in(tmp_path / "two")
    async with watching(one, log) as watched:
        watched.watch.follow(two, find_keys(two))
        assert watched.given == [["two"]]
        (tmp_path / "one/keys.toml").write_text("")
        await watched.wait_idle()
        (tmp_path / "two/keys.toml").write_text(of("2"))
        await watched.wait_given(["two"], ["2"])


def test_what_changed_since_another_configuration_was_read_is_not_given_back(
    file: Path, tmp_path: Path, log: Log
) -> None:
    put(file, of("a", "b"))
    config = config_in(tmp_path)
    watched, found = Watched(config, log), find_keys(config)
    put(file, of("b"))
    watched.watch.follow(config, found)
    assert watched.given == [["b"]]
    found = find_keys(config)
    put(file, "?")
    watched.watch.follow(config, found)
    assert watched.given == [["b"], ["b"]] and watched.watch.refused == 1
