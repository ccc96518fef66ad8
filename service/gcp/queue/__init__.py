"""The retry queue in a bucket: the bucket is the list, Pub/Sub is the alarm clock."""

from service.gcp.queue.alarm import Alarm
from service.gcp.queue.bucket_queue import BucketQueue
from service.gcp.queue.records import Records
from service.gcp.queue.redelivery import Redelivery

__all__ = ["Alarm", "BucketQueue", "Records", "Redelivery"]
