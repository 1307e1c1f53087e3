"""Where runs happen: one small protocol, and the machine that the daemon is on."""

from sotad.hosts.base import Host, HostError, RunSpec, RunStatus, allowed_environment
from sotad.hosts.local import LocalHost, free_port

__all__ = ["Host", "HostError", "LocalHost", "RunSpec", "RunStatus", "allowed_environment", "free_port"]
