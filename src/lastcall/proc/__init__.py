"""Starting programs, waiting until they are ready, and clearing them away for certain."""
