"""The clients of a drill: each brings connections into one state and follows them to the end."""
