#!/usr/bin/env python3
"""What a reader of a shared stream costs, beside one that has a stream of its own: CPU time of the proxy per event
that a reader gets. All in one run against one proxy, the three in turn, round after round.

usage: shared.py [--readers N] [--rounds N] [--rate EVENTS/S] [--json FILE] [--command COMMAND]

  direct    N clients with a stream each, at 20 events/s
  shared    N clients of one stream, at 20 events/s: each event is written to each reader
  behind    N clients that join one stream of 2,000 events near its end: they get many events with each write

COMMAND starts the proxy; `{upstream}` stands for the upstream's base URL without `/v1`, `{port}` for its port. Without
one it is trioproxy. The CPU time is that of all processes of the proxy. Quote the ratios: absolute figures differ from
machine to machine, and on a machine that does something else they differ from round to round.
Needs: gcc, Linux.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import HERE, UPSTREAM_PORT, Subject, cpu_seconds, load_arguments, pin, upstream_stats

STREAM_S = 10
BEHIND = 2000
SHARE = {"x-trioproxy-share": "auto"}


def load(tools: Path, subject: Subject, *arguments: str) -> subprocess.Popen:
    command = [str(tools / "sseload"), *load_arguments(subject, list(arguments))]
    return subprocess.Popen(pin(1, command), stdout=subprocess.PIPE, text=True)


def measured(subject: Subject, process: subprocess.Popen, cpu: float, asked: int) -> dict:
    """What a load came to since the proxy had used so much CPU time and the upstream had been asked so often."""
    figures = json.loads(process.communicate(timeout=150)[0])
    spent = cpu_seconds(subject.pid or 0) - cpu
    return {
        "cpu_us_per_event": 1e6 * spent / max(1, figures["events"]),
        "cpu_s": spent,
        "events": figures["events"],
        "errors": figures["errors"],
        "asked": upstream_stats()["requests"] - asked - 1,
        "event_ms_p50": figures["event_ms"]["p50"],
        "event_ms_p99": figures["event_ms"]["p99"],
    }


def paced(tools: Path, subject: Subject, readers: int, rate: int, number: int) -> dict:
    """So many clients at once. `number` makes each round's stream another one."""
    model = f"sim-n{rate * STREAM_S}-i{1000 // rate}-t1000-z{number}"
    cpu, asked = cpu_seconds(subject.pid or 0), upstream_stats()["requests"]
    count = str(readers)
    return measured(subject, load(tools, subject, "-c", count, "-r", count, "-d", "60", "-m", model, "-w", "800"), cpu, asked)


def behind(tools: Path, subject: Subject, readers: int, number: int) -> dict:
    """One client reads a stream; nearly at its end the others join it."""
    model = f"sim-n{BEHIND}-i2-z{number}"
    first = load(tools, subject, "-c", "1", "-r", "1", "-d", "60", "-m", model)
    time.sleep(2 * BEHIND / 1000 - 1)
    cpu, asked = cpu_seconds(subject.pid or 0), upstream_stats()["requests"]
    count = str(readers)
    result = measured(subject, load(tools, subject, "-c", count, "-r", count, "-d", "60", "-m", model), cpu, asked)
    first.communicate(timeout=60)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--command", default=f"{sys.executable} -m trioproxy serve --upstream {{upstream}}/v1 --bind 127.0.0.1:{{port}}"
    )
    options = parser.parse_args()

    tools = Path(tempfile.mkdtemp(prefix="shared-"))
    for name in ("simup", "sseload"):
        subprocess.run(["gcc", "-O2", "-o", str(tools / name), str(HERE / f"{name}.c")], check=True)
    upstream = subprocess.Popen(pin(1, [str(tools / "simup"), str(UPSTREAM_PORT)]))
    subject = Subject({"name": "proxy", "port": 8199, "command": options.command})
    rounds: dict[str, list[dict]] = {"direct": [], "shared": [], "behind": []}
    try:
        time.sleep(0.3)
        wrong = subject.start(tools / "proxy.log")
        if wrong:
            sys.exit(wrong)
        for number in range(options.rounds + 1):
            for name, taken in rounds.items():
                subject.headers = {} if name == "direct" else SHARE
                if name == "behind":
                    sample = behind(tools, subject, options.readers, number)
                else:
                    sample = paced(tools, subject, options.readers, options.rate, number)
                if number:  # the first round warms up
                    taken.append(sample)
                time.sleep(0.5)
    finally:
        subject.stop()
        upstream.terminate()
        upstream.wait()
    columns = list(rounds["direct"][0])
    medians = {name: {key: statistics.median(one[key] for one in taken) for key in columns} for name, taken in rounds.items()}
    print(f"\n  {'':10}" + "".join(f"{column:>20}" for column in columns) + f"{'of direct, %':>20}   in each round")
    for name, row in medians.items():
        each = [100 * one["cpu_us_per_event"] / own["cpu_us_per_event"] for one, own in zip(rounds[name], rounds["direct"], strict=True)]
        cells = "".join(f"{row[column]:>20.2f}" for column in columns)
        print(f"  {name:10}{cells}{statistics.median(each):>20.1f}   " + ", ".join(f"{share:.0f}" for share in each))
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    main()
