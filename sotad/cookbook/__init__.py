"""Campaigns for well-known models: made from a table of facts, kept under ``configs/cookbook``."""
