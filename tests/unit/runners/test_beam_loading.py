"""`runners.beam_loading`: what Beam loads without, and what is there when it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from runners.beam_loading import without_connectors

CONNECTORS = (
    "apache_beam.io.gcp.bigquery",
    "apache_beam.io.gcp.gcsio",
    "apitools",
    "google.cloud.bigquery",
    "google.cloud.dataflow_v1beta3",
    "google.cloud.pubsub_v1",
    "google.cloud.storage",
    "pymongo",
)

FIND = """
def found(path):
    from apache_beam.io.filesystems import FileSystems
    try:
        return type(FileSystems.get_filesystem(path)).__name__
    except Exception as error:
        return repr(error)

paths = ["gs://a/b", "s3://a/b", "azfs://a/b", "hdfs://a/b", "/a/b", "unknown://a/b"]
"""


def answer_of(code: str) -> Any:
    """What a new Python says, which has not loaded Beam. Its standard error is empty."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_beam_loads_without_connectors_and_says_nothing_of_it() -> None:
    code = """
import json, sys
from runners.beam_loading import without_connectors
with without_connectors():
    import apache_beam
print(json.dumps([name for name, module in sys.modules.items() if module is not None]))
"""
    loaded = answer_of(code)
    assert "apache_beam.io.filesystems" in loaded
    assert not set(CONNECTORS) & set(loaded)


def test_the_file_systems_are_those_of_the_whole_of_beam() -> None:
    whole = answer_of(f"{FIND}\nimport json\nprint(json.dumps([found(path) for path in paths]))")
    assert whole[:2] == ["GCSFileSystem", "S3FileSystem"]
    code = f"""
import json
from runners.beam_loading import without_connectors
{FIND}
with without_connectors():
    import apache_beam
on_demand = [found(path) for path in paths]
from apache_beam.utils import retry
print(json.dumps([on_demand, retry.HttpError.__name__, retry.GoogleAPICallError.__name__]))
"""
    assert answer_of(code) == [whole, "HttpError", "GoogleAPICallError"]


def test_what_was_left_out_can_be_imported_afterwards() -> None:
    code = """
import json
from runners.beam_loading import without_connectors
with without_connectors():
    import apache_beam
from apache_beam.io.gcp.bigquery import WriteToBigQuery
from apache_beam.io.mongodbio import MongoClient
from google.cloud import bigquery, pubsub, storage
print(json.dumps([WriteToBigQuery.__name__, MongoClient.__name__]))
"""
    assert answer_of(code) == ["WriteToBigQuery", "MongoClient"]


def test_an_import_that_fails_leaves_nothing_behind() -> None:
    code = """
import json, sys
from runners.beam_loading import without_connectors
try:
    with without_connectors():
        import there_is_no_such_module
except ModuleNotFoundError:
    print(json.dumps([name for name, module in sys.modules.items() if module is None]))
"""
    assert answer_of(code) == []


def test_nothing_changes_where_beam_is_loaded() -> None:
    import apache_beam

    assert sys.modules["apache_beam"] is apache_beam
    before = dict(sys.modules)
    with without_connectors():
        assert sys.modules == before
    assert sys.modules == before
