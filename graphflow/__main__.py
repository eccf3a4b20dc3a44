"""``python -m graphflow``: the command line, where the command ``graphflow`` is not on the path."""

import sys

from graphflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
