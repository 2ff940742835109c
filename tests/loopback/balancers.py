"""nginx and HAProxy as processes of ours, with the very files of `conf/`, on loopback and without a daemon.

A file of `conf/` marks what an operator has to edit by `# edit` at the end of the line. `rendered` replaces just these
lines, one by one, and fails if there is one of which it does not know; so what is tested is what is delivered. Pids,
logs and temporary files stay in the directory that is given.
"""

import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trustme

from tests.loopback.processes import START_S, STOP_S, Running, Server, running, until
from tests.loopback.raw_http import WAIT_S, Answer, Wire, request_bytes

CONF: Final = Path(__file__).resolve().parents[2] / "conf"
HOST: Final = "llm.example.com"
NAMES: Final = ("nginx", "haproxy")
MARK: Final = "# edit"

# Debian keeps servers where a user's PATH does not look.
_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
_PORTS: Final = range(12000, 30000)
_AUTHORITY: Final = trustme.CA()


def free_port() -> int:
    """A port that is free, and below those that the kernel gives to outgoing connections: whoever listened there can
    come back, however many connections were made in between."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def rendered(file: Path, edits: Mapping[str, str]) -> str:
    """The file's text with its marked lines edited: each holds exactly one of `edits`, and each of these is used."""
    unused, lines = set(edits), []
    for line in file.read_text("utf-8").splitlines():
        if line.endswith(MARK):
            found = [old for old in edits if old in line]
            assert len(found) == 1, f"{file.name}: {line.strip()!r} holds {found}"
            unused -= set(found)
            lines.append(line.removesuffix(MARK).replace(found[0], edits[found[0]]))
        else:
            lines.append(line)
    assert not unused, f"{file.name}: no marked line holds {unused}"
    return "\n".join([*lines, ""])


def _nginx(directory: Path, port: int, replicas: Sequence[int], certificate: Path) -> tuple[str, list[str]]:
    scratch = " ".join(
        f"{name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    edits = {
        "user www-data;": "",
        "/run/nginx.pid": f"{directory}/nginx.pid",
        "/var/log/nginx/error.log": f"{directory}/error.log",
        "worker_rlimit_nofile 65536;": "",
        "worker_connections 16384": "worker_connections 512",
        "access_log /var/log/nginx/access.log paths;": f"access_log {directory}/access.log paths; {scratch}",
        "replica-1.internal:8080": f"127.0.0.1:{replicas[0]}",
        "replica-2.internal:8080": f"127.0.0.1:{replicas[1]}",
        "listen 443": f"listen 127.0.0.1:{port}",
        "listen [::]:443 ssl http2;": "",
        "server_name llm.example.com": f"server_name {HOST}",
        "/etc/nginx/tls/llm.example.com.crt": str(certificate),
        "/etc/nginx/tls/llm.example.com.key": str(certificate),
    }
    file = directory / "nginx.conf"
    file.write_text(rendered(CONF / "nginx.conf", edits), "utf-8")
    return "nginx", ["-e", str(directory / "error.log"), "-g", "daemon off;", "-c", str(file)]


def _haproxy(directory: Path, port: int, replicas: Sequence[int], certificate: Path) -> tuple[str, list[str]]:
    edits = {
        "log /dev/log local0": "log stderr format raw local0",
        "chroot /var/lib/haproxy": "",
        "user haproxy": "",
        "group haproxy": "",
        "maxconn 20000": "maxconn 400",
        "bind :::443 v4v6 ssl crt /etc/haproxy/tls/llm.example.com.pem": f"bind 127.0.0.1:{port} ssl crt {certificate}",
        "replica-1.internal:8080": f"127.0.0.1:{replicas[0]}",
        "replica-2.internal:8080": f"127.0.0.1:{replicas[1]}",
    }
    file = directory / "haproxy.cfg"
    file.write_text(rendered(CONF / "haproxy.cfg", edits), "utf-8")
    return "haproxy", ["-db", "-f", str(file)]


_RENDERED: Final = {"nginx": _nginx, "haproxy": _haproxy}


class Balancer(Running):
    """A load balancer that listens with TLS on 127.0.0.1.

    Attributes:
        directory: where its file, its logs and whatever it may store are.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
        super().__init__(process)
        self.port = port
        self.directory = directory

    @property
    def said(self) -> list[str]:
        """What it has to say about what went wrong."""
        file = self.directory / "error.log"
        return [*self.err, *(file.read_text("utf-8", "replace").splitlines() if file.exists() else [])]

    def socket(self, *protocols: str) -> ssl.SSLSocket:
        """A connection with TLS; the client offers these protocols."""
        trust = ssl.create_default_context()
        _AUTHORITY.configure_trust(trust)
        trust.set_alpn_protocols(protocols)
        plain = socket.create_connection(("127.0.0.1", self.port), WAIT_S)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return trust.wrap_socket(plain, server_hostname=HOST)
        except OSError:
            plain.close()
            raise

    def connect(self) -> Wire:
        """A connection that speaks HTTP/1.1."""
        return Wire(self.socket("http/1.1"))

    def ask(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """One request on a connection of its own."""
        with self.connect() as client:
            client.send(request_bytes(method, target, body, headers))
            return client.read_answer(method)


@contextmanager
def balancing(name: str, replicas: Sequence[int], directory: Path) -> Iterator[Balancer]:
    """The balancer of this name, in front of two ports on this machine. All its processes are gone afterwards."""
    directory.mkdir()
    port = free_port()
    certificate = directory / "tls.pem"
    _AUTHORITY.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(str(certificate))
    program, arguments = _RENDERED[name](directory, port, replicas, certificate)
    found = shutil.which(program, path=_PATH)
    assert found is not None, f"{program} is not installed; `make test` does it"
    process = subprocess.Popen(
        [found, *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that nginx's workers can be ended even if their master has died
    )
    balancer = Balancer(process, port, directory)
    try:
        until(lambda: process.poll() is not None or _listens(port), f"{name} listens", START_S)
        assert process.poll() is None, f"{name} has ended: {balancer.said}"
        yield balancer
        assert process.poll() is None, f"{name} has died: {balancer.said}"
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all have ended, as they should
        balancer.wait()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def replica(upstream: str, port: int, **settings: object) -> Iterator[Server]:
    """A proxy in front of `upstream`, on this port, listening. It is dead when the context is left."""
    env = {f"TRIOPROXY_{name.upper()}": str(value) for name, value in settings.items()}
    with running("serve", "--upstream", upstream, "--bind", f"127.0.0.1:{port}", env=env) as server:
        server.wait_for_text('"listening"', START_S)
        server.port = port
        yield server


def events(wire: Wire) -> Iterator[bytes]:
    """The events of a chunked answer, as soon as each is whole; comments are left out. Raises Ended if it is cut."""
    data = b""
    while piece := wire.read_chunk():
        data += piece
        while b"\n\n" in data:
            event, _, data = data.partition(b"\n\n")
            if not event.startswith(b":"):
                yield event + b"\n\n"
    assert data == b""
