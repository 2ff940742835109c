"""One upstream of the configuration, ready for use: where it is, how it is reached, what is added to its requests."""

import ssl
from collections.abc import Sequence

import httpx

from trioproxy.policy.breaker import Breaker, BreakerRules
from trioproxy.policy.health import Health
from trioproxy.policy.keys import KeyRing
from trioproxy.policy.plan import Ewma
from trioproxy.telemetry.tally import Tally
from trioproxy.upstream.connect import Connector, OpenTcp, open_tcp
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.slots import Slots
from trioproxy.upstream.transport import TrioTransport
from trioproxy.wire.headers import Headers
from trioproxy.wire.upgrade import without_secrets

_PREFIX = b"/v1"


class Endpoint:
    """Where requests go. `base_url` ends with the path that stands for the proxy's `/v1`.

    `streams`: whether it can answer with a stream; `asks_usage`: whether it is asked for the usage of each. `connect_s`
    bounds the opening of a connection that no request asked for. Secrets are in `headers` only, and never in a `repr`.
    `attempts` counts those that an answer came to.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        pool: Pool,
        connect_s: float,
        headers: Sequence[tuple[bytes, bytes]] = (),
        keys: Sequence[tuple[bytes, bytes]] = (),
        is_anthropic: bool = False,
        max_concurrent: int | None = None,
        max_waiting: int = 0,
        streams: bool = True,
        asks_usage: bool = False,
        attempts: Tally | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        open_tcp: OpenTcp = open_tcp,
    ) -> None:
        self.name = name
        self.url = httpx.URL(base_url)
        self.connect_s = connect_s
        self.host = self.url.netloc
        self.is_anthropic = is_anthropic
        self.streams = streams
        self.asks_usage = asks_usage
        self.attempts = attempts if attempts is not None else Tally()
        self.slots = Slots(max_concurrent, max_waiting)
        self.keys = KeyRing(len(keys))
        self.breaker = Breaker(BreakerRules())
        self.health = Health()
        self.first_content = Ewma()
        self._path = self.url.raw_path.rstrip(b"/")
        self._headers = list(headers)
        self._keys = list(keys)
        self._replaced = frozenset(name for name, _ in [*headers, *keys])
        connector = Connector(tls=tls, proxy=httpx.URL(proxy) if proxy else None, open_tcp=open_tcp)
        self.transport = TrioTransport(connector, pool)

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.host.decode('ascii')}>"

    def target(self, target: bytes) -> bytes:
        """The request target at this origin: ours with another prefix, path and query as the client wrote them."""
        return self._path + target.removeprefix(_PREFIX)

    @property
    def has_own_key(self) -> bool:
        """Whether its requests carry a key of its own in place of the client's."""
        return not self._replaced.isdisjoint((b"authorization", b"x-api-key"))

    def has_key(self, now: float) -> bool:
        """Whether a request could be sent with a key: one of its own, or the client's where it has none."""
        count = len(self._keys)
        return count <= 1 or any(self.keys.is_usable(index, now) for index in range(count))

    def first_key(self, now: float) -> int | None:
        """The key for a request that no client asked for: the first that is usable, or else the first; None if it has
        none of its own. It is not taken: such a request counts for nothing."""
        indexes = range(len(self._keys))
        return next((index for index in indexes if self.keys.is_usable(index, now)), 0 if self._keys else None)

    def dress(self, headers: Headers, key: int | None = None) -> Headers:
        """The request's fields for this origin: its host, its own fields and key for the client's."""
        kept = [header for header in headers if header[0] not in self._replaced] if self._replaced else headers
        if self.has_own_key:
            kept = without_secrets(kept)
        own = self._headers if key is None else [*self._headers, self._keys[key]]
        return [(b"host", self.host), *kept, *own]
