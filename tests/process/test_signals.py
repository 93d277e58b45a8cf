import os
import signal
import threading
import time

import pytest

from flax_resnet.process.signals import Interrupted, StopRequest


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_acts_at_once_while_there_is_nothing_to_save(signum):
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as stopped, StopRequest().listening():
        os.kill(os.getpid(), signum)
        time.sleep(1)
    assert stopped.value.signum == signum and signal.getsignal(signum) is before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_for_a_save_and_a_second_ctrl_c_does_not(signum):
    with StopRequest().listening() as stop, stop.saving_first():
        os.kill(os.getpid(), signum)
        assert stop and stop.signum == signum
        for _ in range(20):  # as some schedulers send
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signum
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


def test_a_signal_prints_nothing(capfd):
    """The handler may run within a print: a second one would raise "reentrant call"."""
    with StopRequest().listening() as stop, stop.saving_first():
        os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr() == ("", "")


def test_a_signal_ends_the_wait_for_a_long_call():
    done = threading.Event()
    start = time.monotonic()
    with pytest.raises(Interrupted), StopRequest().listening() as stop:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        stop.call(lambda: done.wait(20))
    assert time.monotonic() - start < 10
    done.set()


def test_a_long_call_runs_in_another_thread_only_while_listening():
    """JAX's context managers are thread-local: a library call keeps the caller's."""
    stop = StopRequest()
    assert stop.call(threading.current_thread) is threading.current_thread()
    with stop.listening():
        assert stop.call(threading.current_thread) is not threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            stop.call(lambda: 1 // 0)


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopRequest().listening():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_is_heard_even_where_a_shell_ignores_it_for_background_jobs():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest().listening() as stop, stop.saving_first():
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signum == signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_of_the_main_thread_no_handler_is_set():
    seen: list[bool] = []

    def run() -> None:
        with StopRequest().listening() as stop, stop.saving_first():
            seen.append(bool(stop))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
