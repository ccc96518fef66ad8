"""The attributes of each level: what the index keeps, and what a search answers by default."""

from bisect import bisect

from pydicom.datadict import tag_for_keyword

from service.dicom.json_model import JsonObject, dumps

RETRIEVE_URL = "00081190"

# What is counted when it is asked for: ModalitiesInStudy; NumberOfStudyRelatedSeries,
# NumberOfStudyRelatedInstances and NumberOfSeriesRelatedInstances, which follow each other.
MODALITIES = "00080061"
STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES = "00201206", "00201208", "00201209"
_COUNTED = frozenset({MODALITIES, STUDY_SERIES, STUDY_INSTANCES, SERIES_INSTANCES})


def tags(keywords: str) -> frozenset[str]:
    """Return the tags of keywords that are separated by blanks, as DICOM JSON writes them."""
    return frozenset(f"{tag_for_keyword(keyword):08X}" for keyword in keywords.split())


# The attributes of the Patient and Study information entities: PS3.3 C.7.1.1, C.7.2.1, C.7.2.2.
STUDY = tags(
    "SpecificCharacterSet TimezoneOffsetFromUTC PatientName PatientID IssuerOfPatientID"
    " PatientBirthDate PatientBirthTime PatientSex OtherPatientIDsSequence OtherPatientNames"
    " EthnicGroup PatientComments StudyInstanceUID StudyDate StudyTime AccessionNumber"
    " IssuerOfAccessionNumberSequence ReferringPhysicianName StudyID StudyDescription"
    " PhysiciansOfRecord NameOfPhysiciansReadingStudy ProcedureCodeSequence"
    " AdmittingDiagnosesDescription PatientAge PatientSize PatientWeight Occupation"
    " AdditionalPatientHistory AdmissionID"
)

# The attributes of the Series and Equipment information entities: PS3.3 C.7.3.1, C.7.5.1.
SERIES = tags(
    "SpecificCharacterSet TimezoneOffsetFromUTC StudyInstanceUID Modality SeriesInstanceUID"
    " SeriesNumber Laterality SeriesDate SeriesTime SeriesDescription SeriesDescriptionCodeSequence"
    " PerformingPhysicianName OperatorsName ProtocolName BodyPartExamined PatientPosition"
    " PerformedProcedureStepStartDate PerformedProcedureStepStartTime PerformedProcedureStepID"
    " PerformedProcedureStepDescription RequestAttributesSequence Manufacturer InstitutionName"
    " InstitutionAddress InstitutionalDepartmentName StationName ManufacturerModelName"
    " DeviceSerialNumber SoftwareVersions"
)

# PS3.18 Tables 10.6.3-3, 10.6.3-4 and 10.6.3-5, without InstanceAvailability: all is online.
STUDY_RESULT = tags(
    "SpecificCharacterSet StudyDate StudyTime AccessionNumber"
    " ModalitiesInStudy ReferringPhysicianName TimezoneOffsetFromUTC RetrieveURL PatientName"
    " PatientID PatientBirthDate PatientSex StudyInstanceUID StudyID"
    " NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances"
)
SERIES_RESULT = tags(
    "SpecificCharacterSet Modality TimezoneOffsetFromUTC SeriesDescription RetrieveURL"
    " StudyInstanceUID SeriesInstanceUID SeriesNumber NumberOfSeriesRelatedInstances"
    " PerformedProcedureStepStartDate PerformedProcedureStepStartTime"
    " RequestAttributesSequence"
)
INSTANCE_RESULT = tags(
    "SpecificCharacterSet SOPClassUID SOPInstanceUID"
    " TimezoneOffsetFromUTC RetrieveURL StudyInstanceUID SeriesInstanceUID InstanceNumber"
    " NumberOfFrames Rows Columns BitsAllocated"
)


def part(model: JsonObject, wanted: frozenset[str]) -> JsonObject:
    """Return the attributes of a DICOM JSON object that are wanted."""
    return {tag: element for tag, element in model.items() if tag in wanted}


def result(model: JsonObject) -> str:
    """Return what a search for all instances answers of one by default, as text.

    Four lines, each the inside of a JSON object: what stands before ModalitiesInStudy, between it
    and the Retrieve URL, between that and the numbers of series and instances, and behind them.
    """
    wanted = part(model, (STUDY_RESULT | SERIES_RESULT | INSTANCE_RESULT) - _COUNTED)
    ends = (MODALITIES, RETRIEVE_URL, STUDY_SERIES, "G")
    pieces: list[JsonObject] = [{} for _ in ends]
    for tag in sorted(wanted):
        pieces[bisect(ends, tag)][tag] = wanted[tag]
    return "\n".join(dumps(piece).decode()[1:-1] for piece in pieces)
