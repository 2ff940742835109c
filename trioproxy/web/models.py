"""`GET /v1/models` with routes or several upstreams: what the routes name, and what the upstreams behind them list.

With one upstream and no route its own list passes, as every other path does.
"""

from trioproxy.errors import ProxyError
from trioproxy.gate.keys import Identity
from trioproxy.relay.relay import stopped
from trioproxy.web.connection import Incoming
from trioproxy.web.entry import identify, make_call
from trioproxy.web.passthrough import pass_through
from trioproxy.web.service import Service
from trioproxy.wire.models import model_entry, render_models


async def list_models(service: Service, incoming: Incoming) -> None:
    """Answer with the models that can be asked for. An upstream that has no list for us is left out, and logged; if
    nothing is left, its fault is the answer."""
    identity = identify(service, incoming)
    catalog, lifetime = service.catalog, incoming.lifetime
    is_cut = identity.is_bound or identity.upstreams is not None
    if incoming.method not in ("GET", "HEAD") or (service.passes_list and not is_cut):
        await pass_through(service, incoming)
        return
    service.admission.admit(lifetime.stack)
    incoming.keep_to(service.timing)
    with lifetime.traffic:
        answers = await service.model_lists.ask(catalog.sources, make_call(incoming, b"").headers)
    if lifetime.stopped is not None and lifetime.traffic.cancelled_caught:
        raise stopped(lifetime.stopped)
    faults = {name: answer for name in catalog.sources if isinstance(answer := answers[name], ProxyError)}
    lists = {name: answer for name, answer in answers.items() if not isinstance(answer, ProxyError)}
    if faults:
        incoming.exchange.notes["left_out"] = [f"{name} {type(fault).code}" for name, fault in faults.items()]
    models = catalog.fill(lists)
    if faults and not lists and not models:
        await incoming.refuse(next(iter(faults.values())))
        return
    allowed = [one for one in models if identity.may_ask(one[0]) and _may_go_to(identity, one[1])]
    entries = [entry or model_entry(model, owner) for model, owner, entry in allowed]
    await incoming.reply(200, render_models(entries))


def _may_go_to(identity: Identity, upstream: str) -> bool:
    return identity.upstreams is None or upstream in identity.upstreams
