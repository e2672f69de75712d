import os
import signal
import threading

import pytest

from perceptual.undo import all_or_nothing, signals_deferred


def test_what_succeeds_stays():
    undone = []
    with all_or_nothing() as undo:
        undo.callback(undone.append, "step")
    assert undone == []


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)],
)
def test_a_signal_undoes_all_steps_even_if_more_come(number, raised):
    undone = []

    def interrupted(step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), number)
        undone.append(step)

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises((raised, KeyboardInterrupt)), all_or_nothing() as undo:
        undo.callback(interrupted, 1)
        undo.callback(interrupted, 2)
        os.kill(os.getpid(), number)
        signal.pause()
    assert undone == [2, 1]
    assert before == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_a_signal_waits_for_the_end_of_a_short_block():
    did = []
    with pytest.raises(KeyboardInterrupt):
        with signals_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            did.append("all")
        did.append("more")
    assert did == ["all"]


def test_in_another_thread_errors_still_undo():
    undone = []

    def work():
        with pytest.raises(OSError, match="full"), all_or_nothing() as undo:
            undo.callback(undone.append, "step")
            raise OSError("full")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert undone == ["step"]
