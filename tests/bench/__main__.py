"""``python -m tests.bench``."""

from .quick import main

main()
