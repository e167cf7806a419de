"""Django's wsgi.py, wrapped: `gunicorn --worker-class gthread django_wsgi:application`."""

from django.core.wsgi import get_wsgi_application
from with_django import lifecycle  # a module of the project, which holds the hooks, too

application = lifecycle.wsgi(get_wsgi_application(), ready="/readyz", live="/livez")
