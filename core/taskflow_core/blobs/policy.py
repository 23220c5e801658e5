"""The S3 policies of a namespace's workers and of the REST API, as AWS, MinIO and others read them.

`python -m taskflow_core.blobs.policy NAMESPACE BUCKET` prints that of workers, `--api BUCKET` that of the API.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.errors import Invalid

_VERSION = "2012-10-17"


def worker_policy(namespace: str, bucket: str) -> dict[str, Any]:
    """Read and write below the namespace's prefix, and nothing else. Listing is what tells a missing object from a
    forbidden one.

    Raises:
        Invalid: it is no name of a namespace. An asterisk would be all of them.
    """
    naming.check_namespace(namespace)
    prefix = naming.object_prefix(namespace)
    return {
        "Version": _VERSION,
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
                "Resource": [f"arn:aws:s3:::{bucket}/{prefix}*"],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
                "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*"]}},
            },
        ],
    }


def api_policy(bucket: str) -> dict[str, Any]:
    """What the API does itself and by its links, and nothing else: no tags, no ACLs, no locks.

    A link is a signature of the API's. Some servers let whoever has one for an upload add a header that makes it a copy
    of any object that the signer may read, so the API must not be able to copy; it never needs to.
    """
    objects = f"arn:aws:s3:::{bucket}/*"
    return {
        "Version": _VERSION,
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "s3:GetObject",
                    "s3:PutObject",
                    "s3:DeleteObject",
                    "s3:AbortMultipartUpload",
                    "s3:ListMultipartUploadParts",
                ],
                "Resource": [objects],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
            },
            {
                "Effect": "Deny",
                "Action": ["s3:PutObject"],
                "Resource": [objects],
                "Condition": {"Null": {"s3:x-amz-copy-source": ["false"]}},
            },
        ],
    }


def main(arguments: Sequence[str]) -> int:
    """Print a policy as JSON."""
    if len(arguments) != 2:  # noqa: PLR2004 - see the message
        print("expected a namespace and a bucket, or --api and a bucket", file=sys.stderr)
        return 2
    whose, bucket = arguments
    try:
        policy = api_policy(bucket) if whose == "--api" else worker_policy(whose, bucket)
    except Invalid as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(policy, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
