"""Django that is stopped without losing a request: settings, views, and the hooks.

All in one file here. `django_asgi.py` and `django_wsgi.py` beside it are a project's asgi.py and
wsgi.py.
"""

import asyncio
import time

from django.conf import settings
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.urls import path

from lastcall import Lifecycle

lifecycle = Lifecycle("with-django")


@lifecycle.on("close")
def close_database() -> None:
    """Nobody needs it any more: requests and jobs are over."""
    connections.close_all()
    print("clients are closed", flush=True)


def fast(_: HttpRequest) -> HttpResponse:
    """At once."""
    return HttpResponse("ok")


def report(request: HttpRequest) -> HttpResponse:
    """In flight when the stop comes."""
    time.sleep(float(request.GET.get("seconds", "0.5")))
    return HttpResponse("done")


async def areport(request: HttpRequest) -> HttpResponse:
    """The same in a coroutine."""
    await asyncio.sleep(float(request.GET.get("seconds", "0.5")))
    return HttpResponse("done")


urlpatterns = [path("", fast), path("report", report), path("areport", areport)]
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
