"""Flask that is stopped without losing a request.

gunicorn --worker-class gthread with_flask:app
"""

import time

from flask import Flask, request

from lastcall import Lifecycle

lifecycle = Lifecycle("with-flask")


@lifecycle.on("close")
def close_clients() -> None:
    """Nobody needs them any more: requests and jobs are over."""
    print("clients are closed", flush=True)


app = Flask(__name__)


@app.get("/")
def fast() -> str:
    """At once."""
    return "ok"


@app.get("/report")
def report() -> str:
    """In flight when the stop comes."""
    time.sleep(float(request.args.get("seconds", 0.5)))
    return "done"


app.wsgi_app = lifecycle.wsgi(app.wsgi_app, ready="/readyz", live="/livez")
