"""The store of streams that several processes know, if one is configured."""

from trioproxy.config import Config
from trioproxy.state.streams import Limits, StreamStore


def store_of(config: Config) -> StreamStore | None:
    """The configured store, not connected; None where the process's own memory is all there is. Its `run` belongs in
    the process nursery. Raises OSError if what it needs is not installed."""
    if not config.state.is_shared:
        return None
    try:  # an optional extra, loaded where it is configured
        from trioproxy.state.redis import RedisStore  # noqa: PLC0415
        from trioproxy.state.redis_link import address_of  # noqa: PLC0415
    except ImportError as error:
        raise OSError("state.url names a Redis server; install trioproxy[redis] for that") from error

    limits = Limits(
        max_events=config.hub.max_events,
        max_bytes=config.hub.max_bytes,
        lease_s=config.state.lease_s,
        retain_s=config.hub.retain_s,
    )
    return RedisStore(address_of(config.state.url.get_secret_value()), limits)
