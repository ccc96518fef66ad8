"""Google's own Pub/Sub emulator, as a process of the test's own.

with PubSub(folder) as pubsub:
    topic = pubsub.topic()
    topic.push_to("http://127.0.0.1:8080/v1/pubsub")
    topic.publish(jpeg, PatientID="P-7")

It pushes as Google does: wrapped or not, again after what isn't an acknowledgement, and to a
dead-letter topic in the end. It signs no tokens, ignores filters, and its first wait before a
second delivery isn't what the retry policy says. Two messages of one subscription that fail at the
same moments are often neither delivered again nor dead letters, ever: give each a topic of its own.
Data that is no text reaches an unwrapped push damaged.
"""

import base64
import itertools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import requests

from tests.loopback import BOUND
from tests.processes import kill_family, on_a_port, start, wait_for_answer

PROJECT = "projects/jpegstow-tests"
_PROGRAM = "platform/pubsub-emulator/bin/cloud-pubsub-emulator"
_DEBIAN = Path("/usr/lib/google-cloud-sdk")


def find_emulator() -> Path | None:
    """Return the emulator's path: in the SDK of the `gcloud` at hand, or where Debian has it."""
    gcloud = shutil.which("gcloud")
    roots = [*(Path(gcloud).resolve().parents if gcloud else []), _DEBIAN]
    return next((root / _PROGRAM for root in roots if (root / _PROGRAM).is_file()), None)


def require_emulator() -> Path:
    """Return the emulator's path; without it skip the test, or fail it where CI is set."""
    path = find_emulator()
    if path is None or not shutil.which("java"):
        report = pytest.fail if os.environ.get("CI") else pytest.skip
        missing = "Java" if path else "the Pub/Sub emulator"
        report(f"{missing} isn't installed: apt-get install google-cloud-cli-pubsub-emulator")
    return path


class PubSub:
    """An emulator of its own, without any topics; its log is in a folder."""

    def __init__(self, folder: Path) -> None:
        self._program = require_emulator()
        self._log = folder / "pubsub.log"
        self._numbers = itertools.count(1)
        self._session = requests.Session()

    def __enter__(self) -> Self:
        """Start it, which takes Java some seconds."""
        return on_a_port(self._start)

    def _start(self, port: int) -> Self:
        self.host = f"127.0.0.1:{port}"
        command = [str(self._program), "--host=127.0.0.1", f"--port={port}"]
        self._process = start(command, self._log, session=True)
        wait_for_answer(self._process, f"http://{self.host}/", self._log)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it and wait for its end."""
        kill_family(self._process)  # the shell that starts it, and Java
        self._session.close()

    @property
    def environment(self) -> dict[str, str]:
        """What turns Google's client libraries to it."""
        return {"PUBSUB_EMULATOR_HOST": self.host}

    def topic(self) -> "Topic":
        """Make a topic of its own."""
        name = f"{PROJECT}/topics/topic-{next(self._numbers)}"
        self.ask("PUT", name, {})
        return Topic(self, name)

    def subscription(self, topic: str, **settings: Any) -> str:
        """Make a subscription, with the settings of Google's REST API, and return its name."""
        name = f"{PROJECT}/subscriptions/subscription-{next(self._numbers)}"
        self.ask("PUT", name, {"topic": topic, "ackDeadlineSeconds": 10} | settings)
        return name

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask its REST API, and return the decoded JSON."""
        url = f"http://{self.host}/v1/{path}"
        response = self._session.request(method, url, json=body, timeout=BOUND)
        assert response.ok, response.text
        return response.json()


@dataclass(frozen=True)
class Topic:
    """A topic of an emulator."""

    pubsub: PubSub
    name: str

    def publish(self, data: bytes = b"", **attributes: str) -> str:
        """Publish one message, and return its id."""
        message = {"data": base64.b64encode(data).decode(), "attributes": attributes}
        answer = self.pubsub.ask("POST", f"{self.name}:publish", {"messages": [message]})
        (name,) = answer["messageIds"]
        return str(name)

    def push_to(
        self,
        url: str,
        *,
        wrapped: bool = True,
        least_wait: int = 10,
        dead_letters: "Topic | None" = None,
        attempts: int = 5,
    ) -> str:
        """Have all that comes pushed to a URL.

        Parameters
        ----------
        wrapped
            Whether within the JSON envelope, or as the body with the attributes as headers.
        least_wait
            Seconds before a message that isn't acknowledged comes again, at least.
        dead_letters
            Where goes what was delivered `attempts` times in vain; by default it never gives up.
        """
        push: dict[str, Any] = {"pushEndpoint": url}
        if not wrapped:
            push["noWrapper"] = {"writeMetadata": True}
        settings: dict[str, Any] = {
            "ackDeadlineSeconds": 600,  # else what is answered late comes a second time
            "pushConfig": push,
            "retryPolicy": {"minimumBackoff": f"{least_wait}s", "maximumBackoff": "600s"},
        }
        if dead_letters:
            policy = {"deadLetterTopic": dead_letters.name, "maxDeliveryAttempts": attempts}
            settings["deadLetterPolicy"] = policy
        return self.pubsub.subscription(self.name, **settings)

    def pull_from(self, **settings: Any) -> str:
        """Make a subscription that is pulled, and return its name."""
        return self.pubsub.subscription(self.name, **settings)
