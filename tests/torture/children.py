"""Child processes with a checked result or exit."""

import os
import pickle
import signal
import time


class Died(Exception):
    """A child ended without a result."""


def in_child(function, *arguments, seconds=120):
    """Call a function in a forked process, and return its result.

    Raises
    ------
    Died
        If the process is killed, exits without a result, or takes longer than that.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        code = 1
        try:
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(function(*arguments), pipe)
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    os.close(write)
    content = _read(read, pid, seconds)
    _, status = os.waitpid(pid, 0)
    if status:
        raise Died(f"the child ended with the status {status}")
    return pickle.loads(content)


def _read(read, pid, seconds):
    os.set_blocking(read, False)
    parts, end = [], time.monotonic() + seconds
    with os.fdopen(read, "rb", buffering=0) as pipe:
        while time.monotonic() < end:
            part = pipe.read(2**20)
            if part == b"":
                return b"".join(parts)
            if part:
                parts.append(part)
            else:
                time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise Died(f"no result after {seconds} s")
