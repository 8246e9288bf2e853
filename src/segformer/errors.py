"""The exception for mistakes that a user can correct; any other exception is a bug of this package."""


class UserError(ValueError):
    """A mistake that the user can correct; the message is one line that says what is wrong and how to fix it.

    The command line prints the message and exits with status 2.
    """
