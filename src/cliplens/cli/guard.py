"""Run a command so that any error is printed as one sentence."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rich.console import Console


def guarded(command: Callable[[], Any], *, can_resume: Callable[[], bool] = lambda: False) -> None:
    """Run a command. Print any error in one sentence and exit with 2; exit with 128 + its number after a signal.

    `can_resume` tells whether the command has the option --resume, which the message of an interruption then names.
    """
    from cliplens.faults import Interrupted, in_words, without_password

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted(number)

    with suppress(ValueError, OSError):  # only the main thread may set signal handlers
        signal.signal(signal.SIGTERM, interrupt)
    try:
        command()
    except (Interrupted, KeyboardInterrupt) as stopped:
        number = stopped.number if isinstance(stopped, Interrupted) else signal.SIGINT
        advice = " Continue the run with --resume." if can_resume() else ""
        _tell_error("Interrupted", f"by {signal.Signals(number).name}.{advice}")
        sys.exit(128 + number)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the output is gone, so print nothing more
        sys.exit(1)
    except Exception as error:
        if os.environ.get("CLIPLENS_TRACEBACK"):
            traceback.print_exc()
        said = in_words(error)
        _tell_error(type(said).__name__, without_password(str(said)))
        sys.exit(2)


def _tell_error(kind: str, words: str) -> None:
    Console(stderr=True, highlight=False).print(f"[red]{kind}[/] ", end="")
    sys.stderr.write(f"{words}\n")
