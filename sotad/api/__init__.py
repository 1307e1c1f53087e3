"""The daemon's API: HTTP on a Unix socket, and on TCP when asked for."""
