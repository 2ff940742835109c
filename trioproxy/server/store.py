"""What is kept beside the requests, as it is configured: the streams that several processes know, and limits."""

from trioproxy.config import Config
from trioproxy.state.budget_file import BudgetFile
from trioproxy.state.limits import LimitStore
from trioproxy.state.limits_memory import MemoryLimits
from trioproxy.state.streams import Limits, StreamStore

_NOT_INSTALLED = "state.url names a Redis server; install trioproxy[redis] for that"


def store_of(config: Config) -> StreamStore | None:
    """The configured store, not connected; None where the process's own memory is all there is. Its `run` belongs in
    the process nursery. Raises OSError if what it needs is not installed."""
    if not config.state.is_shared:
        return None
    try:  # an optional extra, loaded where it is configured
        from trioproxy.state.redis import RedisStore  # noqa: PLC0415
        from trioproxy.state.redis_link import address_of  # noqa: PLC0415
    except ImportError as error:
        raise OSError(_NOT_INSTALLED) from error

    limits = Limits(
        max_events=config.hub.max_events,
        max_bytes=config.hub.max_bytes,
        lease_s=config.state.lease_s,
        retain_s=config.hub.retain_s,
    )
    return RedisStore(address_of(config.state.url.get_secret_value()), limits)


def limit_store_of(config: Config) -> LimitStore:
    """Where limits are counted: in this process, with budgets in a file, or in Redis for all. Not opened; its `run`
    belongs in the process nursery. Raises OSError if what it needs is not installed."""
    if not config.state.is_shared:
        return MemoryLimits(BudgetFile(config.state.file))
    try:
        from trioproxy.state.limits_redis import RedisLimits  # noqa: PLC0415
        from trioproxy.state.redis_link import address_of  # noqa: PLC0415
    except ImportError as error:
        raise OSError(_NOT_INSTALLED) from error

    return RedisLimits(address_of(config.state.url.get_secret_value()), lease_s=config.state.lease_s)
