"""What the scripts of bench/ share: child processes measured from outside, and how busy others kept the machine meanwhile."""
import os
import statistics
import subprocess
import threading
import time


def busy():
    """CPU seconds of the whole machine that were not idle."""
    fields = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def measured(command, env, errors_too=False):
    """Runs to the end; output (what it said on stderr behind it, if wanted), and wall and CPU seconds, peak bytes, cores of others."""
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
    return text + errors[0] * errors_too, dict(total=wall, cpu=cpu, rss=usage.ru_maxrss * 1024, others=max(0.0, (busy() - before - cpu) / wall))


def spread(values):
    """The least, the middle and the largest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}
