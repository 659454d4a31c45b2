from setuptools import find_packages, setup

setup(
    name="payment-pipeline",
    version="0.1.0",
    description="Payments from Kafka, each exactly once, to a table: an Apache Beam pipeline",
    license="Apache-2.0",
    python_requires=">=3.11,<3.12",
    packages=find_packages(
        include=["pipeline", "pipeline.*", "transforms", "transforms.*", "runners", "runners.*"]
    ),
    package_data={
        "pipeline.options": ["*.json"],
        "runners.flink": ["*.pom.xml"],
        "runners.spark": ["*.pom.xml"],
    },
    install_requires=[
        "apache-beam[gcp]==2.77.0",  # the pipeline itself and its runners
        "google-cloud-bigquery==3.47.0",  # tables, schema and queries of the BigQuery destination
        "pytest==9.2.0",  # users run the tests of the guarantee on their own machines
        "confluent-kafka==2.16.1",  # librdkafka: exact offset ranges, the demo's Kafka
        "prometheus-client==0.26.0",  # the figures of a streaming job as Prometheus text
        "pyarrow==25.0.1",  # columns between the steps and to the destination
        "numpy==2.4.6",  # the index over fingerprints, offsets and buckets
        "msgspec==0.22.0",  # JSON, each value on its own; compact reports
        "rich==15.0.0",  # the progress bar on a terminal
        "duckdb==2.0.0",  # the embedded destination, and the SQL of its checks
    ],
    extras_require={
        "dev": [
            "hypothesis==6.170.15",  # property tests against the oracles
            "pytest-timeout==2.4.0",  # no test may hang
            "pytest-xdist==3.8.0",  # the tests on all cores
            "sqlglot==30.30.0",  # GoogleSQL to DuckDB's SQL, in the tests' stand-in for BigQuery
            "ruff==0.17.6",  # lint and format
            "mypy==2.4.1",  # types, in strict mode
        ]
    },
    entry_points={"console_scripts": ["payment-pipeline=pipeline.__main__:main"]},
)
