"""The ``jaxcolor`` command: one file per subcommand, which only parse and print."""
