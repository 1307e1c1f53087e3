"""Loops as Humanize lays them out in files: ours mirrored in its layout, its own read into the ledger as reported."""
