"""A real redis-server as a process of ours: on a free port, with nothing on disk, ended whatever happens."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trustme

from tests.loopback.balancers import free_port
from tests.loopback.processes import START_S, Running, until

PASSWORD: Final = "open sesame"


class RedisServer(Running):
    """A redis-server that listens on 127.0.0.1, in the clear or by TLS."""

    def __init__(self, port: int, certificate: Path | None = None, password: str | None = None) -> None:
        self.port = port
        self._options = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--loglevel", "warning"]
        self._options += ["--port", "0" if certificate else str(port)]
        if certificate is not None:
            self._options += ["--tls-port", str(port), "--tls-auth-clients", "no"]
            self._options += ["--tls-cert-file", str(certificate), "--tls-key-file", str(certificate)]
        if password is not None:
            self._options += ["--requirepass", password]
        self._is_plain = certificate is None and password is None
        self.start()

    def start(self) -> None:
        """Start it, or start it again, empty."""
        process = subprocess.Popen(
            ["redis-server", *self._options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        super().__init__(process)
        until(self._accepts, f"redis-server on port {self.port}; {self.out} {self.err}", START_S)

    def _accepts(self) -> bool:
        try:
            self.ask("PING") if self._is_plain else socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def ask(self, *command: str) -> str:
        """The answer to a command, as redis-cli prints it where nobody looks: one value a line."""
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), *command], capture_output=True, timeout=START_S, check=False, text=True
        )
        if done.returncode:
            raise OSError(done.stderr)
        return done.stdout.strip()

    def clients(self) -> int:
        """How many connections there are beside the one that asks."""
        return len(self.ask("CLIENT", "LIST").splitlines()) - 1

    def pause(self) -> None:
        """Let it not run, with its connections open, until `go_on`."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(certificate: Path | None = None, password: str | None = None) -> Iterator[RedisServer]:
    """A server, listening. It may be killed and started again in between."""
    server = RedisServer(free_port(), certificate, password)
    try:
        yield server
    finally:
        server.kill()


def write_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 with its key, and that of its authority."""
    authority = trustme.CA()
    certificate, trusted = directory / "redis.pem", directory / "authority.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(trusted)
    return certificate, trusted
