"""``python -m eil`` is the ``eil`` program."""

from eil.commands.cli import main

raise SystemExit(main())
