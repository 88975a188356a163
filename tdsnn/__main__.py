"""``python -m tdsnn``, the command line where the script of the package is not at hand, as under torchrun."""

from tdsnn.cli.main import main

main()
