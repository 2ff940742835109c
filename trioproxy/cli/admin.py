"""How a command talks to a running service: at its admin address, with the admin key."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import httpx
import typer

from trioproxy.cli.running import fail, loaded_or_fail, url
from trioproxy.config import Config, load, split_bind
from trioproxy.errors import ConfigError
from trioproxy.web.admin.app import PROVEN
from trioproxy.wire.splitter import Splitter

_PATIENCE_S = 90.0  # new workers are started first, and a busy machine takes its time
_SILENCE_S: Final = 60.0
"""An event stream has a heartbeat at least that often, or nobody is there any more."""
_MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""More than a table of all streams that a service may have."""

AdminUrl = Annotated[
    str | None, typer.Option("--admin", help="URL of the admin address; without it the configuration's admin.bind.")
]
AdminKey = Annotated[str | None, typer.Option(help="Its key; without it the configuration's admin.key.")]


class NotReached(Exception):
    """Nothing was asked: nobody is there."""


class NotSaid(Exception):
    """It was asked and did not answer: what it did is not known."""


class Refused(Exception):
    """It was asked and did nothing. `problems` says why."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class AdminAddress:
    """Where a service's admin address is, and the key that it demands. Each method raises NotReached, NotSaid or
    Refused."""

    url: str
    key: str | None

    def reload(self, proven: str | None = None) -> int:
        """Have the configuration put into force, if it holds the key that was `proven`. Returns the service's process
        id."""
        status, said = self._ask("POST", "/admin/reload", {} if proven is None else {PROVEN.decode("ascii"): proven})
        match said:
            case {"pid": int(pid), "problems": []}:
                return pid
            case {"problems": list(problems)}:
                raise Refused([str(problem) for problem in problems])
            case _:
                raise _refused(status, said)

    def upstreams(self) -> list[dict[str, Any]]:
        """How each upstream is."""
        status, said = self._ask("GET", "/admin/upstreams", {})
        match said:
            case {"upstreams": list(upstreams)}:
                return upstreams
            case _:
                raise _refused(status, said)

    def streams(self) -> list[dict[str, Any]]:
        """The live table's rows."""
        status, said = self._ask("GET", "/admin/streams", {})
        match said:
            case {"streams": list(rows)}:
                return rows
            case _:
                raise _refused(status, said)

    def stream(self, stream_id: str) -> dict[str, Any]:
        """One stream: its row, its tries, its timeline. Refused also if there is none of this id."""
        status, said = self._ask("GET", f"/admin/streams/{quote(stream_id, safe='')}", {})
        match said:
            case {"stream": dict(row), "tries": list(tries), "timeline": list(timeline)}:
                return {"stream": row, "tries": tries, "timeline": timeline}
            case _:
                raise _refused(status, said)

    def stop_stream(self, stream_id: str, reason: str | None = None) -> None:
        """Have a stream ended; `reason` is for the log. Refused also if there is none of this id."""
        query = "" if reason is None else f"?reason={quote(reason, safe='')}"
        status, said = self._ask("DELETE", f"/admin/streams/{quote(stream_id, safe='')}{query}", {})
        if status != 204:
            raise _refused(status, said)

    async def follow(self, path: str, take: Callable[[bytes], None], last_id: str | None = None) -> None:
        """Read an event stream, from behind `last_id` if there is one, in Trio. Each event is given to `take` as it is
        whole, in its bytes. Returns when the stream ends; its connection is closed also if cancelled."""
        headers = {**self._headers, "accept": "text/event-stream"}
        if last_id is not None:
            headers["last-event-id"] = last_id
        timeout = httpx.Timeout(_PATIENCE_S, read=_SILENCE_S)
        splitter = Splitter(_MAX_EVENT_BYTES)
        with self._faults():
            async with (
                httpx.AsyncClient(timeout=timeout, trust_env=False) as client,
                client.stream("GET", self._target(path), headers=headers) as answer,
            ):
                if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                    await answer.aread()
                    raise _refused(answer.status_code, _json_of(answer))
                async for data in answer.aiter_bytes():
                    for event in splitter.feed(data):
                        take(event)
                    if splitter.is_overlong:
                        raise NotSaid(f"an event of more than {_MAX_EVENT_BYTES} bytes came from {self.url}")

    def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, Any]:
        """The answer's status and its JSON, None if that is not what it is."""
        given = {**self._headers, **headers}
        with self._faults():
            answer = httpx.request(method, self._target(path), headers=given, timeout=_PATIENCE_S, trust_env=False)
        return answer.status_code, _json_of(answer)

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    def _target(self, path: str) -> str:
        return f"{self.url.rstrip('/')}{path}"

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What goes wrong with a connection, in our words."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            what = f"cannot reach the admin address at {self.url}: {error}; is it running, and is --admin right?"
            raise NotReached(what) from None
        except httpx.RequestError as error:
            what = f"no answer from the admin address at {self.url}: {error}; is it running, and is --admin right?"
            raise NotSaid(what) from None


def _json_of(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _refused(status: int, said: Any) -> Refused:
    match said:
        case {"error": {"message": str(message)}}:
            return Refused([message])
        case _:
            return Refused([f"the answer was {status}, and not this service's"])


def address_or_fail(admin: str | None, admin_key: str | None, load_settings: Callable[[], Config]) -> AdminAddress:
    """The address that was given, or else the configuration's."""
    if admin is None or admin_key is None:
        settings = load_settings()
        if settings.admin.bind == "off" and admin is None:
            fail("the admin address is off; send the supervisor SIGHUP instead")
        admin = admin or url(*split_bind(settings.admin.bind))
        admin_key = admin_key or (settings.admin.key.get_secret_value() if settings.admin.key else None)
    return AdminAddress(admin, admin_key)


def settings_or_fail(config: Path | None, flags: Mapping[str, object] | None = None) -> Config:
    """The configuration as far as it is in a file: the service may have been started with --upstream."""
    given = dict(flags or {})
    try:
        return load(config, flags=given)
    except ConfigError as error:
        is_missing = any(problem.key == "upstream" for problem in error.problems)
    if is_missing:
        given["upstream.base_url"] = "http://127.0.0.1/v1"
    return loaded_or_fail(partial(load, config, flags=given))
