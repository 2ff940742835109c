"""What a route says of requests' parameters: some are dropped, defaulted or forced; then bounds are kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trioproxy.errors import RequestRefused
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.measures import Bounds, beyond


@dataclass(frozen=True, slots=True)
class RequestRules:
    """The rules of one route. Values are JSON."""

    bounds: Bounds = field(default_factory=Bounds)
    force: Mapping[str, bytes] = field(default_factory=dict)
    default: Mapping[str, bytes] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()

    def apply(self, request: JsonObject, dialect: Dialect) -> JsonObject:
        """The request as it may go on; all that no rule names stays as it was sent. Raises RequestRefused."""
        for name in self.drop & request.members.keys():
            request = JsonObject.parse(request.without(name))
        added = {name: value for name, value in self.default.items() if name not in request.members}
        if added or self.force:
            request = JsonObject.parse(request.replace({**added, **self.force}))
        found = beyond(self.bounds, request, dialect)
        if found is not None:
            name, what = found
            raise RequestRefused(f"'{name}' {what} here.", param=name)
        return request
