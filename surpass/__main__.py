"""`python -m surpass` is the command `surpass`."""

import sys

from surpass.cli import main

sys.exit(main())
