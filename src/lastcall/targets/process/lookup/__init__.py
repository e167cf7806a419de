"""From an address to the one process it means."""
