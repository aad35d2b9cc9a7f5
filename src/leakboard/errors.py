"""What all errors of the reader's making have in common: the console shows their message and no traceback."""


class Fault(Exception):
    """A file, a call or a data set is not as it should be; the message says what was found and what was expected."""
