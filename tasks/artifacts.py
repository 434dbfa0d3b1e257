"""What a person sees of a run in Prefect: tables of checks and metrics, and links."""

from __future__ import annotations

from prefect.artifacts import create_link_artifact, create_table_artifact

from schemas.checks import CheckReport


def publish_check_table(universe: str, report: CheckReport) -> None:
    """Show every check with its outcome as a table artifact of the run."""
    create_table_artifact(
        key=f"checks-{universe.replace('_', '-')}",
        table=[
            {
                "check": result.check,
                "severity": result.severity,
                "outcome": "passed" if result.passed else "FAILED",
                "failures": result.failures,
                "observed": result.observed,
                "expected": result.expected,
            }
            for result in report.results
        ],
        description=f"Data-quality checks of {universe}",
    )


def publish_metrics_table(universe: str, rows: list[dict[str, object]]) -> None:
    """Show the metrics of every model as a table artifact of the run."""
    create_table_artifact(key=f"metrics-{universe.replace('_', '-')}", table=rows, description=f"Models of {universe}")


def publish_link(universe: str, name: str, link: str) -> None:
    """Show a link to a file that the run made."""
    create_link_artifact(key=f"{name}-{universe.replace('_', '-')}", link=link, description=f"{name} of {universe}")
