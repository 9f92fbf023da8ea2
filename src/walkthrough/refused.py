"""How a program of this package says no: one exception, with a message for the person who asked."""

from typing import NoReturn


class Refused(Exception):
    """What the user asked for cannot be done. The message says why; nothing has been changed."""


def refuse(message: str) -> NoReturn:
    """End the program with a message, because what was asked for makes no sense.

    Raises:
        Refused: always.
    """
    raise Refused(message)
