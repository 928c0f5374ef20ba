"""`python -m avhubert`: the same as the command `avhubert`."""

import sys

from avhubert.cli.app import main

sys.exit(main())
