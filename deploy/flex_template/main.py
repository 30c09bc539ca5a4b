"""What a flex template's launcher runs: the same command line as on a laptop.

A launcher has to end once the job is submitted, so it does not wait for it.
"""

import sys

from inference.beam_runner import main

if __name__ == "__main__":
    sys.exit(main([*sys.argv[1:], "--no_wait"]))
