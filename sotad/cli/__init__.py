"""The two commands, ``sotad`` and ``sotactl``: one module per group of subcommands.

At import time these modules load the standard library only; what a subcommand needs, it imports when it runs.
"""
