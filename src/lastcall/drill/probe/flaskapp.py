"""The probe application in Flask, for its development server.

python -m flask --app lastcall.drill.probe.flaskapp run --port 8000
"""

from __future__ import annotations

from flask import Flask, request
from werkzeug.wrappers import Response

from lastcall.drill.probe import wsgi

app: Flask = Flask(__name__, static_folder=None)


@app.route("/", defaults={"path": ""}, methods=["GET", "POST", "PUT"])
@app.route("/<path:path>", methods=["GET", "POST", "PUT"])
def everything(path: str) -> Response:
    """Let the WSGI application answer, below Flask's routing and clean-up."""
    del path
    return Response.from_app(wsgi.app, request.environ, buffered=False)
