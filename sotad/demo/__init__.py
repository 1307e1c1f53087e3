"""The demo: a whole campaign on this machine, on the reference engine, with nothing canned."""
