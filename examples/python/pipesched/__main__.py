# SPDX-License-Identifier: MIT
"""The command-line tool: `python -m pipesched compare --pp 8 --micro 20`."""

import os
import sys
from pathlib import Path


def main():
    """Becomes the tool that lies beside this file: its exit code and output are those of the process."""
    tool = Path(__file__).parent / "bin" / "pipesched"
    sys.stdout.flush()
    try:
        os.execv(tool, ["pipesched", *sys.argv[1:]])
    except OSError as error:
        sys.exit(f"pipesched: the tool {tool} does not run: {error.strerror}")


if __name__ == "__main__":
    main()
