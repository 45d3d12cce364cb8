"""`python -m gateway.cli` is `emberlog`."""

from gateway.cli import main

main()
