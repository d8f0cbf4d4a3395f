"""`python -m scaling.study`."""

import sys

from scaling.cli import main
from scaling.study import replicate

if __name__ == "__main__":
    sys.exit(main(replicate.Options, "python -m scaling.study", replicate.__doc__, replicate.run))
