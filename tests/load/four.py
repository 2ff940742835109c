"""A subject for compare.py: trioproxy with one route over four endpoints, all of them the same upstream.

    one="one=8192:python -m trioproxy serve --upstream {upstream}/v1 --bind 127.0.0.1:{port} --admin-bind off"
    four="four=8193:python tests/load/four.py {upstream} {port}"
    python tests/load/compare.py --rounds 5 --workload json --subject "$one" --subject "$four"

What a choice among several costs shows in CPU per request. Every strategy but `ordered` looks at all of them.
"""

import os
import sys
import tempfile
from pathlib import Path

ENDPOINTS = 4


def main() -> None:
    upstream, port = sys.argv[1:]
    tables = [f'[[upstream]]\nname = "u{number}"\nbase_url = "{upstream}/v1"\n' for number in range(ENDPOINTS)]
    route = '[[route]]\nmodels = ["*"]\nstrategy = "least_busy"\n'
    file = Path(tempfile.mkdtemp()) / "trioproxy.toml"  # left behind: what is replaced by exec cleans nothing up
    file.write_text("\n".join([*tables, route]))
    bind = ["--bind", f"127.0.0.1:{port}", "--admin-bind", "off"]
    os.execv(sys.executable, [sys.executable, "-m", "trioproxy", "serve", "--config", str(file), *bind])


if __name__ == "__main__":
    main()
