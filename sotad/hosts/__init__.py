"""Where runs happen: one small protocol, the machine that the daemon is on, and (`sotad.hosts.ssh`) others."""

from sotad.hosts.base import Host, HostError, HostUnreachable, RunSpec, RunStatus, allowed_environment
from sotad.hosts.local import LocalHost, free_port

__all__ = [
    "Host",
    "HostError",
    "HostUnreachable",
    "LocalHost",
    "RunSpec",
    "RunStatus",
    "allowed_environment",
    "free_port",
]
