"""Measuring: a load generator, its report, and a simulated origin to measure against.

The room shares no code path with what it measures: it imports no other room of the house, so that a fault in the proxy
cannot hide itself by being on both sides.

    demo_model     a model's name → how the origin behaves (pure)
    demo_events    a request → the events or the whole answer of its dialect (pure)
    demo_script    behaviour and events → what is written when, and how it ends (pure)
    demo_http      HTTP/1.1 on one stream, by h11
    demo_upstream  routes, counters, the server

    histogram      many times as counts (pure)
    events         bytes → events → what they say (pure)
    http_client    HTTP/1.1 as a client, by llhttp
    talk           one chat: what came back, and when; also what `trioproxy chat` talks with
    figures        what was measured, as a value that adds up (pure)
    generator      so many clients for so many seconds; one process
    processes      several of them, begun together and ended with us
    limit          whether the generator itself was the limit
    report, plot   figures as a table, as JSON (pure), as a picture
"""
