"""One upstream of the configuration, ready for use: where it is, how it is reached, what is added to its requests."""

import ssl
from collections.abc import Sequence

import httpx

from trioproxy.telemetry.tally import Tally
from trioproxy.upstream.connect import Connector, OpenTcp, open_tcp
from trioproxy.upstream.pool import Pool
from trioproxy.upstream.transport import TrioTransport
from trioproxy.wire.headers import Headers

_PREFIX = b"/v1"


class Endpoint:
    """Where requests go. `base_url` ends with the path that stands for the proxy's `/v1`.

    `connect_s` bounds the opening of a connection that no request asked for. Secrets are in `headers` only, and never
    in a `repr`. `attempts` counts those that an answer came to.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        pool: Pool,
        connect_s: float,
        headers: Sequence[tuple[bytes, bytes]] = (),
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        open_tcp: OpenTcp = open_tcp,
    ) -> None:
        self.name = name
        self.url = httpx.URL(base_url)
        self.connect_s = connect_s
        self.host = self.url.netloc
        self.attempts = Tally()
        self._path = self.url.raw_path.rstrip(b"/")
        self._headers = list(headers)
        self._replaced = frozenset(name for name, _ in headers)
        connector = Connector(tls=tls, proxy=httpx.URL(proxy) if proxy else None, open_tcp=open_tcp)
        self.transport = TrioTransport(connector, pool)

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.host.decode('ascii')}>"

    def target(self, target: bytes) -> bytes:
        """The request target at this origin: ours with another prefix, path and query as the client wrote them."""
        return self._path + target.removeprefix(_PREFIX)

    def dress(self, headers: Headers) -> Headers:
        """The request's fields for this origin: its host, its own fields in place of the client's."""
        kept = [header for header in headers if header[0] not in self._replaced] if self._replaced else headers
        return [(b"host", self.host), *kept, *self._headers]
