"""How far the clocks of two nodes differ, asked over TCP: the answer also shows that the nodes reach each other."""

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from launcher.doctor.finding import Finding, Level

MOST_SKEW = 1.0
"""Seconds; file times and the order of events in logs are off by as much, and Slurm's own keys bear 300."""
_ASKED = 8
_SECONDS = 10.0


@contextmanager
def clock_served(clock: Callable[[], float] = time.time) -> Iterator[tuple[str, int]]:
    """Answers with this node's time whoever asks for it, and yields the host name and port to ask at."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(1):
                self.request.sendall(struct.pack("!d", clock()))

    with socketserver.ThreadingTCPServer(("", 0), Answer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield socket.gethostname(), server.server_address[1]
        server.shutdown()


def check_clock(address: tuple[str, int]) -> list[Finding]:
    """Compares this node's clock with the one served at an address.

    The question with the quickest answer counts: the other clock was read somewhere between asking and hearing.
    """
    try:
        with socket.create_connection(address, timeout=_SECONDS) as line:
            answers = [_ask(line) for _ in range(_ASKED)]
    except OSError as error:
        remedy = "See that nodes resolve each other's names and that no firewall stands between them."
        return [Finding("network between nodes", Level.MISS, f"the first node cannot be reached: {error}", remedy)]
    delay, difference = min(answers)
    reached = Finding("network between nodes", Level.OK, "the first node can be reached")
    if abs(difference) - delay / 2 <= MOST_SKEW:
        return [reached, Finding("clock", Level.OK, f"within {MOST_SKEW:g} s of the first node's")]
    found = f"{abs(difference):.1f} s {'behind' if difference > 0 else 'ahead of'} the first node's"
    return [reached, Finding("clock", Level.WARN, found, "Synchronise the clocks of the nodes with NTP or chrony.")]


def _ask(line: socket.socket) -> tuple[float, float]:
    """Returns how long the answer took, and how far the other clock is ahead of ours, in seconds."""
    asked = time.time()
    line.sendall(b"?")
    answer = b""
    while len(answer) < 8:
        part = line.recv(8 - len(answer))
        if not part:
            raise ConnectionError("the line was cut")
        answer += part
    heard = time.time()
    return heard - asked, struct.unpack("!d", answer)[0] - (asked + heard) / 2
