import os
import signal
import threading
import time

import pytest

from flax_resnet.process.signals import Interrupted, StopRequest, while_answering_signals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_acts_at_once_while_there_is_nothing_to_save(signum):
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as stopped, StopRequest():
        os.kill(os.getpid(), signum)
        time.sleep(1)
    assert stopped.value.signum == signum and signal.getsignal(signum) is before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_remembered_while_there_is_and_a_second_ctrl_c_acts_at_once(signum):
    with StopRequest() as stop:
        with stop.remembered():
            os.kill(os.getpid(), signum)
            assert stop and stop.signum == signum
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)


def test_a_signal_ends_the_waiting_for_a_long_call():
    done = threading.Event()
    start = time.monotonic()
    with pytest.raises(Interrupted), StopRequest():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        while_answering_signals(lambda: done.wait(20))
    assert time.monotonic() - start < 10
    done.set()


def test_what_a_long_call_returns_or_raises_comes_back():
    assert while_answering_signals(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        while_answering_signals(lambda: 1 // 0)


def test_outside_of_the_main_thread_no_handler_is_set():
    seen: list[bool] = []

    def run() -> None:
        with StopRequest() as stop, stop.remembered():
            seen.append(bool(stop))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
