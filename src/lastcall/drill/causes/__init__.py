"""The causes for which a stop loses work, each read from what a drill saw. Pure."""
