"""The S3 policy of a namespace's workers, as AWS, MinIO and others read it.

`python -m taskflow_core.blobs.policy NAMESPACE BUCKET` prints it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from taskflow_core.domain import naming


def worker_policy(namespace: str, bucket: str) -> dict[str, Any]:
    """Read and write below the namespace's prefix, and nothing else. Listing is what tells a missing object from a
    forbidden one.
    """
    prefix = naming.object_prefix(namespace)
    return {
        "Version": "2012-10-17",
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


def main(arguments: Sequence[str]) -> int:
    """Print the policy as JSON."""
    if len(arguments) != 2:  # noqa: PLR2004 - see the message
        print("expected a namespace and a bucket", file=sys.stderr)
        return 2
    print(json.dumps(worker_policy(*arguments), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
