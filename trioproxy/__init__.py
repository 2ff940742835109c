"""trioproxy: a streaming proxy for OpenAI-compatible APIs.

The list of folders is the way of a request:

     client                                                                       origin (upstream)
       │ 1 server/listener     accept, behind a crash barrier, Hypercorn on top              ▲
       │ 2 web/connection      ONE nursery and ONE exit stack for this request               │
       │ 3 web/openai          read the body: model, stream or not (or web/passthrough)      │
       │ 4 relay/relay         the request's whole life in one short function                │
       │ 5 upstream/course     which endpoints, in which order, and when to give up          │
       │ 6 upstream/attempt    one try at one endpoint ── upstream/transport ────────────────┘
       │ 7 relay/pump          origin bytes → frames → zero-buffer channel; moves the deadlines
       │ 8 relay/shaper        heartbeat, joined events, the honest end → bytes
       ▼ 9 web/body            bytes to Hypercorn, to the client's socket
     client

Back-pressure is the same line read backwards: the client does not read, so the send waits, so the shaper does not
take, so the pump waits, so the origin's socket is not read, and TCP slows the origin. There is no queue anywhere. A
fault travels the same way as bytes: it is the last item through the channel.

A stream that several clients read, or come back to, has a producer in place of the client: `relay/shared` runs 4 to 8
with a `hub/recorder` in place of 9, which writes a log; its readers read that.

The rule: imports go only downward. The floors are: cli · bench, server · web · relay · hub, upstream · state,
telemetry, net · policy · wire · config · errors. `tests/house` holds them as a table and checks it.
"""
