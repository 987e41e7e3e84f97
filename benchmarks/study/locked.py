"""Run a script while holding a lock: LOCK SCRIPT [its arguments].

So does each training: a study that is killed leaves trainings, and the next
one must not write where they do.
"""

import runpy
import sys

from filelock import FileLock

if __name__ == '__main__':
    lock = sys.argv[1]
    sys.argv = sys.argv[2:]
    with FileLock(lock, timeout=0):
        runpy.run_path(sys.argv[0], run_name='__main__')
