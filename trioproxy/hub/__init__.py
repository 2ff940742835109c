"""One origin stream, many subscribers: live streams, their logs, and who reads them. It does not know how a stream is
made: whoever starts one hands in a callable that writes it."""
