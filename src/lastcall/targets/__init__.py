"""The kinds of things that can be stopped, one module or folder each."""
