"""The network of this machine: its name, its loopback, and the ports that our commands listen on."""

import ipaddress
import os
import socket

from launcher.doctor.finding import Finding, Level

LISTENERS = {5000: "`longformer ui`"}
"""Ports that a command listens on unless told otherwise; everything else takes any free one."""
_SECONDS = 5.0


def check_host_name() -> list[Finding]:
    """Resolves this machine's name, which the ranks of other nodes are told."""
    name = socket.gethostname()
    try:
        addresses = {ipaddress.ip_address(each[4][0]) for each in socket.getaddrinfo(name, None)}
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "Give the machine's name an address in /etc/hosts or DNS."
        return [Finding("host name", Level.WARN, f"its own name does not resolve: {reason}", remedy)]
    if all(address.is_loopback for address in addresses):
        remedy = "For runs over several nodes, set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the network to use."
        return [Finding("host name", Level.WARN, "resolves to a loopback address only", remedy)]
    return [Finding("host name", Level.OK, "resolves to an address of the network")]


def check_loopback() -> list[Finding]:
    """Checks that this machine can talk to itself over `localhost` at a free port, as the ranks of one machine do."""
    remedy = "See that the interface lo is up and that /etc/hosts has the line `127.0.0.1 localhost`."
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(("localhost", listener.getsockname()[1]), timeout=_SECONDS) as caller,
        ):
            caller.sendall(b"!")
            listener.settimeout(_SECONDS)
            answerer, _ = listener.accept()
            with answerer:
                answerer.settimeout(_SECONDS)
                heard = answerer.recv(1)
    except OSError as error:
        return [Finding("loopback", Level.MISS, f"localhost does not answer: {error}", remedy)]
    if heard != b"!":
        return [Finding("loopback", Level.MISS, "localhost does not pass on what is sent", remedy)]
    return [Finding("loopback", Level.OK, "localhost answers at a free port")]


def check_ports() -> list[Finding]:
    """Checks whether the ports are free that our commands, or the surroundings (MASTER_PORT), fix."""
    wanted = dict(LISTENERS)
    fixed = os.environ.get("MASTER_PORT", "")
    if fixed.isdigit():
        wanted[int(fixed)] = "the ranks' meeting point, named by MASTER_PORT,"
    return [port_finding(port, user) for port, user in wanted.items()]


def port_finding(port: int, user: str) -> Finding:
    """Returns whether a port can be listened on."""
    try:
        with socket.create_server(("", port)):
            return Finding(f"port {port}", Level.OK, "free")
    except OSError as error:
        remedy = f"It is meant for {user}: choose another there, or end what uses it (`ss -ltnp` shows it)."
        return Finding(f"port {port}", Level.WARN, f"cannot be listened on: {error.strerror}", remedy)
