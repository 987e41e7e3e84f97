"""``python -m lshfm_mm.doctor``: is the stack sound, and what mends it?"""

import sys

from .compat.doctor import main

if __name__ == '__main__':
    sys.exit(main())
