"""Store instances into an archive and print each UID once it is acknowledged, until killed.

python -m tests.archive_process ROOT FIRST COUNT
"""

import sys
from pathlib import Path

from service.archive import Archive
from tests.archive_instances import dicom_file, put


def main() -> None:
    root, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    archive = Archive(root)
    for number in range(first, first + count):
        file = dicom_file(SOPInstanceUID=f"1.9.{number}", SeriesInstanceUID=f"1.8.{number % 7}")
        put(archive, file)
        print(number, flush=True)


if __name__ == "__main__":
    main()
