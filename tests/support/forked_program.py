"""What tests/unit/test_forked_command.py runs: it tells of itself, and ends as it is told."""

import atexit
import os
import signal
import sys
import threading


def outlive_the_main_thread() -> None:
    threading.main_thread().join()
    print("a thread is waited for")


if __name__ == "__main__":
    atexit.register(print, "at the end")
    threading.Thread(target=outlive_the_main_thread).start()
    leads = os.getsid(0) == os.getpid()
    print(sys.argv[1:], os.environ["OF_THE_TEST"], leads, repr(sys.stdin.read()))
    (how,) = sys.argv[1:]
    if how == "raises":
        raise ValueError("an error")
    if how == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "complains":
        sys.exit("a complaint")
