"""Tests of the engine: `python -m unittest discover -s refengine/tests -t .`."""
