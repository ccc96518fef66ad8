"""The index: one SQLite file. The files hold all that it holds."""

VERSION = 3

# The columns that are searched are generated from the DICOM JSON beside them, so that the two can't
# contradict each other; so are the counts and the lives of series and studies, by triggers. What
# is long of an instance stands apart, so that pages are cut out of short rows.
SCHEMA = """
CREATE TABLE study (
    id INTEGER PRIMARY KEY,
    study_instance_uid TEXT NOT NULL UNIQUE,
    series INTEGER NOT NULL DEFAULT 0,
    instances INTEGER NOT NULL DEFAULT 0,
    modalities TEXT NOT NULL DEFAULT '[]',
    attributes TEXT NOT NULL,
    patient_id TEXT AS (json_extract(attributes, '$."00100020".Value[0]')),
    patient_name TEXT AS (json_extract(attributes, '$."00100010".Value[0].Alphabetic')),
    accession_number TEXT AS (json_extract(attributes, '$."00080050".Value[0]')),
    study_date TEXT AS (json_extract(attributes, '$."00080020".Value[0]')),
    referring_physician_name TEXT
        AS (json_extract(attributes, '$."00080090".Value[0].Alphabetic'))
) STRICT;
CREATE INDEX study_patient_id ON study (patient_id);
CREATE INDEX study_patient_name ON study (patient_name);
CREATE INDEX study_accession_number ON study (accession_number);
CREATE INDEX study_study_date ON study (study_date);
CREATE INDEX study_referring_physician_name ON study (referring_physician_name);

CREATE TABLE patient_name_token (
    token TEXT NOT NULL,
    study INTEGER NOT NULL REFERENCES study ON DELETE CASCADE,
    PRIMARY KEY (token, study)
) STRICT, WITHOUT ROWID;
CREATE INDEX patient_name_token_study ON patient_name_token (study);

CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    study INTEGER NOT NULL REFERENCES study,
    series_instance_uid TEXT NOT NULL,
    instances INTEGER NOT NULL DEFAULT 0,
    attributes TEXT NOT NULL,
    modality TEXT AS (json_extract(attributes, '$."00080060".Value[0]')),
    UNIQUE (study, series_instance_uid)
) STRICT;
CREATE INDEX series_uid ON series (series_instance_uid);
CREATE INDEX series_modality ON series (modality);

CREATE TABLE instance (
    id INTEGER PRIMARY KEY,
    series INTEGER NOT NULL REFERENCES series,
    sop_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    storage_class TEXT NOT NULL,
    UNIQUE (series, sop_instance_uid)
) STRICT;
CREATE INDEX instance_uid ON instance (sop_instance_uid);
-- In the order of ids, unlike the one of the constraint.
CREATE INDEX instance_series ON instance (series);

CREATE TABLE instance_attributes (
    instance INTEGER PRIMARY KEY REFERENCES instance ON DELETE CASCADE,
    fields TEXT NOT NULL,
    attributes TEXT NOT NULL
) STRICT;

CREATE TRIGGER series_added AFTER INSERT ON series BEGIN
    UPDATE study SET series = series + 1, modalities = (
        SELECT json_group_array(DISTINCT modality) FROM series
        WHERE study = NEW.study AND modality IS NOT NULL
    ) WHERE id = NEW.study;
END;
CREATE TRIGGER instance_added AFTER INSERT ON instance BEGIN
    UPDATE series SET instances = instances + 1 WHERE id = NEW.series;
    UPDATE study SET instances = instances + 1
        WHERE id = (SELECT study FROM series WHERE id = NEW.series);
END;
CREATE TRIGGER instance_removed AFTER DELETE ON instance BEGIN
    UPDATE study SET instances = instances - 1
        WHERE id = (SELECT study FROM series WHERE id = OLD.series);
    UPDATE series SET instances = instances - 1 WHERE id = OLD.series;
    DELETE FROM series WHERE id = OLD.series AND instances = 0;
END;
CREATE TRIGGER series_removed AFTER DELETE ON series BEGIN
    UPDATE study SET series = series - 1, modalities = (
        SELECT json_group_array(DISTINCT modality) FROM series
        WHERE study = OLD.study AND modality IS NOT NULL
    ) WHERE id = OLD.study;
    DELETE FROM study WHERE id = OLD.study AND series = 0;
END;
"""
