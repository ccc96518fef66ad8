"""The fault campaign: nothing that was acknowledged is lost, whatever breaks meanwhile.

python -m tests.faults [--pictures 5000] [--seconds 540] [--seed N] [--folder KEPT]

uploaders -> `jpegstow serve` -> a proxy that plays faults -> `jpegstow archive`

While the uploaders post, archive, service and workers are killed with -9 and started again, another
service comes to the same folder and is killed, the queue is locked, and an operator mends and drops
what waits. Then the faults end, the queue drains, and what the archive has is compared with what
was acknowledged.
"""
