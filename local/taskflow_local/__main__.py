"""`python -m taskflow_local` is the command `taskflow-local`."""

import sys

from taskflow_local.cli import main

if __name__ == "__main__":
    sys.exit(main())
