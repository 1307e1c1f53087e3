"""A small OpenAI-compatible inference engine on the CPU: `python -m refengine --help`."""

__version__ = "0.1.0"
