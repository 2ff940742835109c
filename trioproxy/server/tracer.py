"""Who makes spans, as it is configured."""

from importlib.metadata import version
from urllib.parse import urlsplit

from trioproxy.config import Config
from trioproxy.telemetry.tracer import Tracer

_DEFAULT_PORTS = {"http": 80, "https": 443}


def tracer_of(config: Config) -> Tracer | None:
    """The configured tracer, not started; None where spans have no collector. Raises OSError if what it needs is not
    installed."""
    endpoint = config.telemetry.otlp_endpoint
    if endpoint is None:
        return None
    try:  # an optional extra, loaded where it is configured
        from trioproxy.telemetry.tracing import Spans, count_rejected  # noqa: PLC0415
    except ImportError as error:
        raise OSError("telemetry.otlp_endpoint is set; install trioproxy[otel] for that") from error

    headers = {name: value.get_secret_value() for name, value in config.telemetry.otlp_headers.items()}
    spans = Spans(version("trioproxy"), {upstream.name: _place(upstream.base_url) for upstream in config.upstream})
    return Tracer(endpoint, headers, spans.encode, count_rejected)


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
