"""How several processes meet, and notice when one of them is gone.

The first listens; the others connect to it, and the connections stay for the whole run. Lines of
JSON go over them: who one is, signs of life, why one stops. A process that dies closes its
connection, a machine that dies falls silent; either way the first learns of it and tells the rest.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from senet_jax.errors import UsageError
from senet_jax.training.clusters import Place

LOST = 75
"""Exit code where another host is gone: the same command resumes."""
SILENCE_S = 40.0
"""Seconds without a sign of life after which a host counts as gone. One that is at work sends them
from a thread, which no compilation holds up for so long."""
BEAT_S = 5.0
"""Seconds between signs of life."""
GOODBYE_S = 2.0
"""Seconds that are spent on telling the others why one stops."""
LONGEST = 2**20
"""Bytes of a line."""

Message = dict[str, Any]
Result = TypeVar("Result")


@dataclasses.dataclass
class _Peer:
    """The other end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    index: int = 0
    name: str = ""
    done: bool = False
    """Whether it has nothing left to do."""

    @property
    def title(self) -> str:
        return _title(self.index, self.name)

    def send(self, **message: Any) -> None:
        """Sends without waiting; that the other end is gone shows when it is read from."""
        with contextlib.suppress(OSError):
            self.writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self, seconds: float) -> Message | None:
        """The next message; None if the connection ends, or nothing comes for so long."""
        try:
            line = await asyncio.wait_for(self.reader.readline(), seconds)
            message = json.loads(line)
        except (OSError, ValueError, TimeoutError):
            return None
        return message if isinstance(message, dict) else None


def _title(index: int, name: str) -> str:
    return f"host {index} ({name})"


class Meeting:
    """The connection of this process with the others.

    Args:
        place: Which one this is.
        facts: What must be the same on all of them, by name.
        timeout: Seconds to wait for each other.

    Raises:
        UsageError: Not all came, or they do not fit together; the message says which and how.
    """

    def __init__(self, place: Place, facts: Mapping[str, str], timeout: float) -> None:
        self._place, self._facts = place, dict(facts)
        self._own_name = socket.gethostname()
        self._peers: dict[int, _Peer] = {}
        self._over = False
        self._leaving = False
        self._refusal: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="hosts", daemon=True).start()
        meet = self._gather if place.index == 0 else self._join
        self.jax_coordinator = self._wait_for(meet(timeout))
        """Where jax's own coordinator is to be."""

    @property
    def title(self) -> str:
        """This host, for people."""
        return _title(self._place.index, self._own_name)

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
        _, port = self._place.address
        count, decided = self._place.count, asyncio.Event()
        callers: list[_Peer] = []

        async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = _Peer(reader, writer)
            hello = await peer.receive(timeout)
            if not hello or "facts" not in hello:
                # Whatever it was, none of ours.
                writer.close()
                return
            peer.index, peer.name = int(hello["index"]), str(hello["name"])
            if decided.is_set():
                peer.send(refused=f"the hosts that meet at {self._place.coordinator} are complete.")
                return
            callers.append(peer)
            self._refusal = self._objection(peer, hello)
            self._peers[peer.index] = peer
            if self._refusal or len(self._peers) == count - 1:
                decided.set()

        try:
            # On all interfaces: which one the others come by is not known.
            self._server = await asyncio.start_server(receive, port=port, limit=LONGEST)
        except OSError as error:
            raise UsageError(
                f"host 0 cannot wait for the others at port {port} ({error.strerror}): choose "
                "another in --hosts.coordinator."
            ) from error
        if count == 1:
            decided.set()
        try:
            await asyncio.wait_for(decided.wait(), timeout)
        except TimeoutError:
            absent = sorted(set(range(1, count)) - self._peers.keys())
            numbers = ", ".join(map(str, absent))
            self._refusal = (
                f"of {count} hosts number {numbers} did not come to {self._place.coordinator} "
                f"within {timeout:g} s: start the same command there, or mend --hosts.coordinator."
            )
        if self._refusal:
            for peer in callers:
                peer.send(refused=self._refusal)
            await _flush(callers)
            raise UsageError(self._refusal)
        jax_port = _free_port(port + 1)
        for peer in self._peers.values():
            peer.send(name=self._own_name, jax_port=jax_port)
            self._begin(self._watch(peer))
        self._begin(self._beat())
        return f"127.0.0.1:{jax_port}"

    def _objection(self, peer: _Peer, hello: Message) -> str | None:
        """What speaks against this host, if anything does."""
        count = self._place.count
        if hello["count"] != count:
            return (
                f"{peer.title} was told that there are {hello['count']} hosts, and {self.title} "
                f"that there are {count}: give all the same --hosts.count."
            )
        other = self._peers.get(peer.index)
        if peer.index == 0 or (other and not other.reader.at_eof()):
            return (
                f"two hosts were told that they are number {peer.index}, the second one on "
                f"{peer.name}: give each its own --hosts.index."
            )
        theirs = hello["facts"]
        differing = sorted(
            name
            for name in self._facts.keys() | theirs.keys()
            if self._facts.get(name) != theirs.get(name)
        )
        if differing:
            parts = [
                f"{name} {theirs.get(name)}, not {self._facts.get(name)}" for name in differing
            ]
            return (
                f"{peer.title} differs from {self.title} in {'; '.join(parts)}: start the same "
                "command on all hosts."
            )
        return None

    # The others.

    async def _join(self, timeout: float) -> str:
        host, port = self._place.address
        until = time.monotonic() + timeout
        while True:
            try:
                opened = asyncio.open_connection(host, port, limit=LONGEST)
                first = _Peer(*await asyncio.wait_for(opened, max(until - time.monotonic(), 0.1)))
                break
            except (OSError, TimeoutError) as error:
                if time.monotonic() > until:
                    raise UsageError(
                        f"{self.title} did not reach host 0 at {self._place.coordinator} within "
                        f"{timeout:g} s ({error or 'no answer'}): start the same command there, "
                        "or mend --hosts.coordinator."
                    ) from error
            await asyncio.sleep(0.5)
        first.send(
            index=self._place.index,
            count=self._place.count,
            name=self._own_name,
            facts=self._facts,
        )
        # The first one may have begun to wait only now.
        answer = await first.receive(timeout + GOODBYE_S)
        if answer is None or not answer.keys() & {"refused", "jax_port"}:
            raise UsageError(
                f"what {self.title} found at {self._place.coordinator} is not host 0 of this run, "
                "or it stopped: see what it says, or mend --hosts.coordinator."
            )
        if "refused" in answer:
            raise UsageError(str(answer["refused"]))
        first.name = str(answer["name"])
        self._peers[0] = first
        self._begin(self._watch(first))
        self._begin(self._beat())
        # Through a port of this machine: jax's client ends the process with a dump when its
        # connection breaks. This one does not, and leaves it to the watch to say who is gone.
        target = (host, int(answer["jax_port"]))
        self._server = await asyncio.start_server(_forward_to(target), "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    # All.

    async def _beat(self) -> None:
        while True:
            for peer in self._peers.values():
                peer.send()
            await asyncio.sleep(BEAT_S)

    async def _watch(self, peer: _Peer) -> None:
        while (message := await peer.receive(SILENCE_S)) is not None:
            if "stop" in message:
                self._end(str(message["stop"]), int(message["code"]))
            if message.get("done"):
                peer.done = True
        if not self._over:
            self._end(f"{peer.title} is gone; the same command on all hosts resumes.", LOST)

    def _end(self, sentence: str, code: int) -> None:
        """Ends the process, whose main thread may wait for a host that is gone."""
        if self._leaving:
            return
        self._leaving = True
        if self._place.index == 0:
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
        if self._place.index == 0:
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


def _free_port(first: int) -> int:
    """The first port from a number on that nobody listens at."""
    for port in range(first, first + 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise UsageError(f"no port from {first} on is free: choose another in --hosts.coordinator.")


def _forward_to(
    target: tuple[str, int],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """What carries the bytes of each connection to a target and back.

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

    return carry
