"""A STAND-IN for a serving engine, for tests: no model, no torch; its time is honest CPU work per token."""
