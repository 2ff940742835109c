"""The end of TLS, said while another task reads."""

import pytest
import trio
import trio.testing

from tests.harness.wires import HOST, tls_client, tls_server
from trioproxy.net.tls import accept_tls, end_tls


@pytest.mark.parametrize("unread", [b"", b"more"])
async def test_the_end_is_said_behind_what_was_sent_and_also_over_unread_bytes(unread: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream, peer = accept_tls(ours, tls_server()), trio.SSLStream(theirs, tls_client(), server_hostname=HOST)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_all, b"hello")
        assert await stream.receive_some() == b"hello"
    await peer.send_all(unread)
    stream._incoming.write(await ours.receive_some() if unread else b"")
    async with trio.open_nursery() as nursery:
        if not unread:
            nursery.start_soon(_read_one, stream)
            await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"last")
        await end_tls(stream)
        assert await peer.receive_some() == b"last"
        assert await peer.receive_some() == b""  # and not BrokenResourceError, as for a cut
        nursery.cancel_scope.cancel()
    await ours.send_all(b"")  # the transport is still open


async def _read_one(stream: trio.abc.ReceiveStream) -> None:
    await stream.receive_some()


async def test_before_the_handshake_there_is_nothing_to_end() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await end_tls(accept_tls(ours, tls_server()))
    await ours.send_eof()
    assert await theirs.receive_some() == b""


async def test_a_peer_that_ends_without_a_word_reads_as_an_end_of_file() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream, peer = accept_tls(ours, tls_server()), trio.SSLStream(theirs, tls_client(), server_hostname=HOST)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_all, b"hello")
        assert await stream.receive_some() == b"hello"
    await theirs.send_eof()
    assert await stream.receive_some() == b""


async def test_a_broken_transport_is_told() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream, peer = accept_tls(ours, tls_server()), trio.SSLStream(theirs, tls_client(), server_hostname=HOST)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_all, b"hello")
        assert await stream.receive_some() == b"hello"
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await end_tls(stream)
