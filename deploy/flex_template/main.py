"""What a flex template's launcher runs: the same command line as on a laptop."""

import sys

from inference.beam_runner import main

if __name__ == "__main__":
    sys.exit(main())
