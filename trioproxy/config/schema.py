"""The configuration's shape: every section, key, default and rule. One frozen model for each section.

This is the only place that says which keys exist and what they may hold. It reads no configuration file and merges
nothing (that is `load`), but it does look behind a reference to a secret and into a CA file, because a value that leads
nowhere is a wrong value. Built by `load`; read by `server/build`, which hands each part its own section.

A rule raises `Wrong`, whose text is the whole sentence an operator reads. Relative paths start at the folder of the
configuration file, or at the working directory when there is none.
"""

import ipaddress
import ssl
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from trioproxy.config.fit import misfits
from trioproxy.config.gate import Cors, Gate, Keys, Prices
from trioproxy.config.hub import Hub, State
from trioproxy.config.route import Deadlines, Route
from trioproxy.config.secrets import Secret, Wrong, api_key, got, shortened, surroundings
from trioproxy.config.section import (
    BIND,
    Count,
    Millis,
    Seconds,
    SecondsFromZero,
    Section,
    Size,
    is_host,
    is_loopback,
    split_bind,
)
from trioproxy.config.telemetry import Telemetry
from trioproxy.config.upstream import Upstream

KIB: Final = 1024
MIB: Final = 1024 * KIB
MAX_WORKERS: Final = 256

_NOTHING: Final[Any] = {}  # a section of which nothing was given


def _workers(value: object) -> int | str:
    expected = f'a number from 1 to {MAX_WORKERS}, or "auto" (one per core)'
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong("is not a number of processes", expected, got(value))
    if not 1 <= value <= MAX_WORKERS:
        raise Wrong("is out of range", expected, got(value))
    return value


def _bind(value: object) -> str:
    if not isinstance(value, str):
        raise Wrong("is not text", BIND, got(value))
    split_bind(value)
    return value


def _admin_bind(value: object) -> str:
    return "off" if value == "off" else _bind(value)


def _bind_list(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise Wrong("is empty", f"at least one {BIND}", "no address")
    fixed = [bind for bind in value if split_bind(bind)[1] != 0]
    twice = next((bind for bind in fixed if fixed.count(bind) > 1), None)
    if twice is not None:
        raise Wrong("names an address twice", "each address once", shortened(twice))
    return value


def _readable(value: object, info: ValidationInfo) -> Path:
    expected = "the path of a PEM file"
    if not isinstance(value, (str, Path)) or str(value) in ("", "."):
        raise Wrong("is not a path", expected, got(value))
    path = surroundings(info).directory / value
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise Wrong(f"cannot be read ({error.strerror})", expected, shortened(str(path))) from None
    except ValueError:  # A NUL, or what cannot be encoded, in the path.
        raise Wrong("is not a path", expected, shortened(str(path))) from None


def _network(value: object) -> str:
    expected = 'an address or a network such as "10.0.0.0/8"'
    if not isinstance(value, str):
        raise Wrong("is not text", expected, got(value))
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise Wrong("is not a network", expected, got(value)) from None


def _host_name(value: object) -> str:
    expected = 'a host\'s name or address without a port, such as "proxy.internal"'
    if not isinstance(value, str) or not is_host(value):
        raise Wrong("is not a host", expected, got(value))
    return value.lower()


def _upstream_list(value: object) -> object:
    if isinstance(value, dict):
        raise Wrong("is one table", "[[upstream]], with two brackets on each side", "[upstream]")
    return value


def _route_list(value: object) -> object:
    if isinstance(value, dict):
        raise Wrong("is one table", "[[route]], with two brackets on each side", "[route]")
    return value


def _some_upstream(value: tuple["Upstream", ...]) -> tuple["Upstream", ...]:
    if not value:
        raise Wrong("is missing", "--upstream https://api.openai.com/v1, or [[upstream]] in a file", "none")
    return value


Bind = Annotated[str, BeforeValidator(_bind)]
HostName = Annotated[str, BeforeValidator(_host_name)]
Network = Annotated[str, BeforeValidator(_network)]
Readable = Annotated[Path, BeforeValidator(_readable)]


class Tls(Section):
    """`[server.tls]`: the certificate that the data address shows."""

    cert: Readable = Field(description="PEM file of the certificate, and of those between it and its authority.")
    key: Readable = Field(description="PEM file of the certificate's private key, without a password.")

    @model_validator(mode="after")
    def _belong_together(self) -> "Tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key, password="")  # nobody is there to type one
        except (OSError, ValueError):
            found = f"{shortened(str(self.cert))} and {shortened(str(self.key))}"
            raise Wrong("cannot be used", "a certificate and the private key that belongs to it", found) from None
        return self


class Server(Section):
    """`[server]`: the address clients talk to."""

    bind: Annotated[tuple[Bind, ...], AfterValidator(_bind_list)] = Field(
        default=("127.0.0.1:8080",), strict=False, description="Where to listen, each HOST:PORT; port 0 is any."
    )
    max_body_bytes: Size = Field(default=64 * MIB, description="Largest request body that is held in memory, in bytes.")
    max_upload_bytes: Size = Field(default=1024 * MIB, description="Largest request body that is streamed, in bytes.")
    max_header_bytes: Size = Field(default=64 * KIB, description="Largest head of a request, in bytes.")
    keep_alive_s: Seconds = Field(default=75.0, description="How long an idle client connection stays, in seconds.")
    workers: Annotated[int | Literal["auto"], BeforeValidator(_workers)] = Field(
        default=1, description="How many processes serve; auto is one per core."
    )
    max_streams: Count = Field(default=5_000, description="Requests under way at once, per worker; more get 503.")
    max_lag_s: Seconds | None = Field(
        default=None, description="New requests get 503 while the event loop is later than this, in seconds."
    )
    max_memory_bytes: Size | None = Field(
        default=None, description="New requests get 503 while a worker's memory is above this, in bytes."
    )
    max_connections: Count = Field(
        default=10_000, description="Client connections open at once, per worker; more get 503."
    )
    header_s: Seconds = Field(default=10.0, description="Time for the head of a request, TLS included, in seconds.")
    body_idle_s: Seconds = Field(
        default=30.0, description="How long a client that owes a body may send nothing, in seconds."
    )
    half_close: Literal["gone", "keep"] = Field(
        default="gone", description="Is a client that has sent its end of file gone, or still reading (keep)."
    )
    hosts: tuple[HostName, ...] = Field(
        default=(), strict=False, description="Names that a loopback address answers to, beside the loopback names."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(), strict=False, description="Networks whose word is taken for the address of a client behind them."
    )
    tls: Tls | None = Field(default=None, description="The certificate; without one the address speaks plain HTTP.")


class Stream(Section):
    """`[stream]`: how a stream looks to the client."""

    heartbeat_s: Seconds = Field(default=15.0, description="Silence after which the client gets a comment, in seconds.")
    commit_after_s: Seconds = Field(default=10.0, description="How long the head waits for first content, in seconds.")
    commit_before_head_s: Seconds | None = Field(
        default=None, description="How long a stream's head waits for the upstream's own; off by default, in seconds."
    )
    end: Literal["strict", "lenient"] = Field(
        default="strict", description="Is a stream without its terminal event a fault (strict) or not (lenient)."
    )
    coalesce_ms: Millis | None = Field(
        default=None, description="How long events wait for others to go out with; off by default, in milliseconds."
    )
    coalesce_events: Count = Field(default=100, description="How many events are written at once, if they wait.")


class Drain(Section):
    """`[drain]`: how the proxy stops."""

    delay_s: SecondsFromZero = Field(
        default=0.0, description="How long it goes on accepting at a stop, while /readyz says no, in seconds."
    )
    timeout_s: SecondsFromZero = Field(
        default=30.0, description="How long open streams may go on at a stop, in seconds."
    )


class Admin(Section):
    """`[admin]`: the address operators talk to."""

    bind: Annotated[str, BeforeValidator(_admin_bind)] = Field(
        default="127.0.0.1:9901", description="Where metrics and resources are shown, HOST:PORT; off for nowhere."
    )
    key: Annotated[Secret, BeforeValidator(api_key)] | None = Field(
        default=None, description="Reference to the key that it demands; needed off loopback."
    )

    @model_validator(mode="after")
    def _has_key_off_loopback(self) -> "Admin":
        if self.bind != "off" and self.key is None and not is_loopback(split_bind(self.bind)[0]):
            raise Wrong("needs a key", 'admin.key, for example "env:PROXY_ADMIN_KEY"', f"{shortened(self.bind)} alone")
        return self


class Config(Section):
    """The whole configuration. Made by `load`; a value that got in here can be used without another look."""

    server: Server = Field(default=Server(), description="The address clients talk to.")
    deadlines: Deadlines = Field(default=Deadlines(), description="How long each part of a request may take.")
    stream: Stream = Field(default=Stream(), description="How a stream looks to the client.")
    drain: Drain = Field(default=Drain(), description="How the proxy stops.")
    upstream: Annotated[tuple[Upstream, ...], BeforeValidator(_upstream_list), AfterValidator(_some_upstream)] = Field(
        default=(), strict=False, validate_default=True, description="The origins, one at least."
    )
    route: Annotated[tuple[Route, ...], BeforeValidator(_route_list)] = Field(
        default=(), strict=False, description="What holds for some models."
    )
    key: Keys = Field(default=(), strict=False, description="Virtual keys, and what each may use.")
    price: Prices = Field(default=(), strict=False, description="What the tokens of models cost.")
    # Made for each configuration: their paths start at its folder.
    gate: Gate = Field(
        default=_NOTHING, validate_default=True, description="How clients are let in, and what all together may use."
    )
    cors: Cors = Field(default=Cors(), description="The pages whose scripts may talk to the proxy.")
    hub: Hub = Field(default=Hub(), description="The streams that are kept to be shared and resumed.")
    state: State = Field(
        default=_NOTHING,
        validate_default=True,
        description="Where it is kept what all workers and replicas have to know.",
    )
    admin: Admin = Field(default=Admin(), description="The address operators talk to.")
    telemetry: Telemetry = Field(default=Telemetry(), description="What the proxy tells about itself.")

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> "Config":
        # `load` asks for all of them, and for those of a tree that is also wrong elsewhere.
        for _, wrong in misfits(self.model_dump(exclude_unset=True), surroundings(info).directory):
            raise wrong
        return self
