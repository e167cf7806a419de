"""Django's asgi.py, wrapped: `uvicorn django_asgi:application`."""

from django.core.asgi import get_asgi_application
from with_django import lifecycle  # a module of the project, which holds the hooks, too

application = lifecycle.asgi(get_asgi_application(), ready="/readyz", live="/livez")
