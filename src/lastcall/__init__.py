"""Stops running things without losing their work, says why one will not stop, and proves it."""

__version__ = "0.1.0"
