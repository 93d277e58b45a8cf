import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from flax_resnet.process.signals import StopRequest

pytestmark = pytest.mark.usefixtures("pythons_signals")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_for_a_save_and_a_second_ctrl_c_does_not(signum):
    stop = StopRequest(listens=True)
    with pytest.raises(KeyboardInterrupt), stop.saving_first():
        os.kill(os.getpid(), signum)
        assert stop and stop.signum == signum
        for _ in range(20):  # as some schedulers send
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signum
        os.kill(os.getpid(), signal.SIGINT)  # the second; Python's own handler raises
        time.sleep(1)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_afterwards_signals_act_as_before(signum):
    before = signal.getsignal(signum)
    with StopRequest(listens=True).saving_first():
        assert signal.getsignal(signum) is not before
    assert signal.getsignal(signum) is before


def test_a_signal_prints_nothing(capfd):
    """The handler may run within a print: a second one would raise "reentrant call"."""
    with StopRequest(listens=True).saving_first():
        os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr() == ("", "")


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        stop = StopRequest(listens=True)
        with stop.saving_first():
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_is_heard_even_where_a_shell_ignores_it_for_background_jobs():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stop = StopRequest(listens=True)
        with stop.saving_first():
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signum == signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_library_call_sets_no_handler():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest().saving_first():
        assert signal.getsignal(signal.SIGINT) is before


def test_outside_of_the_main_thread_no_handler_is_set():
    seen: list[bool] = []

    def run() -> None:
        stop = StopRequest(listens=True)
        with stop.saving_first():
            seen.append(bool(stop))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]


def test_at_the_command_line_ctrl_c_ends_even_what_does_not_return_to_python():
    program = (
        "from flax_resnet.process.signals import end_at_ctrl_c; import ctypes; end_at_ctrl_c();"
        "print('ready', flush=True); ctypes.PyDLL(None).sleep(60)"  # holds the interpreter's lock
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == -signal.SIGINT
