"""Support for the daemon tests: a stand-in engine, agents, and a daemon that can be killed anywhere."""
