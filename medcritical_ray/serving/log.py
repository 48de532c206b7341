"""The server's log, which is Serve's. Its errors are shown to whoever serves, too."""

import logging
import sys

NAME = "ray.serve.policies"


def show_errors() -> None:
    """Has errors written to this process's own stderr, too, in whose place Serve puts its log. Ray shows it where the
    command that serves has started the cluster."""
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setLevel(logging.ERROR)
    logging.getLogger(NAME).addHandler(handler)
