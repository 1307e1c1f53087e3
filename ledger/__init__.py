"""The ledger: an append-only, hash-chained record of every fact.

Importing this package loads the standard library only; each module below is imported by whoever needs it.

* :mod:`ledger.events` - what an event is
* :mod:`ledger.catalogue` - which event types exist, and the shape of their payloads
* :mod:`ledger.store` - ``Ledger``: durable append, the only way to write
* :mod:`ledger.writer` - ``Writer``: the same from asyncio, with group commit
* :mod:`ledger.reader` - ``Reader``: read a ledger file while a daemon writes it
* :mod:`ledger.replay` - every event in order, chain checked on the way
* :mod:`ledger.verify` - find and name every kind of tampering
* :mod:`ledger.export` - JSON Lines
* :mod:`ledger.keys`, :mod:`ledger.artifacts`, :mod:`ledger.snapshots` - signed checkpoints, blobs, start-up
"""
