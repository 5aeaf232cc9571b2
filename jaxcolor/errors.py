"""The one exception that jaxcolor raises for input that it cannot use."""


class InputError(ValueError):
    """Says in one line what was wrong, what was expected and how to fix it.

    The command line prints the message without a traceback; a ``ValueError`` to callers of the library.
    """
