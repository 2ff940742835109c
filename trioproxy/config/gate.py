"""`[[key]]`, `[gate]`, `[[price]]` and `[cors]`: who may stream, how much, and at what price. The keys, their defaults
and rules.

Nothing here ever shows a key: of a `[[key]]` only the SHA-256 of its secret is known. What only shows when keys and
upstreams are seen together (a name that is taken) is in `fit_keys`; the file of further keys is read by `keys_file`.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from trioproxy.config.route import Glob
from trioproxy.config.secrets import Wrong, got, kind_of, shortened, suggested, surroundings
from trioproxy.config.section import Count, Seconds, Section
from trioproxy.config.upstream import split_url

PREFIX_OF_SECRETS: Final = "tpk_"
KEYS_FILE: Final = "keys.toml"
MAX_TOKENS: Final = 10**15
MAX_USD: Final = 1_000_000
STATE_KINDS: Final = ("requests", "tokens", "streams", "budgets")
"""The kinds of limits, as `policy/limits` names them."""

_PICO: Final = 10**12
_MICRO: Final = Decimal("0.000001")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_DECIMAL = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
_PLUGIN = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_EXPECTED_NAME = "up to 64 letters, digits, dots, - and _, the first a letter or digit"
_EXPECTED_HASH = '"sha256:" and the 64 digits (lower case) of the SHA-256 of the key\'s secret'
_EXPECTED_TIME = 'a date or a time, such as 2027-01-31 or "2027-01-31T18:00:00Z" (without a zone it is UTC)'
_ORIGIN = '"https://HOST[:PORT]" or "http://HOST[:PORT]"'
_WORDS = ("open", "closed")


def hash_of(secret: str) -> str:
    """What a `[[key]]` holds of its secret. A secret is 256 random bits, so that nothing slower or salted is needed."""
    return "sha256:" + hashlib.sha256(secret.encode("utf-8")).hexdigest()


def picodollars(dollars: Decimal) -> int:
    """Money as a whole number of 10^-12 dollars; exact for all that is allowed here."""
    return int(dollars * _PICO)


def _key_name(value: object) -> str:
    if isinstance(value, str) and value.startswith(PREFIX_OF_SECRETS):
        raise Wrong("looks like a key's secret", _EXPECTED_NAME, "text (not shown)")  # names are in every log
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise Wrong("is not a key's name", _EXPECTED_NAME, got(value))
    return value


def _hash(value: object) -> str:
    if isinstance(value, str) and value.startswith(PREFIX_OF_SECRETS):
        raise Wrong("is a key's secret itself", f"{_EXPECTED_HASH}, never the secret", "text (not shown)")
    if not isinstance(value, str) or _HASH.fullmatch(value) is None:
        raise Wrong("is not a hash", _EXPECTED_HASH, kind_of(value))
    return value


def _not_an_empty_list(value: object) -> object:
    # Whoever writes [] may well mean "none", but left out it means "all".
    if isinstance(value, list) and not value:
        raise Wrong("is empty", "at least one; left out it means all", "[]")
    return value


def _upstream_name(value: object) -> str:
    if not isinstance(value, str):
        raise Wrong("is not text", "the name of an upstream", got(value))
    return value


def _moment(value: object) -> datetime:
    """A date is its beginning; what has no zone is UTC's."""
    # A TOML date or time is one of Python's, and its text is what was typed.
    text = value.isoformat() if isinstance(value, date) else value
    if not isinstance(text, str):
        raise Wrong("is not a time", _EXPECTED_TIME, got(value))
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Wrong("is not a time", _EXPECTED_TIME, shortened(text)) from None


def _decimal(value: object, expected: str) -> Decimal:
    """A number as it was typed: TOML's floats are read back from their shortest text, so that 0.1 is a tenth."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        number = Decimal(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = Decimal(repr(value)) if abs(value) <= MAX_USD else Decimal(-1)  # nan is no less than anything
    elif isinstance(value, Decimal):
        number = value if value.is_finite() else Decimal(-1)
    else:
        raise Wrong("is not a number", expected, got(value))
    if not 0 <= number <= MAX_USD:
        raise Wrong("is out of range", expected, got(value))
    if number != number.quantize(_MICRO):
        raise Wrong("has too many decimals", expected, got(value))
    return number


def _dollars(value: object) -> Decimal:
    expected = f"dollars > 0, at most {MAX_USD}, with at most 6 decimals"
    number = _decimal(value, expected)
    if number == 0:
        raise Wrong("is out of range", expected, got(value))
    return number


def _price(value: object) -> Decimal:
    return _decimal(value, f"dollars per million tokens, from 0 to {MAX_USD}, with at most 6 decimals")


def _tokens(value: object) -> int:
    expected = f"a number from 1 to {MAX_TOKENS}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong("is not a whole number", expected, got(value))
    if not 1 <= value <= MAX_TOKENS:
        raise Wrong("is out of range", expected, got(value))
    return value


def file_beside(value: object, info: ValidationInfo) -> Path:
    """The rule of a file of ours, which need not exist: a path, from the configuration's folder on. Raises Wrong."""
    expected = "the path of a file"
    if not isinstance(value, (str, Path)) or str(value) in ("", ".") or "\0" in str(value):
        raise Wrong("is not a path", expected, got(value))
    return surroundings(info).directory / value


def is_default_file(value: object, directory: Path) -> bool:
    """Whether this is the keys file that is looked for if none is named."""
    return isinstance(value, (str, Path)) and directory / value == directory / KEYS_FILE


def _on_state_loss(value: object) -> str | dict[str, str]:
    words = 'one of "open", "closed", or a table such as { budgets = "closed" }'
    if isinstance(value, str):
        if value not in _WORDS:
            raise Wrong("is not a known word", words, shortened(value))
        return value
    if not isinstance(value, Mapping):
        raise Wrong("is neither a word nor a table", words, got(value))
    for kind, word in value.items():
        if kind not in STATE_KINDS:
            expected = suggested(str(kind), STATE_KINDS, f"one of {', '.join(STATE_KINDS)}")
            raise Wrong("names no kind of limits", expected, shortened(str(kind)))
        if word not in _WORDS:
            raise Wrong(f"says nothing known of {kind}", '"open" or "closed"', got(word))
    return dict(value)


def _plugin(value: object) -> str:
    expected = '"module:function", such as "our_rules:look_at"'
    if not isinstance(value, str) or _PLUGIN.fullmatch(value) is None:
        raise Wrong("is not the name of a function", expected, got(value))
    return value


def _origin(value: object) -> str:
    """An origin as browsers write it: lower case, and no port that goes without saying."""
    if value in ("*", "null"):
        raise Wrong("lets every page in", f"each origin by its name, {_ORIGIN}", got(value))
    parts = split_url(value, ("http", "https"), _ORIGIN)
    if parts.path or "@" in parts.netloc:
        raise Wrong("is more than an origin", f"{_ORIGIN}, without a path", "a path, a closing / or a user in it")
    usual = {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, usual) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


Tokens = Annotated[int, BeforeValidator(_tokens)]
Dollars = Annotated[Decimal, BeforeValidator(_dollars)]
PricePerMillion = Annotated[Decimal, BeforeValidator(_price)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
UpstreamName = Annotated[str, BeforeValidator(_upstream_name)]
FileBeside = Annotated[Path, BeforeValidator(file_beside)]


class KeyLimits(Section):
    """`limits` of a key, or of everything together; all off by default. Days and months are UTC's."""

    rpm: Count | None = Field(default=None, description="Requests in any 60 seconds.")
    tpm: Tokens | None = Field(default=None, description="Tokens in any 60 seconds.")
    streams: Count | None = Field(default=None, description="Requests under way at once.")
    tokens_per_day: Tokens | None = Field(default=None, description="Tokens in a day.")
    tokens_per_month: Tokens | None = Field(default=None, description="Tokens in a month.")
    usd_per_day: Dollars | None = Field(default=None, description="Dollars in a day; needs prices.")
    usd_per_month: Dollars | None = Field(default=None, description="Dollars in a month; needs prices.")

    @property
    def are_set(self) -> bool:
        """Whether anything is limited."""
        return any(value is not None for _, value in self)

    @property
    def has_money(self) -> bool:
        """Whether money is limited, so that a model without a price cannot be used."""
        return self.usd_per_day is not None or self.usd_per_month is not None


class Key(Section):
    """`[[key]]`: a virtual key, and what it may use."""

    name: Annotated[str, BeforeValidator(_key_name)] = Field(description="Its name in logs, metrics and commands.")
    hash: Annotated[str, BeforeValidator(_hash)] = Field(
        repr=False, description="The SHA-256 of its secret, as sha256:…; the secret itself is nowhere."
    )
    models: Annotated[tuple[Glob, ...], BeforeValidator(_not_an_empty_list)] = Field(
        default=(), strict=False, description="The models that it may use, as globs; by default all."
    )
    upstreams: Annotated[tuple[UpstreamName, ...], BeforeValidator(_not_an_empty_list)] = Field(
        default=(), strict=False, description="The upstreams that it may use; by default all."
    )
    expires: Moment | None = Field(default=None, description="From when on it is of no use; by default never.")
    revoked: Moment | None = Field(default=None, description="From when on it was taken back; by default never.")
    limits: KeyLimits = Field(default=KeyLimits(), description="How much it may use.")


class Gate(Section):
    """`[gate]`: how clients are let in."""

    keys_file: FileBeside = Field(
        default=Path(KEYS_FILE),
        validate_default=True,
        description="The file of further keys, which is read again when it changes.",
    )
    allow_open: bool = Field(
        default=False, description="Whether everybody who reaches the proxy may use the upstreams' keys."
    )
    on_state_loss: Annotated[str | Mapping[str, str], BeforeValidator(_on_state_loss)] = Field(
        default="open", description="Whether limits let through (open) or refuse (closed) what cannot be counted."
    )
    output_tokens: Count = Field(
        default=1_000, description="Tokens reserved for an answer whose request sets no maximum."
    )
    plugin: Annotated[str, BeforeValidator(_plugin)] | None = Field(
        default=None, description="What is asked about every request, as module:function; off by default."
    )
    plugin_s: Seconds = Field(default=1.0, description="How long the plugin may take, in seconds.")
    limits: KeyLimits = Field(default=KeyLimits(), description="How much all requests together may use.")

    @model_validator(mode="before")
    @classmethod
    def _default_is_not_asked_for(cls, given: Any, info: ValidationInfo) -> Any:
        # A file that is named turns keys on, even before it is there. The default is not named by saying it, so that a
        # configuration with all defaults written out, as `show` writes it, means the same as an empty one.
        if isinstance(given, dict) and is_default_file(given.get("keys_file"), surroundings(info).directory):
            return {key: value for key, value in given.items() if key != "keys_file"}
        return given

    @property
    def names_keys_file(self) -> bool:
        """Whether the operator asks for a keys file at a place of its own, so that it is missed if it is not there."""
        return "keys_file" in self.model_fields_set

    @property
    def open_kinds(self) -> frozenset[str]:
        """The kinds of limits that let through what cannot be counted."""
        said = self.on_state_loss
        words = dict.fromkeys(STATE_KINDS, said) if isinstance(said, str) else said
        return frozenset(kind for kind in STATE_KINDS if words.get(kind, "open") == "open")


class Price(Section):
    """`[[price]]`: what the tokens of a model cost. The first that fits the model counts."""

    model: Glob = Field(description="The model as its upstream calls it, or a glob.")
    input: PricePerMillion = Field(description="Dollars per million tokens of the prompt.")
    output: PricePerMillion = Field(description="Dollars per million tokens of the answer.")
    cached: PricePerMillion | None = Field(
        default=None, description="Dollars per million tokens of the prompt that were cached; by default as input."
    )


class Cors(Section):
    """`[cors]`: the pages whose scripts may talk to the proxy."""

    origins: tuple[Annotated[str, BeforeValidator(_origin)], ...] = Field(
        default=(), strict=False, description="Their origins, each https://HOST[:PORT] or http://…; none by default."
    )


def _one_or_more(value: object, section: str) -> object:
    if isinstance(value, dict):
        raise Wrong("is one table", f"[[{section}]], with two brackets on each side", f"[{section}]")
    return value


Keys = Annotated[tuple[Key, ...], BeforeValidator(lambda value: _one_or_more(value, "key"))]
Prices = Annotated[tuple[Price, ...], BeforeValidator(lambda value: _one_or_more(value, "price"))]
