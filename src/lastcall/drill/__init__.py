"""The drill: stops a real thing under real work and counts what was lost."""
