"""`python -m cnnzoo` is `cnnzoo`."""

import sys

from cnnzoo.cli import main

sys.exit(main())
