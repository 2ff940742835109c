"""The `trioproxy` command, also as `python -m trioproxy`."""

import gc

# Importing makes many objects and next to no garbage; looking for some all the while takes a fifth of the start.
gc.disable()

from trioproxy.cli.main import app  # noqa: E402

gc.freeze()  # nor is there any at the end
gc.enable()


def main() -> None:
    """Run the command."""
    app(prog_name="trioproxy")


if __name__ == "__main__":
    main()
