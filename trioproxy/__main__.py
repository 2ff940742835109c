"""The `trioproxy` command, also as `python -m trioproxy`."""

import gc
import signal

# Ctrl-C in the first half second ends it as it would any program, and not with a traceback out of some module.
_is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _is_usual:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# Importing makes many objects and next to no garbage; looking for some all the while takes a fifth of the start.
gc.disable()

from trioproxy.cli.main import app  # noqa: E402

gc.freeze()  # nor is there any at the end
gc.enable()
if _is_usual:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> None:
    """Run the command."""
    app(prog_name="trioproxy")


if __name__ == "__main__":
    main()
