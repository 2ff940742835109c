"""`[[upstream]]`: an origin, and how to reach it. The keys, their defaults and rules.

What only shows when routes and upstreams are seen together (a name that is taken) is in `fit`.
"""

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from trioproxy.config.secrets import (
    Secret,
    Wrong,
    api_key,
    api_keys,
    different_keys,
    got,
    header_name,
    header_value,
    headers,
    kind_of,
    shortened,
    surroundings,
)
from trioproxy.config.section import Count, CountFromZero, Model, Seconds, Section, is_host

_NAME = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:%-]{0,252}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_BASE_URL = 'a URL such as "https://api.openai.com/v1" (no user, query or fragment)'
_PROXY_URL = 'a URL of the form "http://[user:password@]host:port"'
_HEALTH = 'a path that begins with one "/" (such as "/health"), or "chat"'


def split_url(value: object, schemes: tuple[str, ...], expected: str) -> SplitResult:
    """A URL's parts, of one of these schemes, with a host and without a query. Raises Wrong, which never echoes the
    URL: a password or a key may be anywhere in it."""
    if not isinstance(value, str):
        raise Wrong("is not text", expected, kind_of(value))
    if _VISIBLE.fullmatch(value) is None:
        raise Wrong("is not a URL", expected, "a blank, control or non-ASCII character in it, or nothing")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise Wrong("is not a URL", expected, "a host or port that cannot be read") from None
    if parts.scheme not in schemes or not value[len(parts.scheme) :].startswith("://"):
        raise Wrong("is not a URL of this kind", expected, f"no {' or '.join(f'{s}://' for s in schemes)} in front")
    if not is_host(parts.hostname or "") or port == 0:
        raise Wrong("has no usable host", expected, "no host, or one that cannot be a host or port")
    if "?" in value or "#" in value:
        raise Wrong("has a query or a fragment", expected, "a ? or # in it")
    return parts


def _base_url(value: object) -> str:
    parts = split_url(value, ("http", "https"), _BASE_URL)
    if "@" in parts.netloc:
        raise Wrong("has a user name or password in it", f"{_BASE_URL}; a key goes into api_key", "an @ in it")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _proxy(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    parts = split_url(value, ("http",), _PROXY_URL)
    if parts.port is None or parts.path.strip("/"):
        raise Wrong("is not a proxy's address", _PROXY_URL, "no port, or a path behind it")
    login, at, place = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    masked = (f"{user}:***" if colon else "***") if at else ""  # Without a password the user may be a token.
    return Secret(f"http://{parts.netloc}", f"http://{masked}{at}{place}")


def _name(value: object) -> str:
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise Wrong("is not a name", "letters, digits, dots, - and _", got(value))
    return value


def _ca_file(value: object, info: ValidationInfo) -> Path:
    expected = "the path of a PEM file with certificates"
    if not isinstance(value, (str, Path)) or str(value) == "":
        raise Wrong("is not a path", expected, got(value))
    path = surroundings(info).directory / value
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise Wrong("holds no certificates", expected, shortened(str(path))) from None
    except OSError as error:
        raise Wrong(f"cannot be read ({error.strerror})", expected, shortened(str(path))) from None
    except ValueError:  # A NUL, or what cannot be encoded, in the path.
        raise Wrong("is not a path", expected, shortened(str(path))) from None
    return path


def _health(value: object) -> str:
    if not isinstance(value, str):
        raise Wrong("is not text", _HEALTH, got(value))
    if value == "chat":
        return value
    # Behind "//" stands a host, and what is behind "#" is never sent.
    if _VISIBLE.fullmatch(value) is None or not value.startswith("/") or value.startswith("//") or "#" in value:
        raise Wrong("is not a health check", _HEALTH, got(value))
    return value


def _health_model(value: str | None, info: ValidationInfo) -> str | None:
    if value is None and info.data.get("health") == "chat":
        raise Wrong('is missing beside health = "chat"', "the model that is asked", "nothing")
    return value


ApiKey = Annotated[Secret, BeforeValidator(api_key)]
HeaderName = Annotated[str, AfterValidator(header_name)]
HeaderValue = Annotated[Secret, BeforeValidator(header_value)]
Headers = Annotated[Mapping[HeaderName, HeaderValue], AfterValidator(headers)]


class Upstream(Section):
    """`[[upstream]]`: an origin, and how to reach it."""

    base_url: Annotated[str, BeforeValidator(_base_url)] = Field(
        description="Where requests go: the URL that stands for /v1, without a trailing slash."
    )
    # Behind base_url, because the factory sees only the fields before it.
    name: Annotated[str, BeforeValidator(_name)] = Field(
        default_factory=lambda valid: urlsplit(valid["base_url"]).hostname or "",
        description="Its name in headers and logs; by default the host of base_url.",
    )
    api_key: Annotated[tuple[ApiKey, ...], BeforeValidator(api_keys), AfterValidator(different_keys)] = Field(
        default=(),
        strict=False,
        description="Reference to the upstream's key, or a list of them; without one the client's own goes through.",
    )
    headers: Headers = Field(
        default_factory=dict, description="Headers set on every request; values may be references."
    )
    dialect: Literal["openai", "anthropic"] = Field(
        default="openai", description="Which routes it serves; nothing is translated."
    )
    max_concurrent: Count | None = Field(
        default=None, description="Requests under way there at once, per worker; off by default."
    )
    max_waiting: CountFromZero = Field(
        default=100, description="Requests that may wait for a place when max_concurrent is reached, per worker."
    )
    health: Annotated[str, BeforeValidator(_health)] | None = Field(
        default=None, description="What is asked to see whether it works: a path of its host, or chat; off by default."
    )
    # Behind health, because the rule sees only the fields before it.
    health_model: Annotated[Model | None, AfterValidator(_health_model)] = Field(
        default=None,
        validate_default=True,
        description="The model that is asked for one token (max_tokens) when health is chat.",
    )
    health_interval_s: Seconds = Field(default=10.0, description="How long from one check to the next, in seconds.")
    streams: bool = Field(
        default=True, description="Whether it can stream; if not, a client's stream is made from the whole answer."
    )
    usage: Literal["never", "ask"] = Field(
        default="never", description="Is a chat stream's usage asked for where its client does not (ask), or not."
    )
    proxy: Annotated[Secret, BeforeValidator(_proxy)] | None = Field(
        default=None, description="Outbound HTTP proxy; none is ever taken from the environment."
    )
    ca_file: Annotated[Path, BeforeValidator(_ca_file)] | None = Field(
        default=None, description="PEM file of the authorities to trust instead of the usual ones."
    )

    @property
    def holds_secrets(self) -> bool:
        """Whether something is added to its requests that is meant for this origin alone."""
        return bool(self.api_key or self.headers)
