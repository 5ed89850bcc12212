"""What a run says where there is no terminal."""

import time

from rlcore.track import console


def test_a_side_task_is_seen_before_its_first_part_is_done(monkeypatch, capsys):
    monkeypatch.setattr(console, "BETWEEN_LINES", 0.01)

    def says(text: str) -> bool:
        said, until = "", time.monotonic() + 60
        while text not in said and time.monotonic() < until:
            said += capsys.readouterr().out
        return text in said

    with console.open_console(0, done=0).progress("evaluation", 3) as advance:
        assert says("evaluation: 0/3  0.0/s  since 0:00:0")
        advance(2)
        assert says("evaluation: 2/3")
