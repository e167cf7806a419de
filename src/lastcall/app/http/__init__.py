"""What a server over TCP needs to end well: its door, its connections, its last words."""
