"""Guests that libvirt runs."""
