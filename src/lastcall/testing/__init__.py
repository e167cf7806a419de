"""Public helpers for tests that stop things."""
