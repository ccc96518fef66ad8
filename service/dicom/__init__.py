"""Bytes in, values out: no clock, environment, network, file, logger or web framework here."""

from pydicom import config

# pydicom's warnings and errors quote the values that they complain of, and a patient's value must
# not reach a log. `attributes` and `template` check every value themselves, more strictly.
config.settings.reading_validation_mode = config.IGNORE
config.settings.writing_validation_mode = config.IGNORE
