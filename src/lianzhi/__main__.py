"""``python -m lianzhi``: the same as the command ``lianzhi``; also what ``torchrun -m lianzhi`` runs."""

import sys

from lianzhi.cli import main

if __name__ == "__main__":
    sys.exit(main())
