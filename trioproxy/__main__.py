"""`python -m trioproxy`."""

from trioproxy.cli.main import app

app(prog_name="trioproxy")
