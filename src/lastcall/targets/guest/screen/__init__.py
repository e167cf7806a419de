"""What a guest shows on its screen: its picture, the text in it, and what the text means."""
