import asyncio
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from senet_jax.errors import UsageError
from senet_jax.training import meeting
from senet_jax.training.clusters import Place
from senet_jax.training.meeting import Meeting


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def ends(monkeypatch):
    """What the meetings of this process would have ended it with."""
    ended = []
    monkeypatch.setattr(meeting, "exit_now", lambda *end: ended.append(end))
    return ended


def meet(port, *places, timeout=10.0):
    """Starts meetings at once; returns them, or what they raised."""

    def one(index, count, facts=None):
        try:
            return Meeting(Place(f"127.0.0.1:{port}", count, index), facts or {}, timeout)
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(lambda place: one(*place), places))


def disappear(host):
    """What the death of a process does to its connections."""
    for peer in host._peers.values():
        host._loop.call_soon_threadsafe(peer.writer.transport.abort)


def wait_for(ends, count):
    until = time.monotonic() + 10
    while len(ends) < count and time.monotonic() < until:
        time.sleep(0.02)
    return sorted(ends)


def test_hosts_that_differ_are_refused_with_the_field(port):
    said = meet(port, (0, 2, {"seed": "0", "epochs": "9"}), (1, 2, {"seed": "1", "epochs": "9"}))
    assert said[0] == said[1]
    assert "host 1" in said[0]
    assert "differs from host 0" in said[0]
    assert "in seed 1, not 0: start the same command" in said[0]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([(0, 2), (1, 3)], "was told that there are 3 hosts, and host 0 .* that there are 2"),
        ([(0, 3), (1, 3), (1, 3)], "two hosts were told that they are number 1"),
    ],
)
def test_hosts_that_were_told_what_does_not_fit_are_refused(port, places, message):
    said = meet(port, *places)
    assert len(set(said)) == 1
    assert re.search(message, said[0])


def test_who_does_not_come_is_named_in_time(port):
    began = time.monotonic()
    said = meet(port, (0, 4), (2, 4), timeout=1.0)
    assert time.monotonic() - began < 5
    assert all("of 4 hosts number 1, 3 did not come" in each for each in said)


def test_a_coordinator_that_is_not_there_is_named_in_time(port):
    (said,) = meet(port, (1, 2), timeout=1.0)
    assert f"did not reach host 0 at 127.0.0.1:{port} within 1 s" in said


def test_a_port_that_is_taken_is_refused(port):
    with socket.create_server(("", port)):
        (said,) = meet(port, (0, 2), timeout=1.0)
    assert f"host 0 cannot wait for the others at port {port}" in said


@pytest.mark.parametrize("gone", [0, 2])
def test_a_host_that_dies_is_named_by_the_others(port, ends, gone):
    hosts = meet(port, (0, 3), (1, 3), (2, 3))
    # Its own watch says something too: in a process that dies nobody would hear it.
    hosts[gone]._leaving = True
    disappear(hosts[gone])
    sentence = f"{hosts[gone].title} is gone; the same command on all hosts resumes."
    assert wait_for(ends, 2) == [(sentence, 75)] * 2


def test_a_host_that_falls_silent_counts_as_gone(port, ends, monkeypatch):
    monkeypatch.setattr(meeting, "SILENCE_S", 0.6)
    monkeypatch.setattr(meeting, "BEAT_S", 0.1)
    hosts = meet(port, (0, 2), (1, 2))
    time.sleep(1.5)
    assert not ends
    hosts[1]._loop.call_soon_threadsafe(hosts[1]._loop.stop)
    assert wait_for(ends, 1) == [
        (f"{hosts[1].title} is gone; the same command on all hosts resumes.", 75)
    ]


def test_a_host_that_stops_says_why(port, ends):
    hosts = meet(port, (0, 3), (1, 3), (2, 3))
    hosts[1].leave("no data here.", 2)
    assert wait_for(ends, 2) == [(f"{hosts[1].title} stopped: no data here.", 2)] * 2


def test_an_end_is_no_death_and_nobody_ends_before_the_last(port, ends):
    hosts = meet(port, (0, 3), (1, 3), (2, 3))
    waiting = [threading.Thread(target=host.finish) for host in hosts]
    for thread in waiting[:2]:
        thread.start()
    time.sleep(0.3)
    assert all(thread.is_alive() for thread in waiting[:2])
    waiting[2].start()
    for thread in waiting:
        thread.join(5)
        assert not thread.is_alive()
    for host in hosts:
        disappear(host)
    time.sleep(0.3)
    assert not ends


def test_the_near_end_stays_open_when_the_far_one_breaks_off(port):
    async def check():
        far = []

        async def echo(reader, writer):
            far.append(writer)
            writer.write(await reader.readexactly(4))

        async with await asyncio.start_server(echo, "127.0.0.1", port):
            forward = meeting._forward_to(("127.0.0.1", port))
            async with await asyncio.start_server(forward, "127.0.0.1", 0) as near:
                address = near.sockets[0].getsockname()
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"ping")
                assert await reader.readexactly(4) == b"ping"
                far[0].transport.abort()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.3)
                writer.close()

    asyncio.run(check())
