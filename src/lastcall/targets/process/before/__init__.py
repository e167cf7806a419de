"""What is known before anything is sent."""
