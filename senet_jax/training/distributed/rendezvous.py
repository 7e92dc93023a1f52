"""The rendezvous of several processes, and the notice when one of them is gone.

The first listens; the others connect to it, and the connections stay until the run ends. They carry
JSON objects: who one is, signs of life, why one stops. A process that dies closes its connection, a
machine that dies falls silent; either way the first learns of it and tells the rest.

Nobody else can take part. Before anything is said, each end of a connection sends a random number,
and proves by an HMAC of both that it knows the token of this start (``host_token``). A connection
that does not prove it in time is closed, and has no other effect. The messages are not encrypted,
and jax's own coordinator, with which the processes then compute together, has no authentication at
all: the network between the hosts must be a private one.
"""

import asyncio
import contextlib
import dataclasses
import errno
import hmac
import ipaddress
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from senet_jax.errors import ExitCode, UsageError
from senet_jax.text import printable
from senet_jax.training.distributed.clusters import LAST_PORT, Process
from senet_jax.training.distributed.token import DIGEST_BYTES, NONCE_BYTES, ReadToken, prove

SILENCE_S = 40.0
"""Seconds without a sign of life after which a host counts as gone. One that is at work sends them
from a thread, which no compilation holds up for so long."""
BEAT_S = 5.0
"""Seconds between signs of life."""
GOODBYE_S = 2.0
"""Seconds that are spent on telling the others why one stops."""
LONGEST = 2**20
"""Bytes of a message."""
PROOF_S = 10.0
"""Seconds that a connection has to prove that it knows the token, and then to say who it is."""
STRANGERS = 64
"""Connections at a time that have proven nothing yet, or twice the number of hosts if that is more.
One more closes the oldest: a host proves itself at once, so that a crowd cannot keep it out."""
RETRY_S = 0.5
"""Seconds after which a host tries again to reach the first one."""

Message = dict[str, Any]
Result = TypeVar("Result")


@dataclasses.dataclass(eq=False)
class _Peer:
    """The other end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    index: int = 0
    name: str = ""
    done: bool = False
    """Tells whether it has nothing left to do."""

    @property
    def title(self) -> str:
        return _title(self.index, self.name)

    def send(self, **message: Any) -> None:
        """Sends without waiting; that the other end is gone shows when it is read from."""
        data = json.dumps(message).encode()
        with contextlib.suppress(OSError):
            self.writer.write(len(data).to_bytes(4) + data)

    async def receive(self, seconds: float) -> Message | None:
        """The next message; None if the connection ends, or nothing comes for so long."""
        try:
            message = json.loads(await asyncio.wait_for(self._read_message(), seconds))
        except (EOFError, OSError, ValueError, RecursionError, TimeoutError):
            return None
        return message if isinstance(message, dict) else None

    async def _read_message(self) -> bytes:
        size = int.from_bytes(await self.reader.readexactly(4))
        if size > LONGEST:
            raise ValueError(f"a message of {size} bytes")
        return await self.reader.readexactly(size)

    async def admit(self, token: bytes) -> bool:
        """Returns whether the other end, which called, knows the token, and proves to know it."""
        listener = secrets.token_bytes(NONCE_BYTES)
        self.writer.write(listener)
        answer = await self._read_exactly(NONCE_BYTES + DIGEST_BYTES, PROOF_S)
        caller, proof = answer[:NONCE_BYTES], answer[NONCE_BYTES:]
        if not hmac.compare_digest(proof, prove(token, "caller", listener, caller)):
            return False
        self.writer.write(prove(token, "listener", listener, caller))
        return True

    async def introduce(self, token: bytes, seconds: float) -> bool:
        """Proves to know the token; returns whether the other end, which was called, does too."""
        caller = secrets.token_bytes(NONCE_BYTES)
        listener = await self._read_exactly(NONCE_BYTES, seconds)
        self.writer.write(caller + prove(token, "caller", listener, caller))
        proof = await self._read_exactly(DIGEST_BYTES, seconds)
        return hmac.compare_digest(proof, prove(token, "listener", listener, caller))

    async def _read_exactly(self, count: int, seconds: float) -> bytes:
        """Reads this many bytes, or none if the connection ends before or the time is up."""
        try:
            return await asyncio.wait_for(self.reader.readexactly(count), seconds)
        except (EOFError, OSError, TimeoutError):
            return b""

    def break_off(self) -> None:
        """Closes the connection without waiting for the other end."""
        self.writer.transport.abort()


def _title(index: int, name: str) -> str:
    return f"host {index} ({name})"


def _text(value: object) -> str:
    """A peer's text for a terminal, whatever it sent."""
    return printable(str(value))


def _number(value: object) -> int:
    """A peer's whole number; -1, which is none of a host or a process, if it sent another thing."""
    return value if type(value) is int else -1


class Rendezvous:
    """The connection of this process with the others.

    Args:
        process: Which one this is.
        facts: Values that must be the same on all of them, by name.
        timeout: Seconds to wait for each other.
        read_token: Returns the secret that all of them know; is called before each try.
        listen: The address that the first host listens at; None means the coordinator's.

    Raises:
        UsageError: Not all came, or they do not fit together; the message says which and how.
    """

    def __init__(
        self,
        process: Process,
        facts: Mapping[str, str],
        timeout: float,
        read_token: ReadToken,
        listen: str | None = None,
    ) -> None:
        self._process, self._facts, self._read_token = process, dict(facts), read_token
        self._listen = listen
        self._own_name = printable(socket.gethostname())
        self._peers: dict[int, _Peer] = {}
        self._over = False
        self._leaving = False
        self._refusal: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="hosts", daemon=True).start()
        join = self._gather if process.index == 0 else self._join
        self.jax_bind: str | None = None
        """The address on which jax's coordinator listens on the first host; None on the others."""
        self.jax_coordinator = self._wait_for(join(timeout))
        """The address at which this process finds jax's coordinator."""

    @property
    def title(self) -> str:
        """This host, for people."""
        return _title(self._process.index, self._own_name)

    def finish(self) -> None:
        """Returns when all have come here; from then on they may end in any order."""
        self._wait_for(self._finish())

    def leave(self, reason: str, code: int) -> None:
        """Tells the others that this one stops before the end.

        Args:
            reason: A sentence.
            code: The exit code that they end with.
        """
        self._wait_for(self._leave(reason, code))

    def _wait_for(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        # The loop itself keeps only weak references.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The first host.

    async def _gather(self, timeout: float) -> str:
        host, port = self._process.address
        if self._process.count == 1:
            address = "127.0.0.1"
        else:
            address = await self._admit_all(self._listen or host, port, timeout)
        try:
            jax_port = _free_port(address, port + 1)
        except UsageError as error:
            await self._refuse_all(str(error))
        for peer in self._peers.values():
            peer.send(name=self._own_name, jax_port=jax_port)
            self._begin(self._watch(peer))
        self._begin(self._beat())
        self.jax_bind = _join_port(address, jax_port)
        # All interfaces are no address that one can connect to.
        reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
        return _join_port(reached, jax_port)

    async def _admit_all(self, host: str, port: int, timeout: float) -> str:
        """Waits until all other hosts are among the peers; returns the address listened at."""
        token, decided = self._read_token(), asyncio.Event()
        assert token
        strangers: dict[_Peer, None] = {}
        most = max(STRANGERS, 2 * self._process.count)

        async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = _Peer(reader, writer)
            strangers[peer] = None
            if len(strangers) > most:
                next(iter(strangers)).break_off()
            try:
                known = await peer.admit(token)
            finally:
                del strangers[peer]
            hello = await peer.receive(PROOF_S) if known else None
            if decided.is_set() or hello is None:
                peer.break_off()
                return
            peer.index, peer.name = _number(hello.get("index")), _text(hello.get("name"))
            callers.append(peer)
            self._refusal = self._objection(peer, hello)
            self._peers[peer.index] = peer
            if self._refusal or len(self._peers) == self._process.count - 1:
                decided.set()

        callers: list[_Peer] = []
        sockets = await self._listen_at(host, port)
        address: str = sockets[0].getsockname()[0]
        servers = [await asyncio.start_server(receive, sock=one) for one in sockets]
        try:
            await asyncio.wait_for(decided.wait(), timeout)
        except TimeoutError:
            decided.set()
            absent = sorted(set(range(1, self._process.count)) - self._peers.keys())
            numbers = ", ".join(map(str, absent))
            self._refusal = (
                f"of {self._process.count} hosts number {numbers} did not come to "
                f"{self._process.coordinator} within {timeout:g} s: start the same command there, "
                "with the same folder, or correct --hosts.coordinator."
            )
        finally:
            # From now on nobody is listened to but those who are here.
            for server in servers:
                server.close()
            for stranger in [*strangers]:
                stranger.break_off()
        if self._refusal:
            await self._refuse_all(self._refusal, callers)
        return address

    async def _refuse_all(self, refusal: str, callers: "Iterable[_Peer] | None" = None) -> NoReturn:
        callers = list(self._peers.values() if callers is None else callers)
        for peer in callers:
            peer.send(refused=refusal)
        await _flush(callers)
        raise UsageError(refusal)

    async def _listen_at(self, host: str, port: int) -> list[socket.socket]:
        """Binds the addresses of this machine that a host name or an address stands for."""
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise UsageError(
                f"host 0 does not find the address of {host} ({error}): fix --hosts.coordinator."
            ) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if _is_alias_of_loopback(host, addresses):
            # As Debian names a machine in its own /etc/hosts: the others come by another address,
            # which is not known here.
            addresses = ["0.0.0.0"]
        sockets, reason = [], ""
        for address in addresses:
            try:
                sockets.append(_bound(address, port))
            except OSError as error:
                reason = error.strerror or str(error)
                if error.errno != errno.EADDRNOTAVAIL:
                    for one in sockets:
                        one.close()
                    raise UsageError(
                        f"host 0 cannot wait for the others at port {port} of {host} ({reason}): "
                        "choose another port in --hosts.coordinator."
                    ) from error
        if not sockets:
            raise UsageError(
                f"{host} is no address of this machine, where host 0 was started ({reason}): fix "
                "--hosts.index or --hosts.coordinator, or name the address to listen at in "
                "--hosts.listen."
            )
        return sockets

    def _objection(self, peer: _Peer, hello: Message) -> str | None:
        """The reason against this host; None if there is none."""
        count = self._process.count
        if hello.get("count") != count:
            return (
                f"{peer.title} was told that there are {_text(hello.get('count'))} hosts, and "
                f"{self.title} that there are {count}: give all the same --hosts.count."
            )
        other = self._peers.get(peer.index)
        if not 0 < peer.index < count or (other and not other.reader.at_eof()):
            return (
                f"two hosts were told that they are number {peer.index}, the second one on "
                f"{peer.name}: give each its own --hosts.index."
            )
        facts = hello.get("facts")
        theirs = facts if isinstance(facts, dict) else {}
        differing = sorted(
            name
            for name in self._facts.keys() | theirs.keys()
            if self._facts.get(name) != theirs.get(name)
        )
        if differing:
            parts = [
                _text(f"{name} {theirs.get(name)}, not {self._facts.get(name)}")
                for name in differing
            ]
            return (
                f"{peer.title} differs from {self.title} in {'; '.join(parts)}: start the same "
                "command on all hosts."
            )
        return None

    # The others.

    async def _join(self, timeout: float) -> str:
        first = await self._reach(timeout)
        first.send(
            index=self._process.index,
            count=self._process.count,
            name=self._own_name,
            facts=self._facts,
        )
        # The first one may have begun to wait only now.
        answer = await first.receive(timeout + GOODBYE_S)
        if answer is None or not answer.keys() & {"refused", "jax_port"}:
            raise UsageError(
                f"host 0 at {self._process.coordinator} stopped before all hosts had come: see "
                "what it says."
            )
        if "refused" in answer:
            raise UsageError(_text(answer["refused"]))
        first.name = _text(answer.get("name"))
        self._peers[0] = first
        self._begin(self._watch(first))
        self._begin(self._beat())
        # Through a port of this machine: jax's client ends the process with a dump when its
        # connection breaks. This one does not, and leaves it to the watch to say who is gone.
        target = (self._process.address[0], _number(answer["jax_port"]))
        self._server = await asyncio.start_server(_forward_to(target), "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _reach(self, timeout: float) -> _Peer:
        """Connects to the first host, as soon as it listens and both know the same token."""
        until = time.monotonic() + timeout
        reasons: list[str] = []
        while True:
            found = await self._try_to_reach(max(until - time.monotonic(), 0.1))
            if isinstance(found, _Peer):
                return found
            if found not in reasons:
                reasons.append(found)
            if time.monotonic() > until:
                raise UsageError(
                    f"{self.title} did not reach host 0 at {self._process.coordinator} within "
                    f"{timeout:g} s ({'; '.join(reasons)}): start the same command there, with "
                    "the same folder, or correct --hosts.coordinator."
                )
            await asyncio.sleep(RETRY_S)

    async def _try_to_reach(self, seconds: float) -> "_Peer | str":
        """Connects to the first host; returns the reason if that fails."""
        # Each time anew: what is there may be that of an earlier start.
        token = self._read_token()
        if token is None:
            return "it has not left its token in the folder of the run yet"
        try:
            opened = asyncio.open_connection(*self._process.address)
            first = _Peer(*await asyncio.wait_for(opened, seconds))
        except (OSError, UnicodeError) as error:
            return str(error) or "no answer"
        if await first.introduce(token, min(seconds, PROOF_S)):
            return first
        first.break_off()
        return "what answers there does not know the token of this start"

    # All.

    async def _beat(self) -> None:
        while True:
            for peer in self._peers.values():
                peer.send()
            await asyncio.sleep(BEAT_S)

    async def _watch(self, peer: _Peer) -> None:
        while (message := await peer.receive(SILENCE_S)) is not None:
            if "stop" in message:
                self._end(_text(message["stop"]), _number(message.get("code")) % 256)
            if message.get("done"):
                peer.done = True
        if not self._over:
            self._end(
                f"{peer.title} is gone; the same command on all hosts resumes.", ExitCode.PREEMPTED
            )

    def _end(self, sentence: str, code: int) -> None:
        """Ends the process, whose main thread may wait for a host that is gone."""
        if self._leaving:
            return
        self._leaving = True
        if self._process.index == 0:
            for peer in self._peers.values():
                peer.send(stop=sentence, code=code)
        self._begin(self._flush_and_exit(sentence, code))

    async def _flush_and_exit(self, sentence: str, code: int) -> None:
        await _flush(self._peers.values())
        exit_now(sentence, code)

    async def _leave(self, reason: str, code: int) -> None:
        self._leaving = True
        for peer in self._peers.values():
            peer.send(stop=f"{self.title} stopped: {reason}", code=code)
        await _flush(self._peers.values())

    async def _finish(self) -> None:
        # The first is done when all are, so that the others need to listen to nobody else.
        if self._process.index == 0:
            await self._until(lambda: all(peer.done for peer in self._peers.values()))
        for peer in self._peers.values():
            peer.send(done=True)
        await self._until(lambda: all(peer.done for peer in self._peers.values()))
        self._over = True
        await _flush(self._peers.values())

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await asyncio.sleep(0.05)


def exit_now(sentence: str, code: int) -> None:
    """Ends the process at once, whatever its other threads wait for."""
    sys.stdout.flush()
    # The bar of a terminal leaves the cursor in its line.
    start = "\n" if sys.stderr.isatty() else ""
    print(f"{start}senet-jax: {sentence}", file=sys.stderr, flush=True)
    os._exit(code)


async def _flush(peers: Iterable[_Peer]) -> None:
    """Waits until the other ends have what was sent, but not for long."""
    drains = [peer.writer.drain() for peer in peers]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*drains, return_exceptions=True), GOODBYE_S)


def _join_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _is_alias_of_loopback(host: str, addresses: Iterable[str]) -> bool:
    """Tells whether this machine's own table gives a name of the network a loopback address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        local = host == "localhost" or host.endswith(".localhost")
        return not local and all(ipaddress.ip_address(one).is_loopback for one in addresses)
    return False


def _bound(address: str, port: int) -> socket.socket:
    """A socket that is bound to an address of this machine.

    Raises:
        OSError: This machine has no such address, or another process listens there.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _free_port(address: str, first: int) -> int:
    """The first port from a number on that nobody listens at."""
    for port in range(first, min(first + 100, LAST_PORT + 1)):
        with contextlib.suppress(OSError), _bound(address, port):
            return port
    raise UsageError(
        f"no port from {first} on is free at {address}: choose another in --hosts.coordinator."
    )


def _forward_to(
    target: tuple[str, int],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A server that carries the bytes of each connection to a target and back.

    When the target breaks off, the near end is kept open and silent.
    """

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*target)
        except OSError:
            # Not there yet; the near end tries again.
            writer.close()
            return

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(2**16):
                    sink.write(data)
                    await sink.drain()

        back = asyncio.ensure_future(pump(far_reader, writer))
        await pump(reader, far_writer)
        far_writer.close()
        back.cancel()
        # The target may have broken off before the near end did.
        with contextlib.suppress(OSError):
            while await reader.read(2**16):
                pass
        writer.close()

    return carry
