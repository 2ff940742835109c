"""`[hub]`: the streams that are kept to be shared and resumed. `[state]`: where all replicas look. The keys, their
defaults and rules."""

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, ValidationInfo

from trioproxy.config.gate import FileBeside
from trioproxy.config.secrets import Secret, Wrong, is_reference, kind_of, resolve, surroundings
from trioproxy.config.section import Count, Seconds, SecondsFromZero, Section, Size
from trioproxy.config.upstream import split_url

MIB: Final = 1024 * 1024
MEMORY: Final = "memory:"

_REDIS = '"redis://[[user]:password@]host[:port][/database]", or rediss:// for TLS'
_STATE = f'"{MEMORY}", or {_REDIS}'
_DATABASE = re.compile(r"/?[0-9]{0,5}/?")


def _redis(value: object) -> Secret:
    parts = split_url(value, ("redis", "rediss"), _REDIS)
    if _DATABASE.fullmatch(parts.path) is None:
        raise Wrong("does not name a database", _REDIS, "a path that is no number")
    login, at, place = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    masked = (f"{user}:***" if colon else "***") if at else ""  # Without a password the user may be one.
    netloc = f"{masked}{at}{place}"
    return Secret(str(value), f"{parts.scheme}://{netloc}{parts.path}")


def _state_url(value: object, info: ValidationInfo) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise Wrong("is not text", _STATE, kind_of(value))
    if value == MEMORY:
        return Secret(MEMORY, MEMORY)
    if not is_reference(value):
        return _redis(value)
    around = surroundings(info)
    return Secret(_redis(resolve(value, around.environ, around.directory).get_secret_value()).get_secret_value(), value)


class Hub(Section):
    """`[hub]`: how much of the streams that several clients read, or come back to, is kept."""

    max_events: Count = Field(default=10_000, description="Events of one stream that are kept.")
    max_bytes: Size = Field(default=4 * MIB, description="Size of one stream's events that are kept, in bytes.")
    max_total_bytes: Size = Field(default=256 * MIB, description="Size of all streams together, per worker, in bytes.")
    max_streams: Count = Field(default=1_000, description="Streams kept at once, per worker; more get 503.")
    max_per_caller: Count = Field(default=100, description="Streams kept at once for one caller, per worker.")
    retain_s: SecondsFromZero = Field(
        default=60.0, description="How long a stream that has ended can still be read, in seconds."
    )
    resume_max_s: Seconds = Field(
        default=300.0, description="Longest time that a stream goes on without a reader, in seconds."
    )


class State(Section):
    """`[state]`: where it is kept what all workers and replicas have to know."""

    url: Annotated[Secret, BeforeValidator(_state_url)] = Field(
        default=Secret(MEMORY, MEMORY),
        description="Where shared and resumable streams are known: memory: for each worker alone, or a Redis server.",
    )
    lease_s: Seconds = Field(
        default=15.0, description="How soon it is noticed that the replica which produces a stream is gone, in seconds."
    )

    file: FileBeside = Field(
        default=Path("state.db"),
        validate_default=True,
        description="Where one worker keeps what was used of budgets; not opened with Redis, or without budgets.",
    )

    @property
    def is_shared(self) -> bool:
        """Whether all workers and replicas see the same."""
        return self.url.get_secret_value() != MEMORY
