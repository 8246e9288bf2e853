"""The exception for mistakes that a user can correct, and a check for exhausted memory; all else is a bug."""


class UserError(ValueError):
    """A mistake that the user can correct; the message is one line that says what is wrong and how to fix it.

    The command line prints the message and exits with status 2.
    """


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that the memory of a device or the main memory is full.  Does not import torch."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool({"OutOfMemoryError", "MemoryError"} & names) or "can't allocate memory" in str(error)
