"""`python -m lastcall` is `lastcall`."""

from lastcall.cli.main import main

main()
