"""compare_beanstalkd.py SOCKET JOBS: one producer and one consumer on a running beanstalkd, all of it pipelined; prints jobs a second from the first put to the last delete."""
import socket
import sys
import threading
import time

WINDOW, CONSUMED = 1000, 16  # commands under way at once


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + 10
    while True:
        try:
            s.connect(path)
            return s
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


class Lines:
    def __init__(self, s):
        self.s, self.rest = s, b""

    def some(self):
        """Whole lines that came, at least one."""
        while True:
            data = self.s.recv(1 << 20)
            if not data:
                sys.exit("beanstalkd closed the connection")
            lines = (self.rest + data).split(b"\r\n")
            self.rest = lines.pop()
            if lines:
                return lines


def produce(path, jobs):
    s, sent, answered = connect(path), 0, 0
    lines = Lines(s)
    while answered < jobs:
        n = min(WINDOW - (sent - answered), jobs - sent)
        if n:
            s.sendall(b"put 0 0 60 0\r\n\r\n" * n)
            sent += n
        for line in lines.some():
            if not line.startswith(b"INSERTED"):
                sys.exit("put: %r" % line)
            answered += 1


def consume(path, jobs):
    """Some reserves at once, then their deletes: beanstalkd stalls now and then when more commands follow a reserve that waits. RESERVED has a second, empty
    line: the body."""
    s, deleted = connect(path), 0
    lines = Lines(s)
    while deleted < jobs:
        n = min(CONSUMED, jobs - deleted)
        ids = []
        s.sendall(b"reserve\r\n" * n)
        while len(ids) < n:
            for line in lines.some():
                if line.startswith(b"RESERVED"):
                    ids.append(line.split()[1])
                elif line:
                    sys.exit("reserve: %r" % line)
        s.sendall(b"".join(b"delete " + i + b"\r\n" for i in ids))
        while ids:
            for line in lines.some():
                if line == b"DELETED":
                    ids.pop()
                    deleted += 1
                elif line:
                    sys.exit("delete: %r" % line)


def main():
    path, jobs = sys.argv[1], int(sys.argv[2])
    connect(path).close()
    began = time.monotonic()
    producer = threading.Thread(target=produce, args=(path, jobs))
    producer.start()
    consume(path, jobs)
    producer.join()
    took = time.monotonic() - began
    print("%d jobs put, reserved and deleted in %.2f s, %.0f jobs/s" % (jobs, took, jobs / took), flush=True)


main()
