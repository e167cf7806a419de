"""What holds a process up while it is waited for."""
