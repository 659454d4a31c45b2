"""`python -m pipeline`, which is `payment-pipeline`: the command as a process of its own."""

from typing import NoReturn

from pipeline import cli
from pipeline.process_end import end_process


def main() -> NoReturn:
    """Runs the command, and ends the process with its exit status."""
    end_process(cli.main())


if __name__ == "__main__":
    main()
