"""What the official `openai` package is shown as models, over real sockets: two upstreams behind one address."""

from pathlib import Path

import openai
from openai import OpenAI

from tests.loopback.processes import PATIENCE_S, Server, demo_upstream, serving
from trioproxy.bench.demo_events import MODELS

ROUTES = """
[[route]]
models = ["small", "demo*"]
targets = [{ upstream = "one" }]

[[route]]
models = ["best"]
targets = [{ upstream = "two", model = "gpt-4o" }]

[[route]]
models = ["*"]
targets = [{ upstream = "two" }]
"""


def test_the_models_of_all_upstreams_are_one_list(upstream: Server, tmp_path: Path) -> None:
    with demo_upstream() as second:
        tables = [
            f'[[upstream]]\nname = "{name}"\nbase_url = "{server.base_url}"\n'
            for name, server in (("one", upstream), ("two", second))
        ]
        (tmp_path / "trioproxy.toml").write_text("\n".join([*tables, ROUTES]))
        with (
            serving(None, directory=tmp_path) as proxy,
            openai.DefaultHttpxClient(trust_env=False) as http,
            OpenAI(
                base_url=proxy.base_url, api_key="any", timeout=PATIENCE_S, max_retries=0, http_client=http
            ) as client,
        ):
            models = list(client.models.list())
            assert client.models.retrieve("gpt-4o").id == "gpt-4o"
    from_globs = [model for model in MODELS if model.startswith("demo")]
    from_globs += [model for model in MODELS if not model.startswith("demo")]
    assert [model.id for model in models] == ["small", "best", *from_globs]
    assert [(model.owned_by, model.created) for model in models[:2]] == [("one", 0), ("two", 0)]
    assert all(model.owned_by == "demo" and model.created > 0 for model in models[2:])
    assert {model.object for model in models} == {"model"}
