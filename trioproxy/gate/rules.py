"""What a route says of requests' parameters: some are dropped, defaulted or forced; then bounds are kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from trioproxy.errors import RequestRefused
from trioproxy.wire.dialect import Dialect
from trioproxy.wire.json_object import JsonObject
from trioproxy.wire.measures import Bounds, beyond

_READ: Final = frozenset(
    {"model", "stream", "stream_options", "background", "max_tokens", "max_completion_tokens", "max_output_tokens"}
    | {"n", "best_of", "messages", "input", "prompt"}
)
"""The members that the gate goes by."""


@dataclass(frozen=True, slots=True)
class RequestRules:
    """The rules of one route. Values are JSON. `names`: the members that rules name, by how they are written without
    regard to case."""

    bounds: Bounds = field(default_factory=Bounds)
    force: Mapping[str, bytes] = field(default_factory=dict)
    default: Mapping[str, bytes] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        named = _READ | self.force.keys() | self.default.keys() | self.drop
        object.__setattr__(self, "names", {name.casefold(): name for name in named})

    def check_spelling(self, request: JsonObject) -> None:
        """Raise RequestRefused for a member that is one of ours but for upper and lower case: some origins take it for
        that one, and what holds for that one would be dodged."""
        for name in request.members:
            plain = name.casefold()
            if plain != name and self.names.get(plain, name) != name:
                raise RequestRefused(f"'{self.names[plain]}' has one spelling only.", param=self.names[plain])

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
