"""Measure the archive with a million instances in its index: searches, and storing one more.

usage: python -m tests.bench.archive [--quick]

The index is filled by the archive's own statements with descriptions of a real instance under other
UIDs, names and dates; there are no files to it. It needs 5 GB, a tenth of that with --quick, in a
temporary folder (TMPDIR). Searches are whole requests, from the URL to the JSON of the answer. What
a store takes beside the flushes of its file is the difference to the same file work without an
index, measured in turns; the flush of the index's own log is in it.
"""

import argparse
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from flask.testing import FlaskClient

from service.archive import Archive, Description, InstanceUids, Stored, describe, name_tokens
from service.archive import index as rows
from service.dicom import part10
from service.durable import incoming, publish_kept
from tests.archive_instances import client_of, dicom_file
from tests.bench.queue import Report, timed

MAX_SEARCH: Final = 20.0  # milliseconds, the median
MAX_STORE: Final = 15.0  # milliseconds, the median, beside the flushes of the file

SERIES, INSTANCES = 2, 4  # of a study, and of a series
BATCH: Final = 5_000  # studies in a transaction
YEARS: Final = 10

# What stands in the model for what each study and instance has of its own.
STUDY_UID, SERIES_UID, INSTANCE_UID = "1.2.3.555.1", "1.2.3.555.2", "1.2.3.555.3"
PATIENT, ACCESSION, NAME, DATE = "P-555", "A-555", "Family^Given", "19990101"
WORDS: Final[dict[str, Any]] = {
    "PatientID": PATIENT,
    "AccessionNumber": ACCESSION,
    "PatientName": NAME,
}
GIVEN: Final = [
    *("Ada", "Bruno", "Carla", "David", "Elena", "Felix", "Greta", "Hugo"),
    *("Ida", "Jonas", "Klara", "Leo", "Maria", "Noah", "Olga", "Paul"),
]
FAMILY: Final = [
    "".join(parts)
    for parts in product(
        ("Ack", "Ber", "Col", "Dan", "Eck", "Fal", "Gar", "Hol", "Jan", "Kel"),
        ("er", "in", "ov", "as", "el", "um", "ig", "or"),
        ("mann", "sen", "ski", "berg", "feld", "dal", "ton", "ez"),
    )
]
MODALITIES: Final = ("XC", "ES", "GM", "OP")


class Scale(NamedTuple):
    """How much is measured."""

    studies: int
    calls: int
    stores: int


def study(model: Description, number: int) -> Iterator[Description]:
    """Say of the instances of a study what is said of the model; UIDs grow with the number."""
    given, family = GIVEN[number % len(GIVEN)], FAMILY[number // 7 % len(FAMILY)]
    uid = study_uid(number)
    own = {
        STUDY_UID: uid,
        PATIENT: f"P-{number // 2}",
        ACCESSION: f"A-{number}",
        NAME: f"{family}^{given}",
        DATE: date_of(number),
    }
    of_study = said(model.study, own)
    of_series, of_instance = said(model.series, own), said(model.instance, own)
    tokens = name_tokens(f"{family} {given}")
    for series, instance in product(range(SERIES), range(INSTANCES)):
        uids = InstanceUids(uid, f"{uid}.{series}", f"{uid}.{series}.{instance}")
        modality = MODALITIES[(number + series) % len(MODALITIES)]
        named = {
            SERIES_UID: uids.series,
            INSTANCE_UID: uids.instance,
            '"XC"': f'"{modality}"',
        }
        yield replace(
            model,
            uids=uids,
            study=of_study,
            series=said(of_series, named),
            instance=said(of_instance, named),
            name_tokens=tokens,
        )


def study_uid(number: int) -> str:
    return f"2.25.{10**9 + number}"


def said(text: str, words: dict[str, str]) -> str:
    for old, new in words.items():
        text = text.replace(old, new)
    return text


def date_of(number: int) -> str:
    """Spread studies over years, days and months, each day as often as any other."""
    day = number * 7919 % (YEARS * 336)
    return f"{2015 + day // 336}{day // 28 % 12 + 1:02}{day % 28 + 1:02}"


def model() -> Description:
    """Describe a real instance, with the words that are replaced."""
    file = dicom_file(
        StudyInstanceUID=STUDY_UID,
        SeriesInstanceUID=SERIES_UID,
        SOPInstanceUID=INSTANCE_UID,
        StudyDate=DATE,
        **WORDS,
        SeriesDate=DATE,
        ContentDate=DATE,
        ContentTime="101112.131415",
        StudyDescription="Dermatology, follow-up of a pigmented lesion of the left forearm",
        SeriesDescription="Overview and close-ups, polarised light",
        Manufacturer="A maker of cameras",
        ManufacturerModelName="A camera of theirs",
        SoftwareVersions="1.2.3",
        InstanceNumber=1,
        PatientComments="x" * 300,
        ImageComments="y" * 300,
    )
    return describe(part10.decode(file))


def fill(folder: Path, studies: int) -> None:
    """Add so many studies to the index, in the order of their UIDs."""
    description, kept = model(), rows.Kept(3_000_000, "0" * 64, "STANDARD")
    connection = sqlite3.connect(folder / "index.sqlite", isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -262144")
    for first in range(0, studies, BATCH):
        connection.execute("BEGIN")
        for number in range(first, min(first + BATCH, studies)):
            for each in study(description, number):
                rows.add(connection, each, kept)
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with (folder / "index.sqlite").open("rb") as file:
        os.fsync(file.fileno())  # else the first store pays for it


class Search(NamedTuple):
    """A request, how many results it has at least, and how long it may take in milliseconds.

    A page of 1,000 instances has no bound: most of its time is that of the answer's bytes.
    """

    label: str
    target: str
    found: int
    most: float | None = MAX_SEARCH


def searches(studies: int) -> list[Search]:
    middle = studies // 2
    name, uid = (
        f"{FAMILY[middle // 7 % len(FAMILY)]}^{GIVEN[middle % len(GIVEN)]}",
        study_uid(middle),
    )
    day, year = date_of(middle), date_of(middle)[:4]
    month = f"{day[:6]}01-{day[:6]}31"
    fuzzy = "fuzzymatching=true&PatientName="
    patient = f"PatientID=P-{middle // 2}"
    return [
        Search("studies, its UID", f"studies?StudyInstanceUID={uid}", 1),
        Search("studies, PatientID", f"studies?{patient}", 1),
        Search("studies, AccessionNumber", f"studies?AccessionNumber=A-{middle}", 1),
        Search("studies, whole name", f"studies?PatientName={name}", 1),
        Search("studies, a day", f"studies?StudyDate={day}", 1),
        Search("studies, a month", f"studies?StudyDate={month}", 10),
        Search("studies, a year", f"studies?StudyDate={year}0101-{year}1231", 100),
        Search("studies, all time", "studies?StudyDate=19000101-", 100),
        Search("studies, nothing asked", "studies", 100),
        Search("studies, fuzzy family name", f"studies?{fuzzy}{name.partition('^')[0]}", 1),
        Search("studies, fuzzy given name", f"studies?{fuzzy}mari", 100),
        Search("studies, fuzzy letter", f"studies?{fuzzy}m", 100),
        Search("studies, fuzzy, two words", f"studies?{fuzzy}maria+jan", 100),
        Search("studies, fuzzy and a month", f"studies?{fuzzy}maria&StudyDate={month}", 1),
        Search("studies, physician", "studies?ReferringPhysicianName=Wolf%5EAda", 100),
        Search(
            "studies, physician and patient",
            f"studies?ReferringPhysicianName=Wolf%5EAda&{patient}",
            1,
        ),
        Search("studies, page 100", "studies?offset=10000", 0),
        Search("series of a study", f"studies/{uid}/series", SERIES),
        Search("series, modality", "series?Modality=ES", 100),
        Search("series, modality and patient", f"series?Modality=ES&{patient}", 0),
        Search("series, modality and a day", f"series?Modality=ES&StudyDate={day}", 0),
        Search("instances of a study", f"studies/{uid}/instances", SERIES * INSTANCES),
        Search("instances of a series", f"studies/{uid}/series/{uid}.0/instances", INSTANCES),
        Search("instances, its UID", f"instances?SOPInstanceUID={uid}.0.0", 1),
        Search("instances, PatientID", f"instances?{patient}", SERIES * INSTANCES),
        Search("instances, modality, 1,000", "instances?Modality=ES", 1000, None),
        Search(
            "instances, a year, 1,000", f"instances?StudyDate={year}0101-{year}1231", 1000, None
        ),
        Search("instances, fuzzy, 1,000", f"instances?{fuzzy}maria", 1000, None),
        Search("instances, 1,000", "instances", 1000, None),
        Search("instances, deep, 1,000", f"instances?offset={studies * 7}", 1000, None),
    ]


def answer(client: FlaskClient, target: str) -> bytes:
    """Ask, and read the whole answer."""
    data: bytes = client.get(target).data
    return data


def measure_searches(report: Report, client: FlaskClient, scale: Scale) -> None:
    for search in searches(scale.studies):
        ask = partial(answer, client, f"/dicomWeb/{search.target}")
        results = len(json.loads(ask()))
        assert results >= search.found, (search, results)
        report.times(search.label, timed(ask, scale.calls), search.most)


def measure_stores(report: Report, archive: Archive, root: Path, stores: int) -> None:
    bare = root / "bare"
    (bare / "incoming").mkdir(parents=True)
    for label, series in (("a new study", False), ("a series", True)):
        whole, files = [], []
        for number in range(stores):
            uid = f"2.25.{time.time_ns()}"
            study = study_uid(7) if series else uid
            uids = InstanceUids(study, f"{study}.0", f"{uid}.1")
            file = dicom_file(
                StudyInstanceUID=uids.study,
                SeriesInstanceUID=uids.series,
                SOPInstanceUID=uids.instance,
                PatientID=f"S-{number}",
            )
            whole += timed(partial(store, archive, file), 1)
            files += timed(partial(write, bare, uids, file), 1)
        report.times(f"store into {label}", whole)
        report.times("  its file alone", files)
        rest = median(whole) - median(files)
        text = f"store into {label}: {rest:.2f} ms beside its file, below {MAX_STORE}"
        report.bound(text, kept=rest < MAX_STORE)


def store(archive: Archive, file: bytes) -> None:
    stored = archive.store([file], part10.decode(file))
    assert isinstance(stored, Stored)


def write(bare: Path, uids: InstanceUids, file: bytes) -> None:
    """Do what a store does with its file, and nothing else."""
    target = uids.path(bare / "instances")
    with incoming(bare / "incoming", [file]) as temporary:
        target.parent.mkdir(parents=True, exist_ok=True)
        publish_kept(temporary, target, levels=3)


def measure_delete(report: Report, archive: Archive, calls: int) -> None:
    studies = iter(range(calls))
    report.times(
        f"delete a study of {SERIES * INSTANCES}",
        timed(lambda: archive.delete(study_uid(next(studies))), calls),
    )


def run(scale: Scale, root: Path) -> list[tuple[str, bool]]:
    """Measure everything; return each bound in words, with whether it is kept."""
    report, folder = Report(), root / "archive"
    Archive(folder).close()
    (seconds,) = timed(lambda: fill(folder, scale.studies), 1)
    instances = scale.studies * SERIES * INSTANCES
    gigabytes = (folder / "index.sqlite").stat().st_size / 1e9
    print(f"filled in {seconds / 1000:.0f} s, {gigabytes:.1f} GB")
    print(f"{instances:,} instances".ljust(46) + f"{'p50 ms':>10}{'p99 ms':>10}{'per s':>10}")
    archive = Archive(folder)
    try:
        measure_searches(report, client_of(archive), scale)
        measure_stores(report, archive, root, scale.stores)
        measure_delete(report, archive, scale.calls)
    finally:
        archive.close()
    (opened,) = timed(lambda: Archive(folder).close(), 1)
    print(f"{'open alone':46}{opened:10.2f}")
    return report.verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the instances")
    arguments, _ = parser.parse_known_args()
    scale = Scale(12_500, 15, 60) if arguments.quick else Scale(125_000, 15, 60)
    with TemporaryDirectory(prefix="jpegstow-bench-") as folder:
        verdicts = run(scale, Path(folder))
    for text, is_kept in verdicts:
        print(f"{'PASS' if is_kept else 'FAIL'}  {text}")
    sys.exit(0 if all(is_kept for _, is_kept in verdicts) else 1)


if __name__ == "__main__":
    main()
