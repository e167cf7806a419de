"""Settings of gunicorn under a drill, in place of a `gunicorn.conf.py` that happens to lie here."""

from __future__ import annotations

from gunicorn import version_info  # type: ignore[import-untyped]

if version_info >= (25,):
    # Its control socket has one path for all gunicorns of a user: drills must not share it.
    control_socket_disable = True
