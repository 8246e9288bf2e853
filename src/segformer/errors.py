"""The one error for what a user can cause; every other exception is a bug of this package."""


class UserError(ValueError):
    """What a user can cause and correct: one line that says what is wrong, what was expected, and the fix.

    The command line prints it and exits with status 2.
    """
