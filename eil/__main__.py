"""``python -m eil`` is the ``eil`` program."""

from eil.cli import main

raise SystemExit(main())
