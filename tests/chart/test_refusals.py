import pytest

from tests.chart.rendering import CHART, DEV, template

EXTERNAL = ("--values", str(CHART / "ci" / "external-values.yaml"))

POLICIES = ("--set", "networkPolicy.enabled=true")
REDIS = ("--set-json", 'externalRedis.egress.to=[{"ipBlock":{"cidr":"10.0.0.1/32"}}]')
S3 = ("--set-json", 'externalS3.egress.to=[{"ipBlock":{"cidr":"10.0.0.2/32"}}]')
HOOKS = ("--set", "webhooks.enabled=true,webhooks.existingSecret=hooks")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "externalDatabase.existingSecret: expected the name of a Secret, found none"),
        ((*EXTERNAL, "--set", "externalRedis.existingSecret="), "externalRedis.existingSecret: expected the name"),
        ((*EXTERNAL, "--set", "externalS3.existingSecret="), "externalS3.existingSecret: expected the name"),
        ((*EXTERNAL, "--set", "externalS3.endpoint="), "externalS3.endpoint: expected http(s)://host:port"),
        (
            (*EXTERNAL, "--set", "provisioner.existingSecret="),
            "provisioner.existingSecret: expected the name",
        ),
        ((*DEV, "--set", "provisioner.enabled=false"), "leave enabled=true and s3Logins=minio"),
        ((*DEV, "--set", "provisioner.s3Logins=shared"), "leave enabled=true and s3Logins=minio"),
        ((*EXTERNAL, *DEV), "devServices.enabled and an external service are both set"),
        ((*DEV, "--set", "migrations.mode=hook"), "migrations.mode=hook runs before anything is installed"),
        (
            (*DEV, "--set", "workerPool.namespace=elsewhere"),
            "expected one of workerNamespaces (default), found elsewhere",
        ),
        (
            (*DEV, "--set", "watchNamespaces={team-a}"),
            "workerNamespaces: expected some of watchNamespaces (team-a), found",
        ),
        ((*DEV, "--set", "api.ingress.enabled=true"), "api.ingress.hosts: expected at least one host name"),
        ((*DEV, "--set", "api.httpRoute.enabled=true"), "api.httpRoute.parentRefs: expected at least one gateway"),
        (
            (*DEV, "--set", "api.ingress.enabled=true,api.httpRoute.enabled=true"),
            "api.ingress and api.httpRoute are both enabled",
        ),
        ((*DEV, "--set", "api.oidc.issuer=https://login.example.com"), "api.oidc.audience: expected the client's id"),
        ((*DEV, "--set", "api.register.enabled=true"), "api.register.existingSecret: expected the name of a Secret"),
        ((*DEV, "--set", "webhooks.enabled=true"), "webhooks.existingSecret: expected the name of a Secret"),
        (
            (*DEV, "--set", "metrics.podMonitor.enabled=true,metrics.serviceMonitor.enabled=true"),
            "metrics.podMonitor and metrics.serviceMonitor are both enabled",
        ),
        ((*EXTERNAL, *POLICIES), "externalRedis.egress.to: expected where it is"),
        ((*EXTERNAL, *POLICIES, *REDIS), "externalS3.egress.to: expected where it is"),
        (
            (*DEV, *POLICIES, "--set-json", 'worker.egress=[{"ports":[{"port":443}]}]'),
            'worker.egress: expected `to` in each rule, found {"ports":[{"port":443}]}',
        ),
        ((*EXTERNAL, *POLICIES, *REDIS, *S3, *HOOKS), "webhooks.databaseEgress: expected where the database is"),
        (
            (*DEV, *POLICIES, *HOOKS, "--set-json", 'webhooks.databaseEgress=[{"ports":[{"port":5432}]}]'),
            "webhooks.databaseEgress: expected `to` in each rule",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_with_what_to_do(arguments: tuple[str, ...], expected: str) -> None:
    done = template(*arguments)
    assert done.returncode != 0
    assert expected in done.stderr


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("operater.replicas=2", "operater"),
        ("operator.replica=2", "replica"),
        ("operator.replicas=0", "minimum"),
        ("operator.replicas=many", "want integer"),
        ("operator.image.digest=latest", "pattern"),
        ("operator.image.pullPolicy=Sometimes", "Always"),
        ("migrations.mode=later", "job"),
        ("logging.level=LOUD", "DEBUG"),
        ("externalS3.endpoint=s3.example.com", "pattern"),
        ("workerPool.name=Main", "pattern"),
        ("metrics.prometheusRule.failureRatio=2", "maximum"),
        ("api.autoscaling.targetCPU=50", "targetCPU"),
        ("api.oidc.issuer=http://login.example.com", "pattern"),
        ("api.register.signingKey=secret", "signingKey"),
        ("externalDatabase.password=secret", "password"),
    ],
)
def test_a_value_that_is_misspelt_or_out_of_bounds_is_refused_by_the_schema(setting: str, expected: str) -> None:
    done = template(*DEV, "--set", setting)
    assert done.returncode != 0
    assert "don't meet the specifications of the schema" in done.stderr
    assert expected in done.stderr


def test_values_of_other_charts_beside_ours_are_let_through() -> None:
    assert template(*DEV, "--set", "global.theirs=1").returncode == 0
