"""``python -m distil``."""

from distil.cli.main import main

main()
