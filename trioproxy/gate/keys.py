"""The virtual keys that are in force, and who shows one.

A secret is looked up by its hash: nothing is compared character by character, and nothing is parsed or asked for on the
way of a request. Put in force by `gate`, whenever the keys file has changed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from math import inf

from trioproxy.errors import InvalidKey
from trioproxy.policy.limits import Limits
from trioproxy.policy.routing import Routes

_SECRET = re.compile(rb"tpk_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """One `[[key]]`.

    Attributes:
        name: its name in logs, metrics and limits.
        digest: SHA-256 of its secret.
        models: whether it may ask for a model; None: for all.
        upstreams: those that may be asked for it; None: all.
        expires, revoked: until when it is good, and from when on it was taken back, in seconds since 1970.
        caller: what tells its user from others; it stays the same when the secret is changed.
    """

    name: str
    digest: bytes
    models: Routes[bool] | None = None
    upstreams: frozenset[str] | None = None
    expires: float = inf
    revoked: float = inf
    limits: Limits = field(default_factory=Limits)
    caller: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "caller", sha256(b"virtual key " + self.name.encode()).hexdigest())


class VirtualKeys:
    """All of them."""

    def __init__(self, keys: Iterable[VirtualKey]) -> None:
        self.by_name = {key.name: key for key in keys}
        self._by_digest = {key.digest: key for key in self.by_name.values()}
        self._by_caller = {key.caller: key for key in self.by_name.values()}

    def find(self, secret: bytes, now: float) -> VirtualKey:
        """The key of this secret; `now` is in seconds since 1970. Raises InvalidKey."""
        key = self._by_digest.get(sha256(secret).digest()) if _SECRET.fullmatch(secret) else None
        if key is None:
            raise InvalidKey("The key is not one of this server's.")
        return _in_force(key, now)

    def find_caller(self, caller: str | None, now: float) -> VirtualKey:
        """The key whose user this is. Raises InvalidKey."""
        key = None if caller is None else self._by_caller.get(caller)
        if key is None:
            raise InvalidKey("The key behind this is not one of this server's any more.")
        return _in_force(key, now)


def _in_force(key: VirtualKey, now: float) -> VirtualKey:
    if now >= key.revoked:
        raise InvalidKey("This key was revoked.")
    if now >= key.expires:
        raise InvalidKey("This key has expired.")
    return key


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. `key` None: no keys are configured, clients' own credentials go through. `caller` tells one from
    others; None for a client that shows nothing. `model`: the only one that may be asked for, by a token that is bound
    to it."""

    key: VirtualKey | None = None
    caller: str | None = None
    model: str | None = None

    @property
    def name(self) -> str | None:
        """The key's name."""
        return None if self.key is None else self.key.name

    @property
    def upstreams(self) -> frozenset[str] | None:
        """The upstreams that may be asked; None: all."""
        return None if self.key is None else self.key.upstreams

    @property
    def is_bound(self) -> bool:
        """Whether only some models may be asked for."""
        return self.model is not None or (self.key is not None and self.key.models is not None)

    def may_ask(self, model: str | None) -> bool:
        """Whether a model may be asked for; None is the one that an upstream chooses by itself."""
        if not self.is_bound:
            return True
        if model is None or (self.model is not None and model != self.model):
            return False
        return self.key is None or self.key.models is None or self.key.models.find(model)
