"""Adapters, one module a server: it is run so that it is told to end last."""
