"""Processes on Linux: identity by pidfd, signals, exact endings, and what holds them up."""
