"""Commands that end as a user's mistake should: one line on stderr, code 2, no traceback."""

import pytest

from rlcore.cli import main


def refusal(capfd, *arguments: object) -> str:
    """Runs a command in this process, expects it to be refused, and gives the line it said."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    said = capfd.readouterr().err.strip()
    assert stopped.value.code == 2
    assert "Traceback" not in said
    line = said.splitlines()[-1]
    assert line.startswith("rlcore: ")
    return line
