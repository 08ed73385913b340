"""Airflow tasks call their APIs through Airgate: change the connection, not the DAG."""

__version__ = "0.1.0"
