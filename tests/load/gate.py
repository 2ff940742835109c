"""What the gate costs: trioproxy without keys beside one where the client's key has three limits in memory, and a price.

    python tests/load/gate.py --rounds 5

`json` shows it in CPU per request, `paced200` in CPU per event, where it should be nothing. Arguments go on to
compare.py, whose table has both.
"""

import json
import os
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

SECRET = "tpk_" + "load" * 10 + "key"
UPSTREAM_PORT = 9100
SERVE = "python -m trioproxy serve --bind 127.0.0.1:{port} --admin-bind off"
KEY = f"""
[[upstream]]
name = "u"
base_url = "UPSTREAM/v1"

[[key]]
name = "load"
hash = "sha256:{sha256(SECRET.encode()).hexdigest()}"
limits = {{ rpm = 1_000_000, tpm = 1_000_000_000_000, streams = 1_000_000 }}

[[price]]
model = "*"
input = 2.5
output = 10
"""


def main() -> None:
    here = Path(__file__).parent
    folder = Path(tempfile.mkdtemp())  # left behind: what is replaced by exec cleans nothing up
    upstream = f"http://127.0.0.1:{UPSTREAM_PORT}"  # compare.py's
    (folder / "trioproxy.toml").write_text(KEY.replace("UPSTREAM", upstream))
    subjects = [
        {"name": "open", "port": 8192, "command": f"{SERVE} --upstream {upstream}/v1"},
        {"name": "gate", "port": 8193, "command": f"{SERVE} --config {folder}/trioproxy.toml", "key": SECRET},
    ]
    file = folder / "subjects.json"
    file.write_text(json.dumps(subjects))
    arguments = ["--workload", "json,paced200", "--only", "open,gate", *sys.argv[1:]]
    os.execv(sys.executable, [sys.executable, str(here / "compare.py"), "--subjects", str(file), *arguments])


if __name__ == "__main__":
    main()
