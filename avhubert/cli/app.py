"""The `avhubert` command: parse the arguments, run one subcommand, turn errors into a sentence and an exit code.

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from avhubert.cli.corpus import COMMANDS as CORPUS_COMMANDS
from avhubert.cli.demo import DEMO
from avhubert.cli.live import LIVE
from avhubert.cli.models import COMMANDS as MODEL_COMMANDS
from avhubert.cli.output import escape_unknown_characters, show, terminal_logging, warn
from avhubert.cli.parser import Parser, build_parser
from avhubert.cli.recognition import COMMANDS as RECOGNITION_COMMANDS
from avhubert.cli.training import COMMANDS as TRAINING_COMMANDS
from avhubert.errors import AvhubertError

COMMANDS = (DEMO, *CORPUS_COMMANDS, *TRAINING_COMMANDS, *RECOGNITION_COMMANDS, LIVE, *MODEL_COMMANDS)


def parser() -> Parser:
    """The parser of the whole command."""
    return build_parser(COMMANDS)


def _with_folder(arguments: Sequence[str]) -> list[str]:
    """The arguments; a file whose name begins with a dash, as a shell's * gives it, is no option."""
    return [f"./{word}" if re.match(r"-.*\.\w+$", word) and os.path.isfile(word) else word for word in arguments]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; an error that a user can cause becomes one sentence on stderr and an exit code."""
    escape_unknown_characters()
    options = parser().parse_args(_with_folder(sys.argv[1:] if arguments is None else arguments))
    if options.version:
        from avhubert import __version__

        show(__version__)
        return 0
    if not hasattr(options, "run"):
        parser().print_help()
        return 2
    try:
        with terminal_logging():
            options.run(options)
    except AvhubertError as error:
        warn(error)
        return error.exit_code
    except BrokenPipeError:  # the reader of the pipe has ended, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports an error at exit
        return 1
    except OSError as error:  # a full disk, a lost mount: the operating system's message is the clearest
        warn(f"{error.filename or 'file'}: {error.strerror or error}")
        return 1
    except NotImplementedError as error:
        from avhubert.devices import MISSING_OPERATION, is_missing_operation

        if not is_missing_operation(error):
            raise
        warn(MISSING_OPERATION)
        return 2
    except (MemoryError, RuntimeError) as error:
        from avhubert.devices import OUT_OF_MEMORY, is_out_of_memory

        if not is_out_of_memory(error):
            raise
        warn(OUT_OF_MEMORY)
        return 1
    except KeyboardInterrupt:
        warn("interrupted; run the same command again to resume")
        return 130
    return 0
