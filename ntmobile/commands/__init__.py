"""The ``ntm`` command, one file a command group."""
