"""Workloads, result rows, the SLA, and whether two servers answer alike."""
