"""The option ``--state DIR`` of the commands about this device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ntmobile.client.state import default_state

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def state_option() -> Decorator:
    """The option ``--state DIR``: ``$NTM_STATE``, or the platform's state directory."""
    return click.option(
        "--state",
        type=click.Path(path_type=Path),
        envvar="NTM_STATE",
        default=default_state,
        metavar="DIR",
        help="State directory of the device  [env: NTM_STATE]",
    )


def json_option() -> Decorator:
    """The option ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
