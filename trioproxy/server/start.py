"""How a worker's process begins: the worker is imported with the garbage collector at rest (see `__main__`)."""

import gc

gc.disable()

from trioproxy.server.worker import main  # noqa: E402

gc.enable()

if __name__ == "__main__":
    main()
