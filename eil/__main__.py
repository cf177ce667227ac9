"""``python -m eil`` is the ``eil`` program."""

import sys

from eil.commands import forks


def main() -> int | None:
    """Run the program; a step of a workflow in a fork, which this process waits for, where there can be one."""
    code = forks.run(sys.argv)
    if code is not None:
        return code
    from eil.commands import cli  # slow to import

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
