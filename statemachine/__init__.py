"""The campaign machine: what may happen, what is known, and what should happen next. Pure: no I/O, no clock."""
