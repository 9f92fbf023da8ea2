"""What the book needs around `minioptim`: surfaces, data, figures, parity tables, panels.

A chapter begins with::

    import walkthrough

    walkthrough.setup()

and then imports what it uses by name, for example ``from walkthrough import plots, surfaces``.
Nothing here is needed by `minioptim`, and no module that a notebook imports needs the site's tools.
"""

from typing import Any

from .environment import device, setup

__all__ = ["device", "setup", "show"]


def show(*args: Any, **kwargs: Any) -> Any:
    """Show lines of an installed package, PyTorch's beside ours: see `walkthrough.source.show`."""
    from .source import show

    return show(*args, **kwargs)
