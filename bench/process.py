"""A process run to its end and measured: seconds, processor time, peak memory, and what else the machine was doing. Standard library only."""
import os
import subprocess
import threading
import time


def busy():
    fields = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def measured(command, env):
    """Runs to the end; output, wall and CPU seconds, peak bytes, cores of others."""
    begin, before = time.time(), busy()
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    out, err = child.stdout, child.stderr
    errors = []
    reader = threading.Thread(target=lambda: errors.append(err.read()))
    reader.start()
    text = out.read()
    _, status, usage = os.wait4(child.pid, 0)
    reader.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    wall, cpu = time.time() - begin, usage.ru_utime + usage.ru_stime
    if child.returncode:
        raise RuntimeError((errors[0].strip() or text.strip())[-1500:])
    return text, dict(total=wall, cpu=cpu, rss=usage.ru_maxrss * 1024, others=max(0.0, (busy() - before - cpu) / wall))
