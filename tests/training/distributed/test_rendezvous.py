import asyncio
import gc
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from senet_jax.errors import UsageError
from senet_jax.training.distributed import rendezvous
from senet_jax.training.distributed.clusters import Process
from senet_jax.training.distributed.rendezvous import Rendezvous


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def ends(monkeypatch):
    """The exits that the rendezvous of this process asked for."""
    ended = []
    monkeypatch.setattr(rendezvous, "exit_now", lambda *end: ended.append(end))
    return ended


TOKEN = b"a token that all of them know"


def start(port, *processes, timeout=10.0, tokens=None, host="127.0.0.1", listen=None):
    """Starts processes at once; returns each rendezvous, or the error it raised."""

    def one(index, count, facts=None):
        read = (tokens or {}).get(index, lambda: TOKEN)
        try:
            process = Process(f"{host}:{port}", count, index)
            return Rendezvous(process, facts or {}, timeout, read, listen)
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(lambda process: one(*process), processes))


def disappear(host):
    """Closes the connections of a process, as its death does."""
    for peer in host._peers.values():
        host._loop.call_soon_threadsafe(peer.writer.transport.abort)


def wait_for(ends, count):
    until = time.monotonic() + 10
    while len(ends) < count and time.monotonic() < until:
        time.sleep(0.02)
    return sorted(ends)


def test_hosts_that_differ_are_refused_with_the_field(port):
    said = start(port, (0, 2, {"seed": "0", "epochs": "9"}), (1, 2, {"seed": "1", "epochs": "9"}))
    assert said[0] == said[1]
    assert "host 1" in said[0]
    assert "differs from host 0" in said[0]
    assert "in seed 1, not 0: start the same command" in said[0]


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        ([(0, 2), (1, 3)], "was told that there are 3 hosts, and host 0 .* that there are 2"),
        ([(0, 3), (1, 3), (1, 3)], "two hosts were told that they are number 1"),
    ],
)
def test_hosts_that_were_told_what_does_not_fit_are_refused(port, processes, message):
    said = start(port, *processes)
    assert len(set(said)) == 1
    assert re.search(message, said[0])


def test_who_does_not_come_is_named_in_time(port):
    began = time.monotonic()
    said = start(port, (0, 4), (2, 4), timeout=1.0)
    assert time.monotonic() - began < 5
    assert all("of 4 hosts number 1, 3 did not come" in each for each in said)


def test_a_coordinator_that_is_not_there_is_named_in_time(port):
    (said,) = start(port, (1, 2), timeout=1.0)
    assert f"did not reach host 0 at 127.0.0.1:{port} within 1 s" in said


def test_a_port_that_is_taken_is_refused(port):
    with socket.create_server(("", port)):
        (said,) = start(port, (0, 2), timeout=1.0)
    assert f"host 0 cannot wait for the others at port {port}" in said


@pytest.mark.parametrize("gone", [0, 2])
def test_a_host_that_dies_is_named_by_the_others(port, ends, gone):
    hosts = start(port, (0, 3), (1, 3), (2, 3))
    # Its own watch says something too: in a process that dies nobody would hear it.
    hosts[gone]._leaving = True
    disappear(hosts[gone])
    sentence = f"{hosts[gone].title} is gone; the same command on all hosts resumes."
    assert wait_for(ends, 2) == [(sentence, 75)] * 2


def test_a_host_that_falls_silent_counts_as_gone(port, ends, monkeypatch):
    monkeypatch.setattr(rendezvous, "SILENCE_S", 0.6)
    monkeypatch.setattr(rendezvous, "BEAT_S", 0.1)
    hosts = start(port, (0, 2), (1, 2))
    time.sleep(1.5)
    assert not ends
    hosts[1]._loop.call_soon_threadsafe(hosts[1]._loop.stop)
    assert wait_for(ends, 1) == [
        (f"{hosts[1].title} is gone; the same command on all hosts resumes.", 75)
    ]


def test_a_host_that_stops_says_why(port, ends):
    hosts = start(port, (0, 3), (1, 3), (2, 3))
    hosts[1].leave("no data here.", 2)
    assert wait_for(ends, 2) == [(f"{hosts[1].title} stopped: no data here.", 2)] * 2


def test_an_end_is_no_death_and_nobody_ends_before_the_last(port, ends):
    hosts = start(port, (0, 3), (1, 3), (2, 3))
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
            forward = rendezvous._forward_to(("127.0.0.1", port))
            async with await asyncio.start_server(forward, "127.0.0.1", 0) as near:
                address = near.sockets[0].getsockname()
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"ping")
                assert await reader.readexactly(4) == b"ping"
                far[0].transport.abort()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.3)
                # At this its end notices that the far one has gone.
                writer.write(b"ping")
                await asyncio.sleep(0.1)
                gc.collect()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.3)
                writer.write_eof()
                assert await reader.read(1) == b""
                writer.close()

    # From Python 3.12 on, the servers wait until every connection is closed.
    asyncio.run(asyncio.wait_for(check(), 20))


def strangers_say(port, *texts, count=1):
    """Connects to a port as soon as somebody listens there; sends, and leaves open or closes."""
    opened = []
    for text in [text for text in texts for _ in range(count)]:
        until = time.monotonic() + 5
        while True:
            try:
                opened.append(socket.create_connection(("127.0.0.1", port), 5))
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.01)
        opened[-1].sendall(text)
    return opened


GARBAGE = (
    b"",
    b"\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b'{"index": 1, "count": 2, "name": "me", "facts": {}}\n',
    b'{"refused": "\x1b[2J"}\n' + b"x" * 200,
    bytes(64),
    bytes(10_000),
)


def test_strangers_neither_end_a_start_nor_learn_anything(port, capfd):
    with ThreadPoolExecutor(1) as pool:
        facts = {"model.name": "a secret"}
        starting = pool.submit(start, port, (0, 2, facts), timeout=20.0)
        opened = strangers_say(port, *GARBAGE)
        (other,) = start(port, (1, 2, facts), timeout=10.0)
        (first,) = starting.result(10)
    assert isinstance(first, Rendezvous)
    assert isinstance(other, Rendezvous)
    for connection in opened:
        with connection:
            told = b""
            try:
                while part := connection.recv(4096):
                    told += part
            except ConnectionResetError:
                pass
            # The random number of the challenge, and no more.
            assert len(told) in (0, 32)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_crowd_of_strangers_keeps_no_host_out(port, monkeypatch):
    monkeypatch.setattr(rendezvous, "STRANGERS", 4)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start, port, (0, 2), timeout=20.0)
        opened = strangers_say(port, b"", count=20)
        # The oldest are closed.
        assert opened[0].recv(100)
        assert opened[0].recv(100) == b""
        (other,) = start(port, (1, 2))
        (first,) = starting.result(10)
    assert isinstance(first, Rendezvous)
    assert isinstance(other, Rendezvous)
    for connection in opened:
        connection.close()


def test_a_host_with_another_token_takes_no_seat(port):
    said = start(port, (0, 2), (1, 2), timeout=0.8, tokens={1: lambda: b"of an earlier start"})
    assert "of 2 hosts number 1 did not come" in said[0]
    assert "what answers there does not know the token of this start" in said[1]


def test_a_token_that_is_seen_late_is_read_again(port, monkeypatch):
    monkeypatch.setattr(rendezvous, "RETRY_S", 0.02)
    seen = iter([None, b"of an earlier start", b"of an earlier start"])
    hosts = start(port, (0, 2), (1, 2), tokens={1: lambda: next(seen, TOKEN)})
    assert all(isinstance(host, Rendezvous) for host in hosts)
    assert next(seen, None) is None


def test_nothing_is_told_to_a_false_first_host(port):
    heard = []

    def pretend(listener):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(bytes(32))
            challenge = connection.recv(4096)
            # An echo of the proof is none.
            connection.sendall(challenge[32:])
            connection.settimeout(5)
            heard.append((len(challenge), connection.recv(4096)))

    with socket.create_server(("127.0.0.1", port)) as listener, ThreadPoolExecutor(1) as pool:
        pool.submit(pretend, listener)
        (said,) = start(port, (1, 2, {"model.name": "a secret"}), timeout=0.5)
    assert heard == [(64, b"")]
    assert "does not know the token" in said


def test_the_token_itself_is_never_sent():
    sent = rendezvous.prove(TOKEN, "caller", bytes(32), bytes(32))
    assert len(sent) == 32
    assert TOKEN not in sent
    assert sent != rendezvous.prove(TOKEN, "listener", bytes(32), bytes(32))
    assert sent != rendezvous.prove(TOKEN, "caller", bytes(32), bytes(31) + b"1")


def test_control_characters_of_a_host_stay_out_of_the_terminal(port, ends, monkeypatch):
    monkeypatch.setattr(rendezvous.socket, "gethostname", lambda: "evil\x1b[2J")
    said = start(port, (0, 2, {"a": "1"}), (1, 2, {"a": "\x1b]0;title\x07"}))
    assert all("\x1b" not in text and r"\x1b[2J" in text for text in said)
    hosts = start(port, (0, 2), (1, 2))
    hosts[1].leave("no\x1b[31m\ndata", 2)
    assert wait_for(ends, 1) == [(r"host 1 (evil\x1b[2J) stopped: no\x1b[31m\ndata", 2)]


@pytest.mark.parametrize(
    "hello",
    [{}, {"index": "1"}, {"index": 1, "count": 2, "facts": [1]}, {"index": -1, "count": 2}],
)
def test_a_host_that_says_nonsense_is_refused(port, hello, capfd):
    async def talk():
        while True:
            try:
                peer = rendezvous._Peer(*await asyncio.open_connection("127.0.0.1", port))
                break
            except OSError:
                await asyncio.sleep(0.01)
        assert await peer.introduce(TOKEN, 5)
        peer.send(**hello)
        return await peer.receive(5)

    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start, port, (0, 2, {"seed": "0"}), timeout=10.0)
        answer = asyncio.run(talk())
    assert starting.result() == [answer["refused"]]
    assert capfd.readouterr() == ("", "")


def test_a_message_that_is_too_long_is_not_read(port):
    async def check():
        peer = rendezvous._Peer(asyncio.StreamReader(), None)
        peer.reader.feed_data((rendezvous.LONGEST + 1).to_bytes(4) + b"{}")
        assert await peer.receive(5) is None

    asyncio.run(check())


def test_the_first_host_listens_at_the_coordinator_alone(port):
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start, port, (0, 2), timeout=0.5)
        strangers_say(port, b"")[0].close()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), 5)
        starting.result()
    hosts = start(port, (0, 2), (1, 2))
    assert hosts[0].jax_bind == hosts[0].jax_coordinator
    assert hosts[0].jax_bind.startswith("127.0.0.1:")


@pytest.mark.parametrize("listen", ["0.0.0.0", "127.0.0.2"])
def test_the_address_to_listen_at_can_be_named(port, listen):
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start, port, (0, 2), timeout=0.4, host="192.0.2.1", listen=listen)
        until = time.monotonic() + 5
        while True:
            try:
                socket.create_connection(("127.0.0.2", port), 5).close()
                break
            except OSError:
                assert time.monotonic() < until
        assert "did not come" in starting.result()[0]


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("192.0.2.1", "192.0.2.1 is no address of this machine, where host 0 was started"),
        ("no-such-host.invalid", "host 0 does not find the address of no-such-host.invalid"),
    ],
)
def test_a_coordinator_of_another_machine_is_refused(port, host, message):
    (said,) = start(port, (0, 2), host=host, timeout=1.0)
    assert message in said


def test_a_name_that_means_loopback_here_alone_is_all_interfaces():
    assert rendezvous._is_alias_of_loopback("node08", ["127.0.1.1"])
    assert not rendezvous._is_alias_of_loopback("localhost", ["::1", "127.0.0.1"])
    assert not rendezvous._is_alias_of_loopback("127.0.0.1", ["127.0.0.1"])
    assert not rendezvous._is_alias_of_loopback("node08", ["10.0.0.8"])


def test_no_port_after_the_last_is_tried():
    with pytest.raises(UsageError, match="no port from 65536 on is free"):
        rendezvous._free_port("127.0.0.1", 65536)
