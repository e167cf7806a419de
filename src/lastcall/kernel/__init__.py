"""What Linux itself tells and does: /proc, pidfds, helper programs. Nothing here stops anything."""
