"""`python -m sluiceway.cli`: the command, where its script is not on the path."""

from sluiceway.cli.app import main

main()
