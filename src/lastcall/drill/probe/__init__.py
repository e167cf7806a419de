"""The application that drills run when only the server under it is of interest."""
