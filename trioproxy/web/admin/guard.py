"""Who may use the admin address: any web page can reach a loopback port, and anybody the others.

On a loopback bind only requests are taken that name it by a loopback name, or by one that the operator has set (see
`web/visitors`); off loopback every request has to show the key. A browser's request from another origin is refused in
any case. A page shows the key once, and then its session's cookie and, with what changes something, its token.
"""

import hmac
from collections.abc import Collection

from trioproxy.errors import ForeignHost, ForeignOrigin, InvalidKey
from trioproxy.web.admin.sessions import Session, Sessions
from trioproxy.web.visitors import has_known_host
from trioproxy.wire.headers import Headers, find
from trioproxy.wire.pages import has_foreign_origin

CSRF = b"x-csrf-token"
_AUTHORIZATION = b"authorization"
_BEARER = b"bearer "


class Guard:
    """Checks requests to one address. `key` is demanded if there is one; None only on loopback, where `hosts` are the
    names that it answers to beside the loopback names. `sessions` are those of the process, whichever guard it has."""

    def __init__(
        self, *, is_loopback: bool, key: str | None, hosts: Collection[str] = (), sessions: Sessions | None = None
    ) -> None:
        self._is_loopback = is_loopback
        self._hosts = frozenset(host.rstrip(".") for host in hosts)
        self._key = None if key is None else key.encode("ascii")
        self._sessions = sessions or Sessions()

    @property
    def needs_key(self) -> bool:
        return self._key is not None

    def check(self, headers: Headers, *, changes: bool = False) -> None:
        """Raises ForeignHost, ForeignOrigin or InvalidKey. `changes`: the request is not only a look."""
        self.check_place(headers)
        self.check_key(headers, changes=changes)

    def check_place(self, headers: Headers) -> None:
        """Raises ForeignHost or ForeignOrigin."""
        if self._is_loopback and not has_known_host(headers, self._hosts):
            raise ForeignHost("This address answers to localhost and to the names in server.hosts; use one of them.")
        if has_foreign_origin(headers):
            raise ForeignOrigin("Pages of other sites may not use this address.")

    def check_key(self, headers: Headers, *, changes: bool = False) -> None:
        """Raises InvalidKey, or ForeignOrigin for a change that a cookie alone asks for: a browser sends that along
        whoever made it ask."""
        if self._key is None:
            return
        if shows_key(headers):
            if not self.is_key(_shown_key(headers)):
                raise InvalidKey("This is not the key of this address.")
            return
        session = self.session(headers)
        if session is None:
            raise InvalidKey("This address needs its key: send 'Authorization: Bearer KEY'.")
        token = find(headers, CSRF) or b""
        if changes and not hmac.compare_digest(token, session.token.encode("ascii")):
            raise ForeignOrigin("With a session's cookie a change needs the session's token, in 'x-csrf-token'.")

    def is_key(self, shown: bytes) -> bool:
        """Whether this is the key that is demanded."""
        return self._key is not None and hmac.compare_digest(shown, self._key)

    def session(self, headers: Headers) -> Session | None:
        """The session whose cookie is shown."""
        return None if self._key is None else self._sessions.find(headers, self._key)

    def begin_session(self) -> tuple[bytes, Session]:
        """A session for who has shown the key: what `set-cookie` says, and the session. There is a key."""
        assert self._key is not None
        return self._sessions.begin(self._key)

    def end_session(self, session: Session) -> None:
        """Let a session end now."""
        self._sessions.end(session)


def shows_key(headers: Headers) -> bool:
    """Whether a key is shown, right or wrong."""
    return find(headers, _AUTHORIZATION) is not None


def _shown_key(headers: Headers) -> bytes:
    shown = find(headers, _AUTHORIZATION) or b""
    return shown[len(_BEARER) :].strip() if shown[: len(_BEARER)].lower() == _BEARER else b""
