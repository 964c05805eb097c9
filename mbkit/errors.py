"""Errors that are the user's to mend."""


class UserError(Exception):
    """A mistake of the user's: one sentence naming the culprit, what was expected and what came. Command line: exit status 2."""
