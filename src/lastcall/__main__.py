"""`python -m lastcall` is `lastcall`."""

import sys

from lastcall.cli.main import run

sys.exit(run())
