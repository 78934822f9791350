"""A folder of buckets into an object store: FOLDER/BUCKET/KEY becomes s3://BUCKET/KEY."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from truekeep.api.common import S3Location
from truekeep.storage.errors import StoreError
from truekeep.storage.s3 import DEFAULT_REGION, Bucket

WORKERS = 8
_THERE = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}


def make_bucket(name: str, endpoint: str, *, versions: bool) -> None:
    """The bucket, unless there is one; with `versions`, it keeps every version, so that a run can be replayed.

    Credentials are those that boto3 finds (AWS_ACCESS_KEY_ID and so on). StoreError where the store does not."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client("s3", endpoint_url=endpoint, region_name=DEFAULT_REGION)
    try:
        try:
            client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in _THERE:
                raise
        if versions:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    except (ClientError, BotoCoreError) as error:
        remedy = "check the endpoint, and the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise StoreError(f"could not make the bucket {name} at {endpoint}: {error}; {remedy}") from error


def upload(folder: Path, endpoint: str, progress: Callable[[int, int], None]) -> int:
    """Every file of the folder; answers how many. `progress` is told how many are there, of how many.

    NotADirectoryError where a file lies outside of a bucket's folder, StoreError where the store does not take it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if stray := [path.name for path in files if path.parent == folder]:
        raise NotADirectoryError(f"{folder} holds {stray[0]}; it must hold one folder per bucket, and nothing else")
    names = sorted({path.relative_to(folder).parts[0] for path in files})
    buckets = {name: Bucket.open(S3Location(uri=f"s3://{name}/", endpoint=endpoint)) for name in names}

    def put(path: Path) -> None:
        name, *key = path.relative_to(folder).parts
        buckets[name].put("/".join(key), path.read_bytes())

    with ThreadPoolExecutor(WORKERS) as pool:
        for done, _ in enumerate(pool.map(put, files), start=1):
            progress(done, len(files))
    return len(files)
