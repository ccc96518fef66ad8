"""The command that holds the configuration against the real thing."""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import click

from service import assemble, sending, settings
from service.dicom import jpegtran
from service.dicom.outcome import Stored, Unavailable
from service.errors import BadSettings, JpegstowError
from service.ingest import describe_upload
from service.settings import Settings
from service.store.client import Client
from service.store.session import session_for
from service.tokens import discovered, url_in

Examine = Callable[[Settings], str]
"""Tells what is wrong, without any value of a patient or secret; "" if nothing is."""

_PATIENT: Final = {
    "PatientName": "Doctor^Jpegstow",
    "PatientID": "JPEGSTOW-DOCTOR",
    "StudyID": "DOCTOR",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at; `mend` says what to do if it is wrong, `which` what is looked at."""

    name: str
    examine: Examine
    mend: str
    online: bool = False
    which: Callable[[Settings], str] = lambda _: ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found; `wrong` is empty if all is well."""

    check: str
    wrong: str
    mend: str
    which: str = ""


@click.command()
@click.option("--offline", is_flag=True, help="Look at what this machine alone can tell.")
@click.option("--write", is_flag=True, help="Store a made-up patient's picture, and delete it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, offline: bool, write: bool, as_json: bool) -> None:
    """Hold the configuration against the real thing, and say what to mend.

    Ends with 0 only if nothing is wrong.
    """
    if offline and write:
        raise click.UsageError("--write needs the store, and --offline leaves it alone")
    chosen = [check for check in CHECKS if not (offline and check.online)]
    found = list(_look([*chosen, WRITING] if write else chosen))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        for finding in found:
            click.echo(_line(finding))
    sys.exit(any(finding.wrong for finding in found))


def _line(finding: Finding) -> str:
    check = finding.check + (f" ({finding.which})" if finding.which else "")
    if not finding.wrong:
        return f"ok     {check}"
    mend = f"; {finding.mend}" if finding.mend else ""
    return f"WRONG  {check}: {finding.wrong}{mend}"


def _look(checks: list[Check]) -> Iterator[Finding]:
    """Yield what each check finds; without settings that load nothing else can be looked at."""
    try:
        current = settings.load()
    except BadSettings as error:
        yield from (Finding("settings", problem, "") for problem in error.problems)
        return
    yield Finding("settings", "", "")
    for check in checks:
        wrong = _examined(check.examine, current)
        yield Finding(check.name, wrong, check.mend if wrong else "", check.which(current))


def _examined(examine: Examine, current: Settings) -> str:
    try:
        return examine(current)
    except BadSettings as error:
        return "; ".join(error.problems)
    except JpegstowError as error:
        return str(error)
    except OSError as error:
        return type(error).__name__  # its text may quote a URL


def _templates(current: Settings) -> str:
    if current.default_template in assemble.load_templates(current):
        return ""
    return "DEFAULT_TEMPLATE: there is no such template"


def _library(_: Settings) -> str:
    jpegtran.load()
    return ""


def _data_dir(current: Settings) -> str:
    current.data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=current.data_dir):
        return ""


def _namespace(current: Settings) -> str:
    assemble.rules(current)
    return ""


def _folder(current: Settings) -> str:
    return _queue(current) if isinstance(current.queue_place, Path) else ""


def _bucket_and_topic(current: Settings) -> str:
    return "" if isinstance(current.queue_place, Path) else _queue(current)


def _subscription(current: Settings) -> str:
    place = current.queue_place
    if isinstance(place, Path) or not place.subscription:
        return ""
    from service.gcp.pull import missing  # noqa: PLC0415 - slow to import

    return missing(place.subscription)


def _queue(current: Settings) -> str:
    with closing(assemble.retry_queue(current)) as queue:
        return queue.unusable()


def _metadata_rules(current: Settings) -> str:
    assemble.metadata_rules(current)
    return ""


def _push(current: Settings) -> str:
    needed = {
        "PUSH_AUDIENCE": current.push_audience,
        "PUSH_SERVICE_ACCOUNT": current.push_service_account,
    }
    empty = [name for name, value in needed.items() if not value]
    if current.push_auth == "none" or len(empty) != 1:
        return ""  # with neither nobody can push, and nobody is meant to
    return f"{empty[0]} is empty, PUSH_AUTH is google, and so every push would be refused"


def _provider(current: Settings) -> str:
    """Ask the OpenID Connect provider what is needed of it."""
    if not current.oidc_issuer:
        return ""
    needed = [] if current.oidc_keys_url else ["jwks_uri"]
    needed += ["authorization_endpoint", "token_endpoint"] if current.oidc_client_id else []
    try:
        said = discovered(current.oidc_issuer) if needed else {}
        for name in needed:
            url_in(said, name)
    except ValueError as error:
        return str(error)
    return ""


def _credentials(current: Settings) -> str:
    with session_for(current):
        return ""


def _reachable(current: Settings) -> str:
    return assemble.store(current).unreachable()


def _writable(current: Settings) -> str:
    """Store a small picture of a made-up patient, and delete it."""
    upload = sending.upload_of(_picture(), _PATIENT, current.default_template)
    instance = describe_upload(upload, assemble.rules(current)).instance
    outcome = assemble.store(current).store([instance])[instance.sop_instance_uid]
    if not isinstance(outcome, Stored):
        return outcome.reason
    path = (
        f"/studies/{instance.study_instance_uid}/series/{instance.series_instance_uid}"
        f"/instances/{instance.sop_instance_uid}"
    )
    answer = Client(current).call("DELETE", path, {"Accept": "application/dicom+json"})
    if isinstance(answer, Unavailable) or answer.status not in {200, 202, 204}:
        said = answer.reason if isinstance(answer, Unavailable) else f"answered {answer.status}"
        return f"stored, but not deleted ({said}); PatientID JPEGSTOW-DOCTOR stays there"
    return ""


def _picture() -> bytes:
    from PIL import Image  # noqa: PLC0415 - only for this

    file = BytesIO()
    Image.linear_gradient("L").resize((32, 32)).save(file, "JPEG")
    return file.getvalue()


CHECKS: Final = (
    Check("templates", _templates, "mend or remove the file: jpegstow templates --check FILE"),
    Check("libturbojpeg", _library, "install libturbojpeg0"),
    Check("DATA_DIR", _data_dir, "let this user write to it, or name another folder"),
    Check("UID_NAMESPACE", _namespace, "set it to a secret text, once and for all"),
    Check("retry queue", _folder, "let this user write to it, or set RETRY_QUEUE"),
    Check("METADATA_RULES", _metadata_rules, "mend the pattern: README, Pictures from Pub/Sub"),
    Check("push", _push, "set both or neither: docs/deploy.md"),
    Check(
        "retry queue in a bucket",
        _bucket_and_topic,
        "create both, and let the service account use them: docs/deploy.md",
        online=True,
    ),
    Check(
        "retry subscription",
        _subscription,
        "create it for the topic of RETRY_QUEUE: docs/deploy.md",
        online=True,
    ),
    Check(
        "provider",
        _provider,
        "let OIDC_ISSUER be what the provider calls itself, and this machine reach it",
        online=True,
    ),
    Check(
        "credentials",
        _credentials,
        "gcloud auth application-default login, or give the service an account",
        online=True,
        which=lambda current: current.store_auth,
    ),
    Check(
        "store",
        _reachable,
        "look at DICOMWEB_URL, at its credentials and their roles, and at the network; the "
        "embedded archive runs with jpegstow serve or jpegstow archive",
        online=True,
    ),
)
WRITING: Final = Check(
    "store, writing", _writable, "let the credentials store, read and delete", online=True
)
