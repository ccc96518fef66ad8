"""Google Cloud: messages, and objects of buckets."""
