"""Measuring: a load generator, its report, and a simulated origin to measure against.

The room shares no code path with what it measures: it imports no other room of the house, so that a fault in the proxy
cannot hide itself by being on both sides.

    demo_model     a model's name → how the origin behaves (pure)
    demo_events    a request → the events or the whole answer of its dialect (pure)
    demo_script    behaviour and events → what is written when, and how it ends (pure)
    demo_http      HTTP/1.1 on one stream, by h11
    demo_upstream  routes, counters, the server
"""
