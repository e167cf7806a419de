"""What a drill found, for people and for machines."""
