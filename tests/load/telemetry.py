"""What telemetry costs: trioproxy with everything off beside one with everything on and in use.

    python tests/load/telemetry.py --rounds 5

On: an access log, metrics that are scraped every second, spans that a collector takes, and somebody who watches the live
table. The one who scrapes, collects and watches is this process. Arguments go on to compare.py, whose table has both.
"""

import contextlib
import http.client
import http.server
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

UPSTREAM = "http://127.0.0.1:9100"  # compare.py's
ADMIN_PORT = 8199
SERVE = "python -m trioproxy serve --bind 127.0.0.1:{port}"
OFF = f"""
[[upstream]]
name = "u"
base_url = "{UPSTREAM}/v1"

[admin]
bind = "off"

[telemetry]
access_log = "off"
"""
ON = f"""
[[upstream]]
name = "u"
base_url = "{UPSTREAM}/v1"

[admin]
bind = "127.0.0.1:{ADMIN_PORT}"

[telemetry]
access_log = "FOLDER/access.log"
otlp_endpoint = "http://127.0.0.1:COLLECTOR"
"""


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes what comes."""

    protocol_version = "HTTP/1.1"
    taken = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        type(self).taken += 1
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def ask(path: str, accept: str = "*/*") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", ADMIN_PORT, timeout=30)
    connection.request("GET", path, headers={"accept": accept})
    return connection.getresponse()


def scrape(counts: dict[str, int]) -> None:
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            ask("/metrics").read()
            counts["scrapes"] += 1
        time.sleep(1)


def watch(counts: dict[str, int]) -> None:
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            table = ask("/admin/streams", "text/event-stream")
            while line := table.readline():
                counts["changes"] += line.startswith(b"event: change")
        time.sleep(0.5)


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    on = ON.replace("FOLDER", str(folder)).replace("COLLECTOR", str(collector.server_port))
    (folder / "off.toml").write_text(OFF)
    (folder / "on.toml").write_text(on)
    subjects = [
        {"name": name, "port": port, "command": f"{SERVE} --config {folder}/{name}.toml"}
        for name, port in (("off", 8197), ("on", 8198))
    ]
    file = folder / "subjects.json"
    file.write_text(json.dumps(subjects))
    counts = {"scrapes": 0, "changes": 0}
    for keep in (scrape, watch):
        threading.Thread(target=keep, args=(counts,), daemon=True).start()
    compare = [sys.executable, str(Path(__file__).parent / "compare.py"), "--subjects", str(file)]
    subprocess.run([*compare, "--workload", "paced200", "--only", "off,on", *sys.argv[1:]], check=True)
    print(f"on: {counts['scrapes']} scrapes, {counts['changes']} changes of the table, {Collector.taken} times spans")


if __name__ == "__main__":
    main()
