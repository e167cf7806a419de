"""The durable record of every stop."""
